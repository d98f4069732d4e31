"""The configuration: read once from the environment and `.env`, checked, and frozen."""

import os
import re
import secrets
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, fields
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from dotenv import dotenv_values
from psycopg.conninfo import conninfo_to_dict, make_conninfo

MASK = "********"
MIN_SECRET = 32  # bytes
DEFAULT_RATE_LIMIT = 600  # requests a minute
LOCAL_FRONTENDS = ("http://localhost:3000", "http://localhost:3001")


class InvalidSettings(Exception):
    """A setting is wrong or missing; the message says which and how to mend it."""


def _setting(name: str, default: Any, *, secret: bool = False) -> Any:
    return field(default=default, repr=not secret, metadata={"name": name, "secret": secret})


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting. The name of its environment variable stands beside it, its meaning in `.env.example`."""

    database_url: str | None = _setting("DATABASE_URL", None, secret=True)
    neon_db_url: str | None = _setting("NEON_DB_URL", None, secret=True)
    database_pool_size: int = _setting("DATABASE_POOL_SIZE", 10)
    statement_timeout: float = _setting("STATEMENT_TIMEOUT", 5.0)
    lock_timeout: float = _setting("LOCK_TIMEOUT", 2.0)
    data_dir: Path = _setting("DATA_DIR", Path(".data"))
    better_auth_secret: str | None = _setting("BETTER_AUTH_SECRET", None, secret=True)
    better_auth_url: str | None = _setting("BETTER_AUTH_URL", None)
    jwks_url: str | None = _setting("JWKS_URL", None)
    jwt_issuer: str | None = _setting("JWT_ISSUER", None)
    jwt_audience: str | None = _setting("JWT_AUDIENCE", None)
    cors_origins: tuple[str, ...] = _setting("CORS_ORIGINS", ())
    server_framework: str = _setting("SERVER_FRAMEWORK", "asgi")
    host: str = _setting("HOST", "127.0.0.1")
    port: int = _setting("PORT", 8000)
    web_concurrency: int = _setting("WEB_CONCURRENCY", 1)
    forwarded_allow_ips: tuple[str, ...] = _setting("FORWARDED_ALLOW_IPS", ("127.0.0.1",))
    rate_limit: int | None = _setting("RATE_LIMIT", None)
    rate_limit_storage: str = _setting("RATE_LIMIT_STORAGE", "memory://")
    log_level: str = _setting("LOG_LEVEL", "info")

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> "Settings":
        """Read the settings; `overrides` that are not None win over the environment, which wins over `.env`.

        Raises InvalidSettings.
        """
        if environment is None:
            environment = _dotenv() | dict(os.environ)
        values = {
            one.name: _parse(one.metadata["name"], one.type, environment[one.metadata["name"]].strip())
            for one in fields(cls)
            if environment.get(one.metadata["name"], "").strip()
        }
        settings = cls(**values | {name: value for name, value in overrides.items() if value is not None})
        settings._check()
        return settings

    @property
    def is_development(self) -> bool:
        """Tell whether tokens are signed with a secret of this machine's own, for want of a configured one."""
        return not self.better_auth_secret and not self.key_set_url

    @property
    def external_database_url(self) -> str | None:
        """The configured database; None for the embedded one."""
        return self.database_url or self.neon_db_url

    @property
    def key_set_url(self) -> str | None:
        """Where the issuer's public keys are; None where tokens are signed with the secret only."""
        if self.jwks_url or not self.better_auth_url:
            return self.jwks_url
        return self.better_auth_url.rstrip("/") + "/api/auth/jwks"

    @property
    def requests_per_minute(self) -> int:
        """How many requests a user may send in a minute; 0 for any number."""
        if self.rate_limit is None:
            return 0 if _is_loopback(self.host) else DEFAULT_RATE_LIMIT
        return self.rate_limit

    @property
    def origin(self) -> str | None:
        """The origin of the issuer, which Better Auth puts into `iss` and `aud`."""
        return _origin("BETTER_AUTH_URL", self.better_auth_url) if self.better_auth_url else None

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins of the frontends that browsers may call from."""
        if self.cors_origins:
            return self.cors_origins
        return (self.origin,) if self.origin else LOCAL_FRONTENDS

    def masked(self) -> Iterator[tuple[str, str]]:
        """Yield the name and the value of every setting, fit to be shown: without secrets and passwords."""
        for one in fields(self):
            value = getattr(self, one.name)
            if value in (None, ()):
                shown = "(not set)"
            elif one.name.endswith("_url") and one.metadata["secret"]:
                shown = _without_passwords(value)
            elif one.metadata["secret"]:
                shown = MASK
            elif one.type == tuple[str, ...]:
                shown = ", ".join(value)
            else:
                shown = re.sub(r"//[^/]*@", f"//{MASK}@", str(value))
            yield one.metadata["name"], shown

    def secret(self) -> str | None:
        """Return the secret that tokens are signed with, None where only the issuer's keys count.

        In development it is a random one, kept in `data_dir`, readable by its owner.
        """
        if self.better_auth_secret or self.key_set_url:
            return self.better_auth_secret
        path = self.data_dir / "development-secret"
        self.data_dir.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            descriptor, draft = tempfile.mkstemp(dir=self.data_dir)  # with mode 0600
            with open(descriptor, "w") as file:
                file.write(secrets.token_urlsafe(32))
            with suppress(FileExistsError):  # another process was quicker; its secret counts for both
                os.link(draft, path)
            os.unlink(draft)
        secret = path.read_text().strip()
        if len(secret.encode()) < MIN_SECRET:
            raise InvalidSettings(f"{path} has less than {MIN_SECRET} bytes. Delete it, and a new one is made.")
        return secret

    def cursor_secret(self) -> str:
        """Return what seals cursors: a secret that all processes of a deployment have."""
        return self.secret() or self.external_database_url or str(self.data_dir)

    def _check(self) -> None:
        for name, url in (("DATABASE_URL", self.database_url), ("NEON_DB_URL", self.neon_db_url)):
            if url and not _is_conninfo(url):
                raise InvalidSettings(
                    f"{name} is no PostgreSQL URL. Write it like postgresql://user:password@host/name"
                )
        if self.better_auth_secret and len(self.better_auth_secret.encode()) < MIN_SECRET:
            raise InvalidSettings(
                f"BETTER_AUTH_SECRET is shorter than {MIN_SECRET} bytes. Make one with: "
                'python3 -c "import secrets; print(secrets.token_urlsafe(32))"'
            )
        if self.jwks_url and not (self.better_auth_url or (self.jwt_issuer and self.jwt_audience)):
            raise InvalidSettings(
                "JWKS_URL is set without the issuer that tokens must name. "
                "Set BETTER_AUTH_URL, or JWT_ISSUER and JWT_AUDIENCE."
            )
        for name, url in (("JWKS_URL", self.jwks_url), ("BETTER_AUTH_URL", self.better_auth_url)):
            if url:
                _origin(name, url)
        if self.is_development and not _is_loopback(self.host):
            raise InvalidSettings(
                f"HOST is {self.host}, which others can reach, and neither BETTER_AUTH_SECRET nor BETTER_AUTH_URL is "
                "set. Set one, or bind to 127.0.0.1."
            )
        if self.server_framework not in ("asgi", "flask"):
            raise InvalidSettings(f"SERVER_FRAMEWORK is {self.server_framework!r}. Set it to asgi or flask.")
        if self.log_level not in ("debug", "info", "warning", "error"):
            raise InvalidSettings(f"LOG_LEVEL is {self.log_level!r}. Set it to debug, info, warning or error.")
        for name, number in (
            ("DATABASE_POOL_SIZE", self.database_pool_size),
            ("WEB_CONCURRENCY", self.web_concurrency),
        ):
            if not 1 <= number <= 1000:
                raise InvalidSettings(f"{name} is {number}. Set it to a number from 1 to 1000.")
        for name, seconds in (("STATEMENT_TIMEOUT", self.statement_timeout), ("LOCK_TIMEOUT", self.lock_timeout)):
            if not 0.001 <= seconds <= 3600:
                raise InvalidSettings(f"{name} is {seconds}. Set it to seconds from 0.001 to 3600.")
        if not 0 <= self.requests_per_minute <= 1_000_000:
            raise InvalidSettings(f"RATE_LIMIT is {self.rate_limit}. Set it to off or a number up to 1000000.")
        if self.rate_limit_storage != "memory://" and not _is_redis(self.rate_limit_storage):
            raise InvalidSettings(  # without the value, which may have a password
                "RATE_LIMIT_STORAGE is neither memory:// nor a URL like redis://host:6379/0. Set it to one of them."
            )
        for address in self.forwarded_allow_ips:
            if address != "*" and not _is_network(address):
                raise InvalidSettings(
                    f"FORWARDED_ALLOW_IPS has {address!r}. Write addresses or networks, such as 10.0.0.0/8, or *."
                )
        if not 0 <= self.port <= 65535:
            raise InvalidSettings(f"PORT is {self.port}. Set it to a port number, at most 65535.")
        for origin in self.origins:
            if _origin("CORS_ORIGINS", origin) != origin:
                raise InvalidSettings(
                    f"CORS_ORIGINS has {origin!r}. Write origins only, such as https://app.example.com"
                )


def _dotenv() -> dict[str, str]:
    try:
        return {name: value for name, value in dotenv_values(".env").items() if value}
    except UnicodeDecodeError:
        raise InvalidSettings("The file .env is not UTF-8. Save it in that encoding.") from None


def _parse(name: str, type_: Any, text: str) -> Any:
    if type_ in (int, float):
        try:
            return type_(text)
        except ValueError:
            raise InvalidSettings(f"{name} is {text!r}. Set it to a number.") from None
    if type_ == int | None:
        return 0 if text.lower() == "off" else _parse(name, int, text)
    if type_ is Path:
        return Path(text)
    if type_ == tuple[str, ...]:
        return tuple(part.strip().rstrip("/") for part in text.split(",") if part.strip())
    return text


def _is_conninfo(url: str) -> bool:
    try:
        return bool(conninfo_to_dict(url))
    except psycopg.Error:
        return False


def _without_passwords(url: str) -> str:
    parameters = {name: str(value) for name, value in conninfo_to_dict(url).items()}
    return make_conninfo("", **parameters | {name: MASK for name in parameters if "password" in name})


def _origin(name: str, url: str) -> str:
    """Return the origin of a URL as browsers send it (RFC 6454, section 6.2)."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if "@" in url:  # without the value, which may have a password
        raise InvalidSettings(f"{name} has a user or a password. Write it like https://app.example.com")
    if parts.scheme not in ("http", "https") or not parts.hostname or "*" in parts.hostname:
        raise InvalidSettings(f"{name} has {url!r}, which is no origin. Write it like https://app.example.com")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    is_default = port in (None, {"http": 80, "https": 443}[parts.scheme])
    return f"{parts.scheme}://{host}" + ("" if is_default else f":{port}")


def _is_redis(url: str) -> bool:
    try:
        parts = urlsplit(url)
        has_port = parts.port != 0
    except ValueError:
        return False
    return (
        parts.scheme in ("redis", "rediss")
        and bool(parts.hostname)
        and has_port
        and re.fullmatch(r"/?[0-9]*", parts.path) is not None
        and not parts.query
        and not parts.fragment
    )


def _is_network(text: str) -> bool:
    try:
        return bool(ip_network(text))
    except ValueError:
        return False


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
