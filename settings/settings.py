"""The settings: read once from the environment and `.env`, checked and frozen."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from settings import env_file, values
from settings.database_url import database, without_passwords
from settings.proxy import check_certificates, proxy_for
from settings.values import InvalidSettings

DEFAULT_RATE_LIMIT = 600  # requests a minute
ENV_FILE = Path(".env")
LOCAL_FRONTENDS = ("http://localhost:3000", "http://localhost:3001")


def _setting(name: str, default: Any, check: Any = None, *, example: str = "", mask: Any = None) -> Any:
    """Declare a setting; `check` takes its name and value, `example` goes into `.env.example`.

    `mask` returns what is shown of a value that is a secret or has one in it.
    """
    metadata = {"name": name, "check": check, "example": example, "mask": mask}
    return field(default=default, repr=not mask, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Every setting with its description, from which `make settings` writes docs/settings.md and .env.example."""

    database_url: str | None = _setting(
        "DATABASE_URL",
        None,
        database,
        example="postgresql://tasks_api:password@host/tasks_api",
        mask=without_passwords,
    )
    """URL of PostgreSQL 15 or later, in any form that libpq reads. The role must not be superuser or have `BYPASSRLS`.
    Default: an embedded PostgreSQL 18 with its data in `DATA_DIR`, on Linux and macOS; none on Windows."""
    neon_db_url: str | None = _setting(
        "NEON_DB_URL",
        None,
        database,
        example="postgresql://tasks_api:password@host/neondb",
        mask=without_passwords,
    )
    """The same under Neon's name; `DATABASE_URL` takes precedence. Default: none."""
    database_pool_size: int = _setting("DATABASE_POOL_SIZE", 10, values.COUNT)
    """Largest number of database connections per process."""
    statement_timeout: float = _setting("STATEMENT_TIMEOUT", 5.0, values.SECONDS)
    """How long a statement may run before the request fails with 503."""
    lock_timeout: float = _setting("LOCK_TIMEOUT", 2.0, values.SECONDS)
    """How long a statement may wait for a lock before the request fails with 503."""
    data_dir: Path = _setting("DATA_DIR", Path(".data"))
    """Folder of the embedded database and the development secret. A relative path starts at the current directory."""
    better_auth_secret: str | None = _setting("BETTER_AUTH_SECRET", None, values.secret, mask=values.hidden)
    """Secret that signs tokens (HS256), at least 32 bytes, the same as the frontend's. Make one with
    `python3 -c "import secrets; print(secrets.token_urlsafe(32))"`. Default: none; without `BETTER_AUTH_URL` too, the
    service makes one, keeps it in `DATA_DIR`, and starts on a loopback address only."""
    better_auth_url: str | None = _setting("BETTER_AUTH_URL", None, values.base, example="http://localhost:3000")
    """URL of the frontend that runs Better Auth, whose public keys verify tokens.
    Default: none; only tokens signed with the secret are accepted."""
    jwks_url: str | None = _setting("JWKS_URL", None, values.origin, example="http://localhost:3000/api/auth/jwks")
    """URL of the issuer's public keys (JWKS). Needs `BETTER_AUTH_URL`, or `JWT_ISSUER` and `JWT_AUDIENCE`.
    Default: `/api/auth/jwks` at `BETTER_AUTH_URL`."""
    jwt_issuer: str | None = _setting("JWT_ISSUER", None, example="http://localhost:3000")
    """The `iss` that every token must have. Default: the origin of `BETTER_AUTH_URL` for tokens signed with its keys;
    not checked in tokens signed with the secret."""
    jwt_audience: str | None = _setting("JWT_AUDIENCE", None, example="http://localhost:3000")
    """The `aud` that every token must have, alone or in a list. Default: the origin of `BETTER_AUTH_URL` for tokens
    signed with its keys; tokens signed with the secret must have none."""
    cors_origins: tuple[str, ...] = _setting("CORS_ORIGINS", (), values.origins, example=",".join(LOCAL_FRONTENDS))
    """Origins that browsers may call from, separated by commas; `*` is refused.
    Default: the origin of `BETTER_AUTH_URL`, else `http://localhost:3000` and `http://localhost:3001`."""
    server_framework: str = _setting("SERVER_FRAMEWORK", "asgi", values.FRAMEWORK)
    """Framework that hosts the handlers."""
    host: str = _setting("HOST", "127.0.0.1")
    """Address to listen on. All except loopback addresses need `BETTER_AUTH_SECRET` or `BETTER_AUTH_URL`."""
    port: int = _setting("PORT", 8000, values.PORT)
    """Port to listen on. `0` picks a free one."""
    web_concurrency: int = _setting("WEB_CONCURRENCY", 1, values.COUNT)
    """Number of worker processes. Each has its own `DATABASE_POOL_SIZE` connections."""
    keep_alive_timeout: int = _setting("KEEP_ALIVE_TIMEOUT", 75, values.IDLE)
    """How long an idle connection stays open, which responses tell in `Keep-Alive`. Set it higher than the idle timeout
    of a load balancer or proxy in front."""
    forwarded_allow_ips: tuple[str, ...] = _setting("FORWARDED_ALLOW_IPS", ("127.0.0.1",), values.networks)
    """Proxies whose `X-Forwarded-*` headers are trusted: addresses or networks, separated by commas, or `*` for any."""
    rate_limit: int | None = _setting("RATE_LIMIT", None, values.RATE, example=str(DEFAULT_RATE_LIMIT))
    """Requests a minute that each user may send. `off` and `0` allow any number.
    Default: `off` where `HOST` is a loopback address, else `600`."""
    rate_limit_storage: str = _setting("RATE_LIMIT_STORAGE", "memory://", values.storage, mask=values.without_userinfo)
    """Where requests are counted: `memory://` (per process) or `redis://:password@host:6379/0` (for all processes)."""
    max_tasks_per_user: int | None = _setting("MAX_TASKS_PER_USER", 10_000, values.QUOTA)
    """How many tasks a user may have; creating one more is refused with 403. `off` and `0` allow any number."""
    max_keys_per_user: int | None = _setting("MAX_IDEMPOTENCY_KEYS_PER_USER", 10_000, values.QUOTA)
    """How many idempotency keys of the last 24 hours a user may have. `off` and `0` allow any number."""
    log_level: str = _setting("LOG_LEVEL", "info", values.LEVEL)
    """Lowest severity that is logged."""

    @classmethod
    def load(cls, environment: Mapping[str, str] | None = None, **overrides: Any) -> "Settings":
        """Read the settings: `overrides` unless None, else the environment, else `.env`. Raises InvalidSettings."""
        if environment is None:
            environment = env_file.read(ENV_FILE) | dict(os.environ)
        given = {
            one.name: values.parse(one.metadata["name"], one.type, environment[one.metadata["name"]])
            for one in fields(cls)
            if environment.get(one.metadata["name"], "").strip()
        }
        settings = cls(**given | {name: value for name, value in overrides.items() if value is not None})
        settings._check()
        return settings

    @property
    def is_development(self) -> bool:
        """Tell whether this machine makes its own secret, for lack of a configured one."""
        return not self.better_auth_secret and not self.key_set_url

    @property
    def external_database_url(self) -> str | None:
        """The configured database; None for the embedded one."""
        return self.database_url or self.neon_db_url

    @property
    def key_set_url(self) -> str | None:
        """The URL of the issuer's public keys; None if only the secret signs tokens."""
        if self.jwks_url:
            return values.in_ascii("JWKS_URL", self.jwks_url)
        if self.better_auth_url:
            return values.in_ascii("BETTER_AUTH_URL", self.better_auth_url.rstrip("/") + "/api/auth/jwks")
        return None

    @property
    def requests_per_minute(self) -> int:
        """The rate limit of each user; 0 for none."""
        default = 0 if values.is_loopback(self.host) else DEFAULT_RATE_LIMIT
        return default if self.rate_limit is None else self.rate_limit

    @property
    def origin(self) -> str | None:
        """The origin of the issuer, which Better Auth puts into `iss` and `aud`."""
        return values.origin("BETTER_AUTH_URL", self.better_auth_url) if self.better_auth_url else None

    @property
    def origins(self) -> tuple[str, ...]:
        """The origins that browsers may call from."""
        return self.cors_origins or ((self.origin,) if self.origin else LOCAL_FRONTENDS)

    def masked(self) -> Iterator[tuple[str, str]]:
        """Yield the name and value of every setting, without secrets and passwords."""
        for one in fields(self):
            value = getattr(self, one.name)
            if value in (None, ()):
                shown = "(not set)"
            elif one.type == int | None and value == 0:
                shown = "off"
            elif one.metadata["mask"]:
                shown = one.metadata["mask"](value)
            else:
                shown = values.without_userinfo(", ".join(value) if isinstance(value, tuple) else value)
            yield one.metadata["name"], shown

    def _check(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            if one.metadata["check"] and value not in (None, ""):
                one.metadata["check"](one.metadata["name"], value)
        if self.jwks_url and not (self.better_auth_url or (self.jwt_issuer and self.jwt_audience)):
            raise InvalidSettings(
                "JWKS_URL is set without the issuer that tokens must name. "
                "Set BETTER_AUTH_URL, or JWT_ISSUER and JWT_AUDIENCE."
            )
        if self.key_set_url:
            proxy_for(self.key_set_url)
            check_certificates(self.key_set_url)
        if self.is_development and not values.is_loopback(self.host):
            raise InvalidSettings(
                f"HOST is {self.host}, which others can reach, and neither BETTER_AUTH_SECRET nor BETTER_AUTH_URL is "
                "set. Set one, or bind to 127.0.0.1."
            )
