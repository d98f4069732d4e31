"""Single settings: parsed, checked and masked."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

from settings.hosts import browser_host

MASK = "********"
MIN_SECRET = 32  # bytes
LITERAL = "BETTER_AUTH_SECRET"  # blanks around it count, as they do for the frontend


class InvalidSettings(Exception):
    """A setting is wrong or missing; the message says which one and how to fix it."""


def sentence(error: OSError) -> str:
    """Return what to say of a file or a folder that cannot be used."""
    return f"{error.strerror}: {error.filename}" if error.filename else str(error)


@dataclass(frozen=True)
class Limits:
    """A check whose `text` states its limits, in the error and in the documentation."""

    text: str
    accepts: Callable[[Any], bool]

    def __call__(self, name: str, value: Any) -> None:
        """Raise InvalidSettings unless the value is within the limits."""
        if not self.accepts(value):
            raise InvalidSettings(f"{name} is {quoted(value)}. Set it to {self.text}.")


COUNT = Limits("a number from 1 to 1000", lambda number: 1 <= number <= 1000)
SECONDS = Limits("seconds from 0.001 to 3600", lambda seconds: 0.001 <= seconds <= 3600)
IDLE = Limits("seconds from 1 to 3600", lambda seconds: 1 <= seconds <= 3600)
PORT = Limits("a port number, at most 65535", lambda number: 0 <= number <= 65535)
RATE = Limits("off or a number up to 1000000", lambda number: 0 <= number <= 1_000_000)
QUOTA = Limits("off or a number up to 1000000000", lambda number: 0 <= number <= 1_000_000_000)
FRAMEWORK = Limits("asgi or flask", ("asgi", "flask").__contains__)
LEVEL = Limits("debug, info, warning or error", ("debug", "info", "warning", "error").__contains__)


def parse(name: str, type_: Any, text: str) -> Any:
    """Return the value of a setting's text. Raises InvalidSettings."""
    try:
        text.encode()
    except UnicodeEncodeError:  # bytes that are no UTF-8 are lone surrogates in Python (PEP 383)
        raise InvalidSettings(f"{name} is not UTF-8. Set it in that encoding.") from None
    if name == LITERAL:
        return text
    text = text.strip()
    if type_ in (int, float):
        try:
            return type_(text)
        except ValueError:
            raise InvalidSettings(f"{name} is {quoted(text)}. Set it to a number.") from None
    if type_ == int | None:
        return 0 if text.lower() == "off" else parse(name, int, text)
    if type_ is Path:
        return Path(text)
    if type_ == tuple[str, ...]:
        return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    return text


def secret(name: str, text: str) -> None:
    """Raise InvalidSettings unless the secret is long enough."""
    if len(text.encode()) < MIN_SECRET:
        raise InvalidSettings(
            f"{name} is shorter than {MIN_SECRET} bytes. Make one with: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


def origin(name: str, url: str) -> str:
    """Return the origin of a URL as browsers send it (RFC 6454, section 6.2). Raises InvalidSettings."""
    if "@" in url:  # the value may have a password, so it is not shown
        raise InvalidSettings(f"{name} has a user or a password. Write it like https://app.example.com")
    try:
        parts = urlsplit(url)
        scheme, host, port = parts.scheme, browser_host(parts.hostname or ""), parts.port
        if ("[" in parts.netloc) != ("[" in host):
            raise ValueError("brackets without an IPv6 address")
    except ValueError:
        scheme, host, port = "", "", None
    if scheme not in ("http", "https"):
        # What follows a colon, a question mark or a hash may be a secret.
        shown = "a value" if re.search(r"[?#]|:(?!//|[0-9:\[])", url) else repr(url)
        raise InvalidSettings(f"{name} has {shown}, which is no origin. Write it like https://app.example.com")
    is_default = port in (None, {"http": 80, "https": 443}[scheme])
    return f"{scheme}://{host}" + ("" if is_default else f":{port}")


def origins(name: str, urls: tuple[str, ...]) -> None:
    """Raise InvalidSettings unless every URL is an origin as browsers send it, and nothing more."""
    for url in urls:
        sent = origin(name, url)
        if any(urlsplit(url)[2:]):
            raise InvalidSettings(f"{name} has {url!r}. Write origins only, such as https://app.example.com")
        if sent != url:
            raise InvalidSettings(f"{name} has {url!r}, which browsers send as {sent!r}. Write it like that.")


def base(name: str, url: str) -> str:
    """Return the origin of a URL that paths are appended to. Raises InvalidSettings."""
    if "?" in url or "#" in url:
        raise InvalidSettings(f"{name} has a query or a fragment. Write it like https://app.example.com")
    return origin(name, url)


def in_ascii(name: str, url: str) -> str:
    """Return a URL with its scheme, host and port as browsers write them. Raises InvalidSettings."""
    host = urlsplit(origin(name, url)).netloc
    return urlunsplit(urlsplit(url)._replace(netloc=host))


def networks(name: str, texts: tuple[str, ...]) -> None:
    """Raise InvalidSettings unless every text is an address, a network or `*`."""
    for text in texts:
        try:
            ip_network("0.0.0.0/0" if text == "*" else text)
        except ValueError:
            raise InvalidSettings(
                f"{name} has {quoted(text)}. Write addresses or networks, such as 10.0.0.0/8, or *."
            ) from None


def storage(name: str, url: str) -> None:
    """Raise InvalidSettings unless the URL is `memory://` or a Redis."""
    with suppress(ValueError):
        scheme, _, *rest = parts = urlsplit(url)
        is_redis = scheme in ("redis", "rediss") and parts.hostname and parts.port != 0
        if url == "memory://" or (is_redis and re.fullmatch(r"/?[0-9]*", urlunsplit(("", "", *rest)))):
            return
    # The value may have a password, so it is not shown.
    raise InvalidSettings(f"{name} is neither memory:// nor a URL like redis://host:6379/0. Set it to one of them.")


def is_loopback(host: str) -> bool:
    """Tell whether only this machine can reach the host."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def quoted(value: object) -> str:
    """Return a value for a sentence, without what may be a user and a password."""
    return repr(re.sub(".*@", f"{MASK}@", value, flags=re.DOTALL) if isinstance(value, str) else value)


def hidden(_secret: str) -> str:
    """Return what is shown instead of a secret."""
    return MASK


def without_userinfo(value: object) -> str:
    """Return a value without what may be secret in a URL.

    That is the query, and the user and the password: all up to the last `@`, as one may be unencoded.
    """
    shown = re.sub("://.*@", f"://{MASK}@", str(value), flags=re.DOTALL)
    return re.sub(r"(://[^?]*)\?.*", rf"\1?{MASK}", shown, flags=re.DOTALL)
