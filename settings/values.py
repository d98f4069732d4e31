"""Single settings: parsed, checked and masked."""

import re
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

MASK = "********"
MIN_SECRET = 32  # bytes


class InvalidSettings(Exception):
    """A setting is wrong or missing; the message says which one and how to fix it."""


@dataclass(frozen=True)
class Limits:
    """A check whose `text` states its limits, in the error and in the documentation."""

    text: str
    accepts: Callable[[Any], bool]

    def __call__(self, name: str, value: Any) -> None:
        """Raise InvalidSettings unless the value is within the limits."""
        if not self.accepts(value):
            raise InvalidSettings(f"{name} is {value!r}. Set it to {self.text}.")


COUNT = Limits("a number from 1 to 1000", lambda number: 1 <= number <= 1000)
SECONDS = Limits("seconds from 0.001 to 3600", lambda seconds: 0.001 <= seconds <= 3600)
IDLE = Limits("seconds from 1 to 3600", lambda seconds: 1 <= seconds <= 3600)
PORT = Limits("a port number, at most 65535", lambda number: 0 <= number <= 65535)
RATE = Limits("off or a number up to 1000000", lambda number: 0 <= number <= 1_000_000)
FRAMEWORK = Limits("asgi or flask", ("asgi", "flask").__contains__)
LEVEL = Limits("debug, info, warning or error", ("debug", "info", "warning", "error").__contains__)


def parse(name: str, type_: Any, text: str) -> Any:
    """Return the value of a setting's text. Raises InvalidSettings."""
    if type_ in (int, float):
        try:
            return type_(text)
        except ValueError:
            raise InvalidSettings(f"{name} is {text!r}. Set it to a number.") from None
    if type_ == int | None:
        return 0 if text.lower() == "off" else parse(name, int, text)
    if type_ is Path:
        return Path(text)
    if type_ == tuple[str, ...]:
        return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    return text


def database(name: str, url: str) -> None:
    """Raise InvalidSettings unless libpq can read the URL."""
    with suppress(psycopg.Error):
        if conninfo_to_dict(url):
            return
    raise InvalidSettings(f"{name} is no PostgreSQL URL. Write it like postgresql://user:password@host/name")


def secret(name: str, text: str) -> None:
    """Raise InvalidSettings unless the secret is long enough."""
    if len(text.encode()) < MIN_SECRET:
        raise InvalidSettings(
            f"{name} is shorter than {MIN_SECRET} bytes. Make one with: "
            'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
        )


def origin(name: str, url: str) -> str:
    """Return the origin of a URL as browsers send it (RFC 6454, section 6.2). Raises InvalidSettings."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if "@" in url:  # the value may have a password, so it is not shown
        raise InvalidSettings(f"{name} has a user or a password. Write it like https://app.example.com")
    if parts.scheme not in ("http", "https") or not parts.hostname or "*" in parts.hostname:
        raise InvalidSettings(f"{name} has {url!r}, which is no origin. Write it like https://app.example.com")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = port in (None, {"http": 80, "https": 443}[parts.scheme])
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{port}")


def origins(name: str, urls: tuple[str, ...]) -> None:
    """Raise InvalidSettings unless every URL is an origin and nothing more."""
    for url in urls:
        if origin(name, url) != url:
            raise InvalidSettings(f"{name} has {url!r}. Write origins only, such as https://app.example.com")


def networks(name: str, texts: tuple[str, ...]) -> None:
    """Raise InvalidSettings unless every text is an address, a network or `*`."""
    for text in texts:
        try:
            ip_network("0.0.0.0/0" if text == "*" else text)
        except ValueError:
            raise InvalidSettings(
                f"{name} has {text!r}. Write addresses or networks, such as 10.0.0.0/8, or *."
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


def without_passwords(url: str) -> str:
    """Return a database URL as libpq's parameters, passwords masked."""
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    return make_conninfo("", **parameters | {name: MASK for name in parameters if "password" in name})
