"""Which failures of an MLflow server pass by themselves.

MLflow's client repeats a request itself, without a word and for about a minute, and wraps what it gets in errors of its
own, some of which hold the cause as text alone.
"""

import re
from functools import cache
from typing import Any

from components.services.storage.patience import passing_failure, passing_status

# "... failed with error code 502 != 200", "too many 503 error responses", "500 Server Error: ..."
_STATUS = re.compile(r"\berror code (\d{3})\b|\btoo many (\d{3}) error|\b(\d{3}) (?:Client|Server) Error")
_CONNECTION = re.compile(
    r"Connection refused|Connection reset|Connection aborted|Connection broken|Remote end closed|timed? ?out|"
    r"Failed to resolve|Network is unreachable|No route to host",
    re.IGNORECASE,
)
_DOWNLOADS = "The following failures occurred while downloading"  # begins MLflow's list of them

_TRANSFERS = "/mlflow-artifacts/artifacts/"  # in the path of every request for a file


@cache
def end_silent_transfers() -> None:
    """Let MLflow's client in this process give up a transfer of files as soon as it was silent for its time limit.

    MLflow repeats it as any other request, so that a minute becomes seven, and has no setting for this alone.
    """
    from mlflow.utils import request_utils
    from urllib3 import Retry

    class RetryUnlessSilent(Retry):
        def increment(self, method: str | None = None, url: str | None = None, **found: Any) -> Retry:  # type: ignore[override]
            error = found.get("error")
            if error is not None and _is_silence(error) and _TRANSFERS in (url or ""):
                raise error
            return super().increment(method, url, **found)

    request_utils.Retry = RetryUnlessSilent  # type: ignore[attr-defined]  # of which it makes its sessions


def _is_silence(error: BaseException) -> bool:
    from urllib3.exceptions import ProtocolError, ReadTimeoutError

    is_unsent = isinstance(error, ProtocolError) and isinstance(error.args[-1], TimeoutError)
    return is_unsent or isinstance(error, ReadTimeoutError)


def passing_failure_of_mlflow(error: BaseException) -> str | None:
    """Say in a few words what has failed, where that may pass; None: another attempt would fail as well."""
    from mlflow.exceptions import MlflowException, RestException

    if isinstance(error, RestException):
        return passing_status(error.get_http_status_code())  # type: ignore[no-untyped-call]
    if isinstance(error, MlflowException):
        text = str(error)
        if status := _STATUS.search(text):
            return passing_status(int(next(filter(None, status.groups()))))
        if text.startswith(_DOWNLOADS):
            words = _CONNECTION.search(text)
            return words[0] if words else None
    return passing_failure(error)
