"""Kubernetes as the pod of a task reaches it: a few requests, with the token of the pod's account.

The image of the tasks has no client of Kubernetes.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote

import requests

from components.services.storage.patience import Patience, passing_failure, patience_of_environment
from dagnn_core.errors import BackendError, InputError
from dagnn_core.text import one_line
from pipeline.trainer.manifests import API_VERSION

ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Folder with the token of the pod's account, its namespace, and the certificates of the API."""
MAX_LOG_BYTES = 1 << 20  # of an answer; the rest of a log comes with the next one

_TIMEOUT = (5.0, 30.0)  # seconds: to connect, and without a byte
_ADMISSION = "admission webhook"  # in what a webhook says, which Kubernetes passes on as 403


class ClusterLostError(BackendError):
    """Kubernetes' API does not answer: nobody knows what became of what runs there. Exit status 3."""


class RefusedError(InputError):
    """Kubernetes' API, or a webhook behind it, refuses an object as it is. Exit status 2."""


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The API, in the namespace of the pod."""

    url: str
    account: Path
    """Folder of the account."""
    patience: float
    """Seconds to wait for an API that does not answer."""

    @classmethod
    def of_pod(cls) -> "Cluster":
        """As the environment of a pod says.

        Raises:
            InputError: this is no pod.
        """
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}", "") for name in ("HOST", "PORT"))
        if not host or not (ACCOUNT / "token").is_file():
            raise InputError(
                "a training on several nodes begins in a pod with a token for Kubernetes' API, and this is none",
                "let the account of the tasks mount its token (automountServiceAccountToken)",
            )
        address = f"[{host}]" if ":" in host else host
        return cls(url=f"https://{address}:{port or 443}", account=ACCOUNT, patience=patience_of_environment())

    @cached_property
    def namespace(self) -> str:
        """That the pod runs in."""
        return (self.account / "namespace").read_text(encoding="utf-8").strip()

    def create(self, resource: str, manifest: Mapping[str, Any]) -> None:
        """Make an object, unless it is there, as after a request whose answer was lost.

        Raises:
            RefusedError: it is refused as it is.
            BackendError: the API does not know such objects, does not permit this, or cannot be reached.
        """
        answer = self._ask("POST", self._path(resource), resource, body=manifest)
        if answer.status_code == requests.codes.not_found:
            raise BackendError(
                f"Kubernetes at {self.url} knows no {resource}",
                "install Kubeflow Trainer 2.1 or later, or train on one node with one GPU",
            )

    def get(self, resource: str, name: str) -> dict[str, Any] | None:
        """An object; None where there is none.

        Raises:
            BackendError: the API does not permit this, or cannot be reached.
        """
        answer = self._ask("GET", self._path(resource, name), resource)
        return None if answer.status_code == requests.codes.not_found else answer.json()

    def patch(self, resource: str, name: str, changes: Mapping[str, Any]) -> None:
        """Change an object, as far as it is there.

        Raises:
            BackendError: the API does not permit this, or cannot be reached.
        """
        path = self._path(resource, name)
        self._ask("PATCH", path, resource, body=changes, content_type="application/merge-patch+json")

    def delete(self, resource: str, name: str) -> None:
        """Delete an object with all that it owns, as far as it is there.

        Raises:
            BackendError: the API does not permit this, or cannot be reached.
        """
        self._ask("DELETE", self._path(resource, name), resource, body={"propagationPolicy": "Background"})

    def find_all(self, resource: str, selector: str) -> list[dict[str, Any]]:
        """The objects that have some labels.

        Raises:
            BackendError: the API does not permit this, or cannot be reached.
        """
        answer = self._ask("GET", self._path(resource), resource, query={"labelSelector": selector})
        return list(answer.json().get("items") or [])

    def log(self, pod: str, container: str, *, since: str = "", tail: int = 0) -> str:
        """What a container has written, each line with its time before it; empty where it has not begun.

        Args:
            pod: its name.
            container: its name.
            since: a time, from whose second on lines are wanted; empty: all.
            tail: number of lines, at most; 0: all.

        Raises:
            BackendError: the API does not permit this, or cannot be reached.
        """
        query = {"container": container, "timestamps": "true", "limitBytes": str(MAX_LOG_BYTES)}
        query |= {"sinceTime": since} if since else {}
        query |= {"tailLines": str(tail)} if tail else {}
        path = f"{self._path('pods', pod)}/log"
        answer = self._ask("GET", path, "pods/log", query=query, bearable=(requests.codes.bad_request,))
        return answer.content.decode(errors="replace") if answer.ok else ""

    def _path(self, resource: str, name: str = "") -> str:
        group = "api/v1" if resource == "pods" else f"apis/{API_VERSION}"
        parts = (group, "namespaces", quote(self.namespace, safe=""), resource, quote(name, safe=""))
        return "/".join(filter(None, parts))

    def _ask(
        self,
        method: str,
        path: str,
        resource: str,
        *,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        content_type: str = "application/json",
        bearable: tuple[int, ...] = (),
    ) -> requests.Response:
        """An answer: what was asked for, 404, 409, or a `bearable` status."""

        def attempt() -> requests.Response:
            with requests.Session() as session:
                session.trust_env = False  # no proxy and no .netrc gets between the token and the API
                answer = session.request(
                    method,
                    f"{self.url}/{path}",
                    params=query,
                    json=body,
                    headers={"Authorization": f"Bearer {self._token()}"}
                    | ({"Content-Type": content_type} if body else {}),
                    timeout=_TIMEOUT,
                    allow_redirects=False,  # the token is for this address alone
                    verify=str(self.account / "ca.crt"),
                )
                if answer.status_code in (requests.codes.not_found, requests.codes.conflict, *bearable):
                    return answer
                answer.raise_for_status()
                return answer

        try:
            return self._waiting.call(attempt, passing_failure)
        except requests.HTTPError as error:
            raise self._refusal(error.response, f"{method} {resource}") from error
        except requests.RequestException as error:
            raise ClusterLostError(
                f"Kubernetes at {self.url} cannot be reached ({one_line(error)})",
                "check the network between the tasks and the API; `dagnn retry` resumes from the last checkpoint",
            ) from error

    def _refusal(self, answer: requests.Response, what: str) -> BackendError | InputError:
        try:
            message = one_line(answer.json()["message"])
        except (ValueError, KeyError, TypeError):
            message = one_line(answer.reason or "no reason")
        status = answer.status_code
        if _ADMISSION in message or status in (requests.codes.bad_request, requests.codes.unprocessable):
            return RefusedError(f"Kubernetes refuses the training ({status}: {message})", "correct what it names")
        if status in (requests.codes.unauthorized, requests.codes.forbidden):
            return BackendError(
                f"Kubernetes does not let the account of this task do {what} in namespace {self.namespace} "
                f"({status}: {message})",
                "apply infra/kubernetes/training for its namespace (docs/cluster.md)",
            )
        return ClusterLostError(f"Kubernetes at {self.url} answers {status} to {what}: {message}", "try again later")

    def _token(self) -> str:
        """Read for each request, since it is renewed."""
        return (self.account / "token").read_text(encoding="utf-8").strip()

    @cached_property
    def _waiting(self) -> Patience:
        return Patience(f"Kubernetes at {self.url}", self.patience)
