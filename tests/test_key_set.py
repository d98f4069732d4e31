"""Tokens that the issuer signs with its own keys (RFC 7517, Better Auth's JWT plugin)."""

import asyncio
import base64
import contextlib
import http.server
import json
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt.algorithms import get_default_algorithms

from server.cli import main
from settings.proxy import proxy_for
from settings.settings import Settings
from settings.values import InvalidSettings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.hosts import HOSTS
from tests.support.server import SECRET, Server
from tests.support.waiting import await_true
from tokens.key_set import COOL_DOWN, MAX_AGE, MAX_SIZE, REFRESH_AGE, KeySet, KeysUnavailable, parse
from tokens.verifier import InvalidToken, TokenVerifier

GENERATE: dict[str, Callable[[], Any]] = {
    "EdDSA": ed25519.Ed25519PrivateKey.generate,
    "ES256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "ES512": lambda: ec.generate_private_key(ec.SECP521R1()),
    "RS256": lambda: rsa.generate_private_key(65537, 2048),
    "PS256": lambda: rsa.generate_private_key(65537, 2048),
}
KEYS = {algorithm: generate() for algorithm, generate in GENERATE.items()}


def jwk(algorithm: str, kid: str | None = None, key: Any = None, **changes: Any) -> dict[str, Any]:
    """Return the public key as Better Auth publishes it."""
    public = (key or KEYS[algorithm]).public_key()
    members = get_default_algorithms()[algorithm].to_jwk(public, as_dict=True)
    return {name: value for name, value in members.items() if name != "key_ops"} | {
        "alg": algorithm,
        "kid": kid or f"key-{algorithm}",
        **changes,
    }


def key_set(*keys: dict[str, Any]) -> bytes:
    return json.dumps({"keys": list(keys)}).encode()


ALL_KEYS = key_set(*(jwk(algorithm) for algorithm in KEYS))


class Issuer:
    """Serves a key set on a loopback port, and counts who asks."""

    def __init__(self) -> None:
        self.body, self.status, self.delay, self.fetches = ALL_KEYS, 200, 0.0, 0
        self.asked: list[str] = []
        issuer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                issuer.fetches += 1
                issuer.asked.append(self.path)
                time.sleep(issuer.delay)
                self.send_response(issuer.status if self.path.endswith("/api/auth/jwks") else 404)
                self.end_headers()
                self.wfile.write(issuer.body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> "Issuer":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def token(self, algorithm: str = "EdDSA", *, key: Any = None, kid: str | None = None, **changes: Any) -> str:
        """Sign a token as Better Auth does."""
        now = int(time.time())
        claims = {"sub": "alice", "iat": now, "exp": now + 900, "iss": self.url, "aud": self.url} | changes
        present = {name: value for name, value in claims.items() if value is not ...}
        headers = {"kid": kid or f"key-{algorithm}", "typ": None}
        return jwt.encode(present, key or KEYS[algorithm], algorithm, headers=headers)


@pytest.fixture(scope="module", params=HOSTS)
def pair(request: pytest.FixtureRequest, make_settings: Callable[..., Settings]) -> Iterator[tuple[Issuer, Server]]:
    """An issuer, and a server that trusts its keys and the secret too."""
    with Issuer() as issuer:
        settings = make_settings(server_framework=request.param, better_auth_url=issuer.url)
        with Server(settings) as server:
            yield issuer, server


def get(pair: tuple[Issuer, Server], token: str) -> httpx.Response:
    with Client(pair[1].url, Conformance(), token=token) as client:
        return client.get("/api/tasks")


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_signed_with_a_key_of_the_issuer_is_accepted(pair: tuple[Issuer, Server], algorithm: str) -> None:
    issuer = pair[0]
    for changes in ({}, {"aud": ["other", issuer.url]}, {"sub": "0123456789"}, {"emailVerified": True, "image": None}):
        assert get(pair, issuer.token(algorithm, **changes)).status_code == 200


def test_the_secret_goes_on_counting_beside_the_keys(pair: tuple[Issuer, Server]) -> None:
    assert get(pair, pair[1].token(sub="alice")).status_code == 200


def refused(pair: tuple[Issuer, Server], token: str, detail: str) -> None:
    assert_problem(get(pair, token), 401, "invalid_token", detail)


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_token_of_the_issuer_for_something_else_is_refused(pair: tuple[Issuer, Server], algorithm: str) -> None:
    issuer = pair[0]
    refused(pair, issuer.token(algorithm, iss="https://other.example"), "The token is from another issuer.")
    refused(pair, issuer.token(algorithm, aud="session"), "The token is for another audience.")
    refused(pair, issuer.token(algorithm, iss=...), "The token has no claim iss.")
    refused(pair, issuer.token(algorithm, aud=...), "The token has no claim aud.")
    refused(pair, issuer.token(algorithm, exp=1), "The token has expired.")
    refused(pair, issuer.token(algorithm, exp=...), "The token has no claim exp.")


def test_a_key_counts_for_its_own_algorithm_only(pair: tuple[Issuer, Server]) -> None:
    issuer = pair[0]
    other = "The token is not signed with an accepted algorithm."
    refused(pair, issuer.token("PS256", kid="key-RS256"), other)
    refused(pair, issuer.token("RS256", kid="key-PS256"), other)
    refused(pair, issuer.token("RS256", kid="key-EdDSA"), other)
    refused(pair, issuer.token("ES256", kid="key-ES512"), other)
    refused(
        pair, issuer.token("EdDSA", kid="key-EdDSA", key=GENERATE["EdDSA"]()), "The token's signature is not valid."
    )


def public_bytes(algorithm: str) -> list[bytes]:
    """Return the public key in each form that a library might take for a secret."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    public = KEYS[algorithm].public_key()
    forms = [
        public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
        public.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo),
        json.dumps(jwk(algorithm)).encode(),
    ]
    if algorithm == "EdDSA":
        forms.append(public.public_bytes(Encoding.Raw, PublicFormat.Raw))
    return forms


@pytest.mark.parametrize("algorithm", KEYS)
def test_a_public_key_is_never_a_secret(pair: tuple[Issuer, Server], algorithm: str) -> None:
    issuer = pair[0]
    import hashlib
    import hmac

    now = int(time.time())
    claims = {"sub": "alice", "iat": now, "exp": now + 900, "iss": issuer.url, "aud": issuer.url}
    header = {"alg": "HS256", "kid": f"key-{algorithm}"}
    parts = [base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in (header, claims)]
    for form in public_bytes(algorithm):
        mac = hmac.new(form, b".".join(parts), hashlib.sha256).digest()
        token = b".".join([*parts, base64.urlsafe_b64encode(mac).rstrip(b"=")]).decode()
        response = get(pair, token)
        assert (response.status_code, response.json()["code"]) == (401, "invalid_token")


def test_tokens_that_name_no_known_key_are_refused(pair: tuple[Issuer, Server]) -> None:
    issuer = pair[0]
    now = int(time.time())
    claims = {"sub": "alice", "iat": now, "exp": now + 900, "iss": issuer.url, "aud": issuer.url}
    refused(pair, jwt.encode(claims, KEYS["EdDSA"], "EdDSA"), "The token does not name its key.")
    unknown = "The token is signed with a key that its issuer does not have."
    refused(pair, issuer.token(kid="made-up"), unknown)
    refused(pair, issuer.token(kid="../../x' OR 1=1"), unknown)
    embedded = jwt.encode(
        claims, KEYS["EdDSA"], "EdDSA", headers={"kid": "x", "jwk": jwk("EdDSA"), "jku": issuer.url, "x5u": issuer.url}
    )
    refused(pair, embedded, unknown)


def test_without_the_secret_no_token_signed_with_one_is_accepted(
    make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    with Issuer() as issuer:
        settings = make_settings(better_auth_secret=None, better_auth_url=issuer.url)
        with Server(settings) as server, Client(server.url, conformance, token=issuer.token()) as client:
            client.create()
            now = int(time.time())
            claims = {"sub": "alice", "iat": now, "exp": now + 900, "iss": issuer.url, "aud": issuer.url}
            for secret in (SECRET, "None" * 10, "x" * 40):
                headers = {"Authorization": f"Bearer {jwt.encode(claims, secret, headers={'kid': 'key-EdDSA'})}"}
                detail = "The token is not signed with an accepted algorithm."
                assert_problem(client.get("/api/tasks", headers=headers), 401, "invalid_token", detail)


@pytest.fixture
def cool_down(monkeypatch: pytest.MonkeyPatch) -> float:
    """A cool-down that is short enough to be waited for, in seconds."""
    monkeypatch.setattr("tokens.key_set.COOL_DOWN", 1.0)
    return 1.0


def test_an_issuer_that_is_away_from_the_start_is_a_503_until_it_comes(
    make_settings: Callable[..., Settings], conformance: Conformance, cool_down: float
) -> None:
    with Issuer() as issuer:
        issuer.status = 500
        settings = make_settings(better_auth_secret=None, better_auth_url=issuer.url)
        with Server(settings) as server, Client(server.url, conformance, token=issuer.token()) as client:
            response = client.get("/api/tasks")
            detail = "The keys of the token's issuer cannot be reached. Try again."
            assert_problem(response, 503, "unavailable", detail)
            assert response.headers["retry-after"] == "2"
            assert_problem(client.get("/ready"), 503, "unavailable", detail)
            assert client.get("/health").status_code == 200
            issuer.status = 200
            deadline = time.monotonic() + cool_down + 2
            while client.get("/api/tasks").status_code != 200:
                assert time.monotonic() < deadline
                time.sleep(0.1)


@pytest.mark.parametrize("framework", HOSTS)
def test_a_service_that_never_read_the_keys_gets_ready_by_itself(
    make_settings: Callable[..., Settings], conformance: Conformance, cool_down: float, framework: str
) -> None:
    with Issuer() as issuer:
        issuer.status = 500
        settings = make_settings(better_auth_url=issuer.url, server_framework=framework)
        with Server(settings) as server, Client(server.url, conformance) as client:
            detail = "The keys of the token's issuer cannot be reached. Try again."
            assert_problem(client.get("/ready"), 503, "unavailable", detail)
            issuer.status = 200
            await_true(lambda: client.get("/ready").status_code == 200, 20 * cool_down)
            issuer.status = 500
            assert client.get("/ready").status_code == 200


def test_check_tells_whether_the_keys_can_be_read(database_url: str, database: Any) -> None:  # noqa: ARG001
    with Issuer() as issuer:
        environment = {"DATABASE_URL": database_url, "BETTER_AUTH_URL": issuer.url, "BETTER_AUTH_SECRET": SECRET}
        result = CliRunner().invoke(main, ["check"], env=environment)
        assert (result.exit_code, result.stdout.splitlines()[-1]) == (0, "The issuer's keys can be read.")
        issuer.body = b"{}"
        result = CliRunner().invoke(main, ["check"], env=environment)
        sentence = f"the key set at {issuer.url}/api/auth/jwks cannot be read: it has no usable key"
        assert (result.exit_code, result.stderr.splitlines()[-1]) == (
            1,
            f"No token of the issuer can be verified: {sentence}",
        )


def test_a_rotated_key_is_accepted_within_the_cool_down_and_the_old_one_goes_on(
    make_settings: Callable[..., Settings], conformance: Conformance, cool_down: float
) -> None:
    with Issuer() as issuer:
        settings = make_settings(better_auth_url=issuer.url)
        with Server(settings) as server, Client(server.url, conformance) as client:
            new = GENERATE["EdDSA"]()
            issuer.body = key_set(jwk("EdDSA"), jwk("EdDSA", "rotated", new))
            headers = {"Authorization": f"Bearer {issuer.token(key=new, kid='rotated')}"}
            started = time.monotonic()
            while client.get("/api/tasks", headers=headers).status_code != 200:
                assert time.monotonic() - started < cool_down + 0.5
                time.sleep(0.05)
            old = {"Authorization": f"Bearer {issuer.token()}"}
            assert client.get("/api/tasks", headers=old).status_code == 200


# The key set by itself, with a clock of the test's own


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Source:
    """What a fetch returns, or raises; it counts fetches, and how many run at once."""

    def __init__(self) -> None:
        self.answer: bytes | Exception = ALL_KEYS
        self.fetches = self.running = self.most = 0
        self.delay = 0.0

    async def __call__(self, _url: str) -> bytes:
        self.fetches += 1
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await asyncio.sleep(self.delay)
            if isinstance(self.answer, Exception):
                raise self.answer
            return self.answer
        finally:
            self.running -= 1


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def source() -> Source:
    return Source()


@pytest.fixture
def keys(source: Source, clock: Clock) -> KeySet:
    return KeySet("http://issuer.example", fetch=source, clock=clock)


def test_a_known_key_takes_no_further_fetch(keys: KeySet, source: Source, clock: Clock) -> None:
    async def run() -> None:
        for _ in range(100):
            assert await keys.key("key-EdDSA")
            clock.now += REFRESH_AGE / 200

    asyncio.run(run())
    assert source.fetches == 1


def test_a_known_key_does_not_wait_for_a_fetch_that_somebody_else_caused(
    keys: KeySet, source: Source, clock: Clock
) -> None:
    async def run() -> None:
        await keys.key("key-EdDSA")
        clock.now += COOL_DOWN
        source.delay = 0.5
        bad = asyncio.create_task(keys.key("made-up"))
        await asyncio.sleep(0.05)
        started = time.perf_counter()
        assert await keys.key("key-ES256")
        assert time.perf_counter() - started < 0.2
        assert await bad is None

    asyncio.run(run())


def test_whatever_is_asked_for_there_is_one_fetch_in_a_cool_down(keys: KeySet, source: Source, clock: Clock) -> None:
    async def run() -> None:
        source.delay = 0.01
        for second in range(100):
            found = await asyncio.gather(*(keys.key(f"made-up {second} {n}") for n in range(50)))
            assert found == [None] * 50
            clock.now += 1

    asyncio.run(run())
    assert source.most == 1
    assert source.fetches <= 100 / COOL_DOWN + 1


async def ask_in_vain(keys: KeySet, clock: Clock, identifier: str) -> None:
    """Ask four times a second, for ten seconds."""
    for _ in range(40):
        with pytest.raises(KeysUnavailable):
            await keys.key(identifier)
        clock.now += 0.25


def test_failures_cool_down_too(keys: KeySet, source: Source, clock: Clock) -> None:
    async def run() -> None:
        await keys.key("key-EdDSA")
        clock.now += COOL_DOWN
        source.answer = httpx.ConnectError("refused")
        await ask_in_vain(keys, clock, "unknown")

    asyncio.run(run())
    assert source.fetches == 1 + 2


def test_an_issuer_that_has_yet_to_start_is_asked_each_second(keys: KeySet, source: Source, clock: Clock) -> None:
    async def run() -> None:
        source.answer = httpx.ConnectError("refused")
        await ask_in_vain(keys, clock, "key-EdDSA")

    asyncio.run(run())
    assert source.fetches == 10


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        TimeoutError(),
        ValueError("too large"),
        b"",
        b"<html>",
        b"[" * 100_000,
        b"null",
        b"[]",
        b'{"keys": null}',
        b'{"keys": []}',
        b'{"keys": [1, null, {}, {"kid": 1}, {"kid": "a", "kty": []}, {"kid": "b", "kty": "OKP", "crv": "Ed25519"}]}',
        b"\xff\xfe",
    ],
)
def test_the_last_good_set_serves_for_ten_minutes_while_the_issuer_serves_nothing_good(
    keys: KeySet, source: Source, clock: Clock, answer: Any
) -> None:
    async def run() -> None:
        await keys.key("key-EdDSA")
        source.answer = answer
        for _ in range(int(MAX_AGE / 10)):
            assert await keys.key("key-EdDSA")
            clock.now += 10
            await asyncio.sleep(0)
        with pytest.raises(KeysUnavailable):
            await keys.key("key-EdDSA")
        source.answer = ALL_KEYS
        clock.now += COOL_DOWN
        assert await keys.key("key-EdDSA")

    asyncio.run(run())


def test_an_unknown_key_is_neither_accepted_nor_refused_while_the_issuer_is_away(
    keys: KeySet, source: Source, clock: Clock
) -> None:
    async def run() -> None:
        await keys.key("key-EdDSA")
        source.answer = httpx.ConnectError("refused")
        clock.now += COOL_DOWN
        with pytest.raises(KeysUnavailable):
            await keys.key("maybe rotated")
        assert await keys.key("key-EdDSA")

    asyncio.run(run())


def test_a_fetch_that_hangs_is_given_up(source: Source, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tokens.key_set.FETCH_TIMEOUT", 0.1)
    source.delay = 60

    async def run() -> None:
        with pytest.raises(KeysUnavailable):
            await KeySet("http://issuer.example", fetch=source).key("key-EdDSA")

    asyncio.run(run())


def test_a_key_set_without_an_end_is_not_read_to_it(caplog: pytest.LogCaptureFixture) -> None:
    with Issuer() as issuer:
        issuer.body = b" " * (MAX_SIZE + 1)
        with pytest.raises(KeysUnavailable):
            asyncio.run(KeySet(f"{issuer.url}/api/auth/jwks").key("key-EdDSA"))
    assert f"it has more than {MAX_SIZE} bytes" in caplog.text


def test_a_key_that_the_issuer_withdraws_is_gone_when_the_set_is_older_than_a_minute(
    keys: KeySet, source: Source, clock: Clock
) -> None:
    async def run() -> None:
        await keys.key("key-EdDSA")
        source.answer, source.delay = key_set(jwk("ES256")), 0.01
        clock.now += REFRESH_AGE
        assert await keys.key("key-EdDSA")
        for quiet in (1, MAX_AGE / 2, MAX_AGE * 2):
            clock.now += quiet
            assert await asyncio.gather(*(keys.key("key-EdDSA") for _ in range(50))) == [None] * 50
            assert await keys.key("key-ES256")

    asyncio.run(run())
    assert (source.fetches, source.most) == (4, 1)


def test_everybody_waits_for_one_refresh_and_goes_on_with_the_old_set_where_it_fails(
    keys: KeySet, source: Source, clock: Clock
) -> None:
    async def run() -> None:
        await keys.key("key-EdDSA")
        source.answer, source.delay = httpx.ConnectError("refused"), 0.01
        clock.now += MAX_AGE - 10
        assert all(await asyncio.gather(*(keys.key("key-EdDSA") for _ in range(50))))
        assert all([await keys.key("key-EdDSA") for _ in range(50)])  # during the cool-down
        source.answer = key_set(jwk("ES256"))
        clock.now += COOL_DOWN
        assert await keys.key("key-EdDSA") is None

    asyncio.run(run())
    assert (source.fetches, source.most) == (3, 1)


def test_an_issuer_that_is_silent_holds_up_only_those_who_come_first(
    keys: KeySet, source: Source, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def waits() -> bool:
        waiting = asyncio.create_task(keys.key("key-EdDSA"))
        await asyncio.sleep(0.01)
        is_waiting = not waiting.done()
        assert await waiting
        return is_waiting

    async def run() -> list[bool]:
        await keys.key("key-EdDSA")
        source.delay = 60
        clock.now += REFRESH_AGE + 1
        waited = [await waits()]
        for _ in range(3):
            clock.now += COOL_DOWN
            waited.append(await waits())
            await keys.refresh()
        clock.now += 2 * COOL_DOWN  # nobody came meanwhile
        waited.append(await waits())
        source.delay, source.answer = 0, key_set(jwk("ES256"))
        clock.now += COOL_DOWN
        assert await keys.key("key-EdDSA")  # it starts the fetch
        await keys.refresh()
        assert await keys.key("key-EdDSA") is None
        return waited

    monkeypatch.setattr("tokens.key_set.FETCH_TIMEOUT", 0.1)
    assert asyncio.run(run()) == [True, False, False, False, True]


def test_a_remembered_token_is_refused_when_its_key_is_withdrawn(keys: KeySet, source: Source, clock: Clock) -> None:
    origin = "https://app.example.com"
    tokens = TokenVerifier(key_set=keys, origin=origin)
    now = int(time.time())
    claims = {"sub": "alice", "iat": now, "exp": now + 60, "iss": origin, "aud": origin}
    token = jwt.encode(claims, KEYS["EdDSA"], "EdDSA", headers={"kid": "key-EdDSA"})

    async def run() -> None:
        assert (await tokens.verify(token))["sub"] == (await tokens.verify(token))["sub"] == "alice"
        source.answer = key_set(jwk("ES256"))
        clock.now += REFRESH_AGE + 1
        with pytest.raises(InvalidToken, match="a key that its issuer does not have"):
            await tokens.verify(token)

    asyncio.run(run())


def test_keys_that_are_not_for_these_signatures_are_passed_over() -> None:
    weak = rsa.generate_private_key(65537, 1024)
    content = key_set(
        jwk("EdDSA", "good"),
        jwk("EdDSA", "good", GENERATE["EdDSA"]()),
        jwk("EdDSA", "encryption", use="enc"),
        jwk("RS256", "weak", weak),
        jwk("RS256", "other algorithm", alg="RS512"),
        jwk("RS256", "mismatch", alg="ES256"),
        {"kty": "oct", "k": "c2VjcmV0", "alg": "HS256", "kid": "secret"},
        {"kty": "EC", "crv": "P-256", "x": "AA", "y": "AA", "kid": "off the curve"},
        {name: value for name, value in jwk("ES256", "no alg").items() if name != "alg"},
    )
    found = parse(content)
    assert {kid: key.algorithm for kid, key in found.items()} == {"good": "EdDSA", "no alg": "ES256"}


# Proxies, which the environment names in ways that are not this service's own


def read(url: str) -> bool:
    """Tell whether the key set at a URL can be read with the proxy that the environment names for it."""

    async def run() -> bool:
        with contextlib.suppress(KeysUnavailable):
            return await KeySet(url, proxy=proxy_for(url)).key("key-EdDSA") is not None
        return False

    return asyncio.run(run())


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """An environment without a word of proxies or certificates."""
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    for name in ("SSL_CERT_FILE", "SSL_CERT_DIR"):
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


EXEMPT = (
    "localhost,fd07:b51a::/64,127.0.0.1",
    "fd07:b51a::/64, 127.0.0.0/8 ,",
    "[::1]:80,[fd00::],::1,127.0.0.1",
    "x,*",
    "*",
    "/,//,:,::,http://,%,é,127.0.0.1",
)


@pytest.mark.parametrize("exempt", EXEMPT)
def test_whatever_stands_in_no_proxy_the_keys_are_read(environment: pytest.MonkeyPatch, exempt: str) -> None:
    environment.setenv("NO_PROXY", exempt)
    with Issuer() as issuer:
        for proxy in ("", "http://127.0.0.1:1", "nonsense://", "garbage:x"):
            environment.setenv("HTTP_PROXY", proxy)
            assert read(f"{issuer.url}/api/auth/jwks")


@pytest.mark.parametrize("framework", HOSTS)
def test_a_token_is_accepted_with_the_networks_that_container_tools_put_into_no_proxy(
    environment: pytest.MonkeyPatch, make_settings: Callable[..., Settings], conformance: Conformance, framework: str
) -> None:
    environment.setenv("NO_PROXY", "localhost,fd07:b51a::/64")
    with Issuer() as issuer:
        settings = make_settings(better_auth_url=issuer.url, server_framework=framework)
        with Server(settings) as server, Client(server.url, conformance, token=issuer.token()) as client:
            assert client.get("/api/tasks").status_code == 200


@pytest.mark.parametrize("name", ["HTTP_PROXY", "http_proxy", "ALL_PROXY"])
@pytest.mark.parametrize("form", ["http://{}", "{}", " http://user:pa55word@{}/ "])
def test_the_keys_are_read_through_a_proxy(environment: pytest.MonkeyPatch, name: str, form: str) -> None:
    url = "http://issuer.invalid/api/auth/jwks"
    with Issuer() as proxy:
        environment.setenv(name, form.format(proxy.url.removeprefix("http://")))
        environment.setenv("NO_PROXY", "other.invalid,::1,10.0.0.0/8,fd07:b51a::/64")
        assert read(url)
    assert proxy.asked == [url]


def test_a_proxy_that_is_away_is_named_in_the_log(
    environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    environment.setenv("HTTP_PROXY", "user:pa55word@127.0.0.1:1")
    assert not read("http://issuer.invalid/api/auth/jwks")
    assert "the key set at http://issuer.invalid/api/auth/jwks through 127.0.0.1 cannot be read:" in caplog.text
    assert "pa55word" not in caplog.text


def refused_settings(url: str) -> str:
    with pytest.raises(InvalidSettings) as refusal:
        Settings.load({"BETTER_AUTH_URL": url})
    return str(refusal.value)


@pytest.mark.parametrize(
    "proxy",
    ["garbage:x", "socks5://pa55word@host:1", "http://", "http://pa55word@a b:1", "://", "http://h:0", "ftp://h"],
)
def test_what_is_no_proxy_stops_the_start_without_being_shown(environment: pytest.MonkeyPatch, proxy: str) -> None:
    environment.setenv("HTTPS_PROXY", proxy)
    assert refused_settings("https://app.example.com") == (
        "HTTPS_PROXY or ALL_PROXY is no URL of an HTTP proxy, which leads to app.example.com. "
        "Write it like http://proxy.example.com:3128, or put that host into NO_PROXY."
    )
    assert Settings.load({"BETTER_AUTH_URL": "http://app.example.com"}).key_set_url  # which it does not concern
    environment.setenv("NO_PROXY", ".example.com")
    assert Settings.load({"BETTER_AUTH_URL": "https://app.example.com"}).key_set_url


def test_certificates_that_cannot_be_read_stop_the_start(environment: pytest.MonkeyPatch, tmp_path: Path) -> None:
    url = "https://app.example.com"
    environment.setenv("SSL_CERT_DIR", str(tmp_path / "none"))
    assert refused_settings(url) == f"SSL_CERT_DIR is '{tmp_path}/none', which is no folder. Correct or remove it."
    environment.setenv("SSL_CERT_DIR", str(tmp_path))
    assert Settings.load({"BETTER_AUTH_URL": url}).key_set_url
    (tmp_path / "empty").write_text("")
    for name in ("none", "empty"):
        environment.setenv("SSL_CERT_FILE", str(tmp_path / name))
        assert refused_settings(url).startswith(
            f"SSL_CERT_FILE is '{tmp_path}/{name}', from which no certificate can be read ("
        )
    environment.delenv("SSL_CERT_FILE")
    environment.delenv("SSL_CERT_DIR")
    certificate = httpx.create_ssl_context().get_ca_certs(binary_form=True)[0]
    (tmp_path / "one").write_text(ssl.DER_cert_to_PEM_cert(certificate))
    environment.setenv("SSL_CERT_FILE", str(tmp_path / "one"))
    assert Settings.load({"BETTER_AUTH_URL": url}).key_set_url
    environment.setenv("SSL_CERT_FILE", "none")
    assert Settings.load({"BETTER_AUTH_URL": "http://app.example.com"}).key_set_url  # which needs none


def test_an_issuer_with_tls_is_verified(environment: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    with Issuer() as issuer:
        environment.setenv("NO_PROXY", "*")
        assert not read(f"{issuer.url.replace('http', 'https')}/api/auth/jwks")  # which is not spoken there
    assert "SSL" in caplog.text


def test_an_address_that_is_in_no_network_of_no_proxy_goes_through_the_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://proxy.example:3128")
    monkeypatch.setenv("no_proxy", "10.0.0.0/8")
    for host, proxy in (("10.1.2.3", None), ("11.1.2.3", "http://proxy.example:3128")):
        assert proxy_for(f"http://{host}/jwks") == proxy


def test_a_refresh_within_the_cool_down_fetches_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        key_set = KeySet("http://127.0.0.1:9/jwks")
        await key_set.refresh()
        caplog.clear()
        await key_set.refresh()
        assert caplog.text == ""

    asyncio.run(run())


def test_without_a_key_set_there_is_nothing_to_load() -> None:
    asyncio.run(TokenVerifier(secret=SECRET).load())
