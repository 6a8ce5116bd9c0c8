"""What a failure of the Kubeflow client means to the user, in one clear line."""

import json
import re
from collections.abc import Iterator
from contextlib import contextmanager

from kfp_server_api import ApiException
from urllib3.exceptions import HTTPError, ProtocolError, SSLError

from dagnn_core.errors import BackendError, DagnnError, InputError
from dagnn_core.text import one_line


class ServerFailedError(BackendError):
    """The server did not answer, or failed; it may do better when it is asked again."""


class LoginError(BackendError):
    """The server wants other credentials, or sends to a login page."""


class AlreadyThereError(BackendError):
    """What was to be made is there already."""


@contextmanager
def answering(address: str, *, namespace: str, has_credentials: bool) -> Iterator[None]:
    """Turn what the generated client raises in the body into one clear line.

    Args:
        address: of the server, fit to be shown.
        namespace: of the user; may be empty.
        has_credentials: whether a token or cookies were sent.

    Raises:
        InputError: the server refuses the request as such.
        LoginError, BackendError: it refuses the user.
        AlreadyThereError: it has what was to be made.
        ServerFailedError: it cannot be reached, does not answer in time or fails.
    """
    try:
        yield
    except ApiException as error:
        raise _refusal(error, address, namespace, has_credentials) from error
    except HTTPError as error:
        raise _failure(error, address) from error


def is_missing(error: DagnnError) -> bool:
    """Whether an error that `answering` raised means that the server has no such thing."""
    return isinstance(error.__cause__, ApiException) and error.__cause__.status == 404


def _refusal(error: ApiException, address: str, namespace: str, has_credentials: bool) -> DagnnError:
    """What an answer of the server means to the user."""
    words = _words(error.body, plain=error.status != 404)  # as a server of something else has it
    if not error.status:  # the generated client's way to tell of a TLS failure
        return _untrusted(str(error.reason), address)
    if error.status == 401 or 300 <= error.status < 400:
        remedy = "renew them" if has_credentials else "give a token (DAGNN_KFP_TOKEN, --token FILE) or cookies"
        given = "does not take the token or cookies" if has_credentials else "wants a token or cookies"
        return LoginError(f"Kubeflow at {address} {given} ({error.status}{words})", remedy)
    if error.status == 403:
        where = f" in namespace {namespace}" if namespace else ""
        return BackendError(
            f"Kubeflow at {address} does not permit this{where} (403{words})",
            "correct --namespace, or ask for the right to it",
        )
    if error.status >= 500 or error.status == 429:
        return ServerFailedError(f"Kubeflow at {address} answers {error.status}{words}", "try later")
    if error.status == 404 and not words:
        return InputError(
            f"{address} answers 404, expected Kubeflow Pipelines", "correct --host or KF_PIPELINES_ENDPOINT"
        )
    kind, what, remedy = (
        (AlreadyThereError, "has this already", "use what is there, or choose another name")
        if error.status == 409
        else (InputError, "refuses the request", "correct it")
    )
    return kind(f"Kubeflow at {address} {what} ({error.status}{words}); {remedy}")


def _failure(error: HTTPError, address: str) -> DagnnError:
    """What a failure without a whole answer means to the user."""
    reason = getattr(error, "reason", None) or error
    if isinstance(reason, SSLError):
        return _untrusted(str(reason), address)
    what = "broke off" if isinstance(reason, ProtocolError) else "cannot be reached or does not answer in time"
    return ServerFailedError(
        f"Kubeflow at {address} {what} ({_reason(reason)})", "check the network, and --host or KF_PIPELINES_ENDPOINT"
    )


def _untrusted(reason: str, address: str) -> DagnnError:
    return BackendError(
        f"Kubeflow at {address} cannot be trusted ({one_line(reason)})",
        "name a file with its certificate authority in SSL_CERT_FILE",
    )


def _words(body: object, *, plain: bool) -> str:
    """What the server says in an error, to be put behind its number; of a page there, nothing.

    Args:
        body: of the answer.
        plain: whether text that is no JSON counts; Kubeflow's uploads answer so.
    """
    text = body if isinstance(body, str) else ""
    try:
        said = json.loads(text)
        words = said.get("message") or said.get("error_message") or said.get("error") or ""
    except (ValueError, AttributeError):
        words = text if plain and not text.lstrip().startswith("<") else ""
    return f": {_reason(words)}" if words else ""


def _reason(error: object) -> str:
    # urllib3 puts the object before its words
    return one_line(re.sub(r"^<?[\w.]+\([^)]*\)>?: ", "", str(error)))
