"""The issuer's public keys (JWKS, RFC 7517), cached so that hardly any request waits for the network."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import httpx
import jwt

logger = logging.getLogger(__name__)

COOL_DOWN: Final = 5.0  # seconds between two fetches at least
FIRST_COOL_DOWN: Final = 1.0  # seconds, until the first set was read: the issuer may start after the service
FETCH_TIMEOUT: Final = 3.0  # seconds
REFRESH_AGE: Final = 60.0  # seconds until the set is refreshed in the background
MAX_AGE: Final = 600.0  # seconds that the last good set is used while the issuer is down
MAX_SIZE: Final = 256 * 1024  # bytes
MIN_RSA_BITS: Final = 2048

# The algorithms of each key type and curve; the first is that of a key without `alg` (RFC 7518, RFC 8037).
ALGORITHMS: Final = {
    "OKP Ed25519": ("EdDSA",),
    "EC P-256": ("ES256",),
    "EC P-521": ("ES512",),
    "RSA": ("RS256", "PS256"),
}
PUBLIC_MEMBERS: Final = ("kty", "crv", "x", "y", "n", "e")


class KeysUnavailable(Exception):
    """The issuer's keys are unavailable, so a token can be neither accepted nor refused."""


class Key(NamedTuple):
    """A public key and the one algorithm that it may be used with."""

    algorithm: str
    public_key: Any


class KeySet:
    """The keys at a URL, fetched through a proxy if there is one.

    A known key is found without waiting while the set is younger than REFRESH_AGE. An unknown key or an older set
    triggers a fetch, which everyone who waits shares; there is at most one in COOL_DOWN seconds, even after failures,
    and in FIRST_COOL_DOWN seconds before the first set was read. Only where the fetch fails is an older set used, for
    MAX_AGE at most.
    """

    def __init__(
        self,
        url: str,
        *,
        proxy: str | None = None,
        fetch: Callable[[str], Awaitable[bytes]] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._url = url
        self._fetch = fetch or partial(_fetch, proxy=proxy)
        self._source = f"{url} through {urlsplit(proxy).hostname}" if proxy else url
        self._clock = clock
        self._failure = "no answer yet"
        self._is_silent = False  # the last fetch was not answered in time
        self._keys: dict[str, Key] = {}
        self._loaded_at = float("-inf")
        self._tried_at = float("-inf")
        self._refresh: asyncio.Task[None] | None = None

    async def key(self, identifier: str) -> Key | None:
        """Return the key with this `kid`, None if the issuer has none. Raises KeysUnavailable."""
        is_known = identifier in self._keys
        if not is_known or self._age() > REFRESH_AGE:
            # An issuer that is silent for long must not hold up everybody for FETCH_TIMEOUT, again and again.
            was_silent = self._is_silent and self._clock() - self._tried_at < 2 * COOL_DOWN
            can_go_on = is_known and was_silent and self._age() < MAX_AGE
            refresh = self._start_refresh()
            if refresh and not can_go_on:
                await asyncio.shield(refresh)
        key = self._keys.get(identifier)
        # A key that is missing may be new, unless the last fetch succeeded.
        if self._age() >= MAX_AGE or (key is None and self._loaded_at < self._tried_at):
            raise self._unavailable()
        return key

    def check(self) -> None:
        """Raise KeysUnavailable if the set was never read, so that no token can be verified."""
        if self._loaded_at == float("-inf"):
            raise self._unavailable()

    def _unavailable(self) -> KeysUnavailable:
        return KeysUnavailable(f"the key set at {self._source} cannot be read: {self._failure}")

    def _age(self) -> float:
        return self._clock() - self._loaded_at

    async def refresh(self) -> None:
        """Fetch the set, except during the cool-down."""
        if refresh := self._start_refresh():
            await asyncio.shield(refresh)

    def _start_refresh(self) -> asyncio.Task[None] | None:
        """Return the running fetch, a new one, or None during the cool-down."""
        if self._refresh and not self._refresh.done():
            return self._refresh
        if self._clock() - self._tried_at < (COOL_DOWN if self._keys else FIRST_COOL_DOWN):
            return None
        self._tried_at = self._clock()
        self._refresh = asyncio.create_task(self._load())
        return self._refresh

    async def _load(self) -> None:
        try:
            async with asyncio.timeout(FETCH_TIMEOUT):
                keys = parse(await self._fetch(self._url))
        except Exception as error:  # whatever the issuer serves, the last good set stays in use
            self._is_silent = isinstance(error, TimeoutError | httpx.TimeoutException)
            self._failure = str(error) or type(error).__name__
            logger.warning("the key set at %s cannot be read: %s", self._source, self._failure)
            return
        self._keys, self._loaded_at, self._is_silent = keys, self._clock(), False


async def _fetch(url: str, proxy: str | None) -> bytes:
    """Return the body at a URL. Raises httpx.HTTPError, OSError; ValueError for more than MAX_SIZE bytes.

    What the environment says of proxies is for settings/proxy.py to read: httpx fails for entries of NO_PROXY that it
    does not know. httpx itself heeds SSL_CERT_FILE and SSL_CERT_DIR.
    """
    verify = httpx.create_ssl_context() if url.startswith("https:") else True
    content = b""
    async with (
        httpx.AsyncClient(timeout=FETCH_TIMEOUT, trust_env=False, proxy=proxy, verify=verify) as client,
        client.stream("GET", url) as response,
    ):
        response.raise_for_status()
        async for chunk in response.aiter_bytes():
            content += chunk
            if len(content) > MAX_SIZE:
                raise ValueError(f"it has more than {MAX_SIZE} bytes")
    return content


def parse(content: bytes) -> dict[str, Key]:
    """Return the usable keys of a key set by `kid`. Raises ValueError if there are none."""
    document = json.loads(content)
    listed = document.get("keys") if isinstance(document, dict) else None
    keys: dict[str, Key] = {}
    for jwk in listed if isinstance(listed, list) else []:
        if isinstance(jwk, dict) and isinstance(jwk.get("kid"), str) and jwk["kid"] not in keys and (key := _key(jwk)):
            keys[jwk["kid"]] = key
    if not keys:
        raise ValueError("it has no usable key")
    return keys


def _key(jwk: dict[str, Any]) -> Key | None:
    """Bind a key to its algorithm; None if it cannot verify signatures here."""
    possible = ALGORITHMS.get(f"{jwk.get('kty')} {jwk.get('crv', '')}".strip(), ())
    algorithm = jwk.get("alg", possible[0] if possible else None)
    if algorithm not in possible or jwk.get("use", "sig") != "sig":
        return None
    try:
        # Only the public half, even if a private key was published by mistake.
        public: dict[str, Any] = {name: jwk[name] for name in PUBLIC_MEMBERS if name in jwk}
        public_key = jwt.PyJWK(public, algorithm).key
    except (jwt.PyJWTError, ValueError, TypeError) as error:
        logger.warning("a key of the issuer was ignored: %s", error)
        return None
    if jwk["kty"] == "RSA" and public_key.key_size < MIN_RSA_BITS:
        return None
    return Key(algorithm, public_key)
