"""Secrets out of text: credentials in addresses, settings that are secrets by their names, and values that are known.

What is shown or stored goes through `redact`; a connection gets the address as it is. What a task still has to use, as
the parameters of a pipeline, goes through `without_credentials`, which knows no values, so no path or name changes.
The library reads no environment: a command tells it with `hide` which values are secret.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote, quote_plus, unquote

HIDDEN = "***"
MIN_LENGTH = 6
"""Characters of a value that is hidden wherever it stands; shorter ones are parts of ordinary words."""
# values that secrets have in examples and tests: hidden everywhere, they would garble what is said about the program
_TRIVIAL = {"access", "admin", "changeme", "default", "disabled", "enabled", "example", "minioadmin", "mlflow"} | {
    *("mysecret", "nothing", "passwd", "password", "postgres", "secret", "testing", "username")
}
_NAME = (
    r"[\w.%-]{0,40}(?:pass(?:word|wd|phrase)|secret|token|signature|credential"
    r"|(?:api|access|account|private|secret|sas)[_-]?key)"
)
_CHARACTER = r"""(?:[^\s"'<>`\\]|\\(?!["']))"""  # of an address; the quotes around one may be quoted themselves

_SECRET_NAME = re.compile(
    r"(?:PASSWORD|PASSWD|PASSPHRASE|TOKEN|SECRET|COOKIES?|APIKEY|CONNECTION_STRING|WEBHOOK_URL|_PASS|_PWD|_PAT"
    r"|(?:SECRET|ACCESS|API|PRIVATE|ACCOUNT|SIGNING|ENCRYPTION)_KEY)$",
    re.IGNORECASE,
)
# an address ends where the next one begins; the look-ahead is short, so that the time stays linear
_ADDRESS = re.compile(rf"://(?P<rest>(?:(?![A-Za-z][\w+.-]{{1,15}}://){_CHARACTER})+)")
_PORT = re.compile(r"(?P<number>\d+)(?:[^\w@]|$)|\W*$")  # words may follow
_QUERY = re.compile(rf"(?P<name>[?&;#](?:{_NAME}|auth|key|pass|pwd|pw|sig)=)(?:(?![&#]){_CHARACTER})+", re.IGNORECASE)
_SETTING = re.compile(
    rf"""(?P<name>(?<![\w.%?&;#-]){_NAME}\\{{0,7}}(?:["']\s{{0,3}}:|["']?\s{{0,3}}=)\s{{0,3}})"""
    r"""(?:(?P<quote>["'])(?:\\.|(?!(?P=quote))[^\\\n])+"""  # quotes stay, so that JSON stays JSON
    r"""|(?P<quoted>\\{1,7}["'])(?:(?!\\{1,7}["'])[^\n])+"""
    r"""|[^\s"',;&<>(){}\[\]`\\]+)""",
    re.IGNORECASE,
)
_HEADER = re.compile(
    r"""(?P<name>authorization\\{0,7}["']?\s{0,3}[:=]\s{0,3}\\{0,7}["']?(?:(?:basic|bearer|token)\s+)?)[^\s"',\\]+""",
    re.IGNORECASE,
)
# user:password@host:path, as of git over ssh, and what a path makes of an address; NAME:TAG@sha256:... is an image
_ACCOUNT = re.compile(
    r"""(?<![\w/:.@-])[\w.+-]{1,64}:[^\s/@"'<>`]{1,200}@(?!sha\d+:)(?=[\w.-]{1,255}[:/])"""
    r"""|(?<=\w:/)[\w.+-]{1,64}:[^\s"'<>`]{1,200}@"""
)

_known: set[str] = set()
_KNOWN_OF_NOTHING = re.compile(r"(?!)")
_known_pattern = _KNOWN_OF_NOTHING


def redact(text: str) -> str:
    """A text fit to be shown and stored: its addresses have no credentials, and secrets are `***`."""
    return without_credentials(_known_pattern.sub(HIDDEN, text))


def without_credentials(text: str) -> str:
    """A text whose addresses, settings and headers have no credentials; values that were told to `hide` stay."""
    if "://" in text:
        text = _ADDRESS.sub(_without_user, text)
    if "=" in text or ":" in text:
        text = _QUERY.sub(rf"\g<name>{HIDDEN}", text)
        text = _SETTING.sub(rf"\g<name>\g<quote>\g<quoted>{HIDDEN}", text)
        text = _HEADER.sub(rf"\g<name>{HIDDEN}", text)
    return _ACCOUNT.sub("", text) if "@" in text else text


def redact_all(value: Any) -> Any:
    """A JSON value with all its texts redacted; keys stay."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, Mapping):
        return {key: redact_all(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [redact_all(entry) for entry in value]
    return value


def hide(values: Iterable[str]) -> None:
    """Have `redact` hide these values wherever they stand, as they are, quoted for an address, and in JSON.

    Short and trivial ones stay: they would garble what has nothing to do with them.
    """
    global _known_pattern  # noqa: PLW0603  # as a set-up of logging: what is secret is so for the whole process
    for value in values:
        for line in value.splitlines():
            if is_telling(line.strip()):
                _known.update(_forms(line.strip()))
    longest_first = sorted(_known, key=lambda form: (-len(form), form))
    if longest_first:
        _known_pattern = re.compile("|".join(map(_whole, longest_first)))


def forget() -> None:
    """Hide no values any more."""
    global _known_pattern  # noqa: PLW0603
    _known.clear()
    _known_pattern = _KNOWN_OF_NOTHING


def is_telling(value: str) -> bool:
    """Whether a value of a secret says so much that it is hidden wherever it stands."""
    if len(value) < MIN_LENGTH or value.casefold() in _TRIVIAL:
        return False
    return not value.isdigit() or len(value) >= MIN_LENGTH + 2  # counts and years are short numbers


def is_secret_name(name: str) -> bool:
    """Whether a setting of this name is a secret: AWS_SECRET_ACCESS_KEY, HF_TOKEN, PGPASSWORD."""
    return _SECRET_NAME.search(name) is not None


def secrets_of_settings(settings: Mapping[str, object]) -> Iterator[str]:
    """The secrets among settings, as of an environment: by their names, and in addresses that are values."""
    for name, value in settings.items():
        if isinstance(value, str):
            if is_secret_name(name):
                yield value
            yield from secrets_of_address(value)


def secrets_of_address(text: str) -> Iterator[str]:
    """The secrets of an address: password, or a token in place of the user, and those of its query.

    Of a password with `@`, `/`, `?` or `#` the parts come too: a library that reads the address in its own way may
    show one as host or port.
    """
    for match in _ADDRESS.finditer(text):
        user_info, rest = _split(_scheme(match), match["rest"])
        user, _, password = user_info.partition(":")
        for secret in (password,) if password else (user,) if len(user) >= 2 * MIN_LENGTH else ():
            yield from {secret, unquote(secret), *re.split(r"[@/?#:]", secret)} - {""}
        for found in _QUERY.finditer(rest):
            secret = found[0].removeprefix(found["name"])
            yield from {secret, unquote(secret)}
    if _ACCOUNT.match(text):
        yield text.partition(":")[2].partition("@")[0]


def _without_user(match: re.Match[str]) -> str:
    user_info, rest = _split(_scheme(match), match["rest"])
    if not user_info or rest.startswith("@"):
        return "://" + rest.removeprefix("@")
    return f"://{user_info.partition(':')[0]}:{HIDDEN}{rest}"  # no @: the user, or the host of a wrong port


def _scheme(match: re.Match[str]) -> str:
    before = re.search(r"[\w+.-]*$", match.string[max(0, match.start() - 20) : match.start()])
    return before[0].lower() if before else ""


def _split(scheme: str, address: str) -> tuple[str, str]:
    """User and password of what stands behind `://`, and the rest, which begins with `@` where there is a host.

    A password may have any of `@/?#` unquoted, so that what looks like a password reaches to the last `@`.
    """
    if scheme == "databricks":  # profile:prefix, or what was meant as user and password: no host
        user, colon, _ = address.partition(":")
        return (address, "") if colon else ("", address)
    authority = re.split(r"[/?#]", address, maxsplit=1)[0]
    last = address.rfind("@")
    user, colon, password = authority.partition(":")
    port = _PORT.match(password)
    is_port = not colon or (port is not None and int((port["number"] or "0")[:6]) < 1 << 16) or user.startswith("[")
    if "@" in authority or (last > 0 and colon and not (is_port and scheme.startswith(("http", "ws")))):
        return address[:last], address[last:]
    if is_port or not user:
        return "", address
    return authority, address[len(authority) :]


def _forms(value: str) -> set[str]:
    in_python = repr(value)[1:-1]
    return {value, quote(value, safe=""), quote(value), quote_plus(value), json.dumps(value)[1:-1], in_python}


def _whole(form: str) -> str:
    """The pattern of a value as a whole word; a long one is found within a word, too."""
    pattern = re.escape(form)
    return pattern if len(form) > 2 * MIN_LENGTH else rf"(?<![A-Za-z0-9]){pattern}(?![A-Za-z0-9])"
