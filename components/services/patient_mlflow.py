"""Which failures of an MLflow server pass by themselves.

MLflow's client repeats a request itself, without a word and for about a minute, and wraps what it gets in errors of its
own, some of which hold the cause as text alone.
"""

import re

from components.services.patience import passing_failure, passing_status

# "... failed with error code 502 != 200", "too many 503 error responses", "500 Server Error: ..."
_STATUS = re.compile(r"\berror code (\d{3})\b|\btoo many (\d{3}) error|\b(\d{3}) (?:Client|Server) Error")
_CONNECTION = re.compile(
    r"Connection refused|Connection reset|Connection aborted|Connection broken|Remote end closed|timed? ?out|"
    r"Failed to resolve|Network is unreachable|No route to host",
    re.IGNORECASE,
)
_DOWNLOADS = "The following failures occurred while downloading"  # begins MLflow's list of them


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
