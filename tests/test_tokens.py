"""Who may call: tokens signed with the shared secret (FR-007, FR-008, FR-014)."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
import time
import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

import httpx
import jwt
import pytest

from openapi.app import token_verifier
from openapi.contract import Contract
from postgres.scope import Scope
from settings.settings import Settings
from tests.support.client import Client, Conformance, assert_problem
from tests.support.server import SECRET, Server
from tokens.key_set import KeySet
from tokens.verifier import LEEWAY, InvalidToken, TokenVerifier

TASK = "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11"
OPERATIONS = [
    ("GET", "/api/tasks"),
    ("POST", "/api/tasks"),
    ("GET", TASK),
    ("PUT", TASK),
    ("PATCH", TASK),
    ("DELETE", TASK),
    ("PATCH", f"{TASK}/complete"),
    ("GET", "/api/me"),
    ("DELETE", "/api/me"),
    ("GET", "/api/me/export"),
]
NOT_READABLE = "The token is not a JSON Web Token that this service can read."


def claims(**changes: Any) -> dict[str, Any]:
    now = int(time.time())
    merged = {"sub": "alice", "iat": now, "exp": now + 3600} | changes
    return {name: value for name, value in merged.items() if value is not ...}


def by_hand(header: dict[str, Any], payload: bytes, secret: str = SECRET) -> str:
    """Sign what PyJWT would not."""
    return sign_by_hand(json.dumps(header).encode(), payload, secret)


def payload_by_hand(members: str) -> str:
    """Sign a payload with these members, and times that are sound."""
    now = int(time.time())
    return by_hand({"alg": "HS256"}, f'{{"iat":{now},"exp":{now + 3600},{members}}}'.encode())


def sign_by_hand(header: bytes, payload: bytes, secret: str = SECRET, *, padding: bool = False) -> str:
    """Sign a header and a payload that need not be JSON."""
    parts = [base64.urlsafe_b64encode(part) for part in (header, payload)]
    parts = parts if padding else [part.rstrip(b"=") for part in parts]
    signature = hmac.new(secret.encode(), b".".join(parts), hashlib.sha256).digest()
    return b".".join([*parts, base64.urlsafe_b64encode(signature).rstrip(b"=")]).decode()


def assert_refused(response: httpx.Response, detail: str) -> None:
    assert_problem(response, 401, "invalid_token", detail)
    challenge = f'Bearer realm="tasks-api", error="invalid_token", error_description="{detail}"'
    assert response.headers["www-authenticate"] == challenge


def test_every_operation_under_api_is_tried_without_a_good_token(contract: Contract) -> None:
    found = [(method, contract.match(path)) for method, path in OPERATIONS]
    templates = [(method, match.path_item.template) for method, match in found if match]
    items = [item for item in contract.path_items if item.template.startswith("/api/")]
    assert templates == [(method, item.template) for item in items for method in item.operations]


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_under_api_needs_a_token(anonymous: Client, method: str, path: str) -> None:
    response = anonymous.request(method, path)
    assert_problem(response, 401, "missing_token", "Send a token: Authorization: Bearer <JWT>.")
    assert response.headers["www-authenticate"] == 'Bearer realm="tasks-api"'


@pytest.mark.parametrize(("method", "path"), OPERATIONS)
def test_every_operation_under_api_refuses_a_bad_token(anonymous: Client, method: str, path: str) -> None:
    expired = jwt.encode(claims(exp=1), SECRET)
    response = anonymous.request(method, path, headers={"Authorization": f"Bearer {expired}"})
    assert_refused(response, "The token has expired.")


@pytest.mark.parametrize("authorization", ["", "Basic YTpi", "Bearer", "Token x"])
def test_another_authorization_is_no_token(anonymous: Client, authorization: str) -> None:
    response = anonymous.get("/api/tasks", headers={"Authorization": authorization})
    assert_problem(response, 401, "missing_token", "Send a token: Authorization: Bearer <JWT>.")


def test_two_authorization_headers_are_refused(alice: Client) -> None:
    token = alice.headers["authorization"]
    response = alice.get("/api/tasks", headers=[("Authorization", token), ("Authorization", token)])
    detail = "is given more than once"
    assert_problem(
        response,
        400,
        "bad_request",
        f"Invalid header: /Authorization {detail}.",
        ("header", "/Authorization", detail),
    )


def test_the_scheme_is_taken_in_any_case(alice: Client) -> None:
    token = alice.headers["authorization"].removeprefix("Bearer ")
    assert alice.get("/api/tasks", headers={"Authorization": f"bEARER {token}"}).status_code == 200


def token_cases() -> dict[str, tuple[str, str]]:
    now = int(time.time())
    good = jwt.encode(claims(), SECRET)
    header, payload, signature = good.split(".")
    bob = base64.urlsafe_b64encode(json.dumps(claims(sub="bob")).encode()).rstrip(b"=").decode()
    none = base64.urlsafe_b64encode(b'{"alg":"none","typ":"JWT"}').rstrip(b"=").decode()
    no_text = "The claim sub is not a text of 1 to 255 characters."
    other_algorithm = "The token is not signed with an accepted algorithm."
    other_audience = "The token is for another audience."
    not_signed = "The token's signature is not valid."
    too_long = "The token is longer than 8192 characters."
    critical = {"alg": "HS256", "crit": ["x"], "x": 1}
    hs256 = {"alg": "HS256"}
    signed = partial(by_hand, hs256)
    sound = json.dumps(claims()).encode()
    return {
        "not a token": ("x", NOT_READABLE),
        "two parts": (f"{header}.{payload}", NOT_READABLE),
        "four parts": (f"{good}.x", NOT_READABLE),
        "another user's payload": (f"{header}.{bob}.{signature}", "The token's signature is not valid."),
        "no signature": (f"{header}.{payload}.", "The token's signature is not valid."),
        "another secret": (jwt.encode(claims(), "another" * 10), "The token's signature is not valid."),
        "algorithm none": (f"{none}.{payload}.", other_algorithm),
        "algorithm HS512": (jwt.encode(claims(), SECRET * 2, "HS512"), other_algorithm),
        "expired": (jwt.encode(claims(exp=now - 6), SECRET), "The token has expired."),
        "without exp": (jwt.encode(claims(exp=...), SECRET), "The token has no claim exp."),
        "without iat": (jwt.encode(claims(iat=...), SECRET), "The token has no claim iat."),
        "without sub": (jwt.encode(claims(sub=...), SECRET), "The token has no claim sub."),
        "exp a text": (jwt.encode(claims(exp=str(now + 3600)), SECRET), "The claim exp is not a number."),
        "iat a truth value": (jwt.encode(claims(iat=True), SECRET), "The claim iat is not a number."),
        "nbf a text": (jwt.encode(claims(nbf="1"), SECRET), "The claim nbf is not a number."),
        "exp infinite": (by_hand({"alg": "HS256"}, b'{"sub":"a","iat":1,"exp":1e400}'), NOT_READABLE),
        "iat in the future": (jwt.encode(claims(iat=now + 3600), SECRET), "The token is not valid yet."),
        "nbf in the future": (jwt.encode(claims(nbf=now + 3600), SECRET), "The token is not valid yet."),
        "sub empty": (jwt.encode(claims(sub=""), SECRET), no_text),
        "sub too long": (jwt.encode(claims(sub="x" * 256), SECRET), no_text),
        "sub with NUL": (jwt.encode(claims(sub="a\0"), SECRET), no_text),
        "sub half a surrogate pair": (by_hand({"alg": "HS256"}, json.dumps(claims(sub="\ud800")).encode()), no_text),
        "sub a number": (by_hand({"alg": "HS256"}, json.dumps(claims(sub=1)).encode()), "The claim sub is not a text."),
        "payload not an object": (by_hand({"alg": "HS256"}, b"[]"), NOT_READABLE),
        "payload not JSON": (by_hand({"alg": "HS256"}, b"x"), NOT_READABLE),
        "payload nested deep": (by_hand({"alg": "HS256"}, b"[" * 4000), NOT_READABLE),
        "unknown critical header": (by_hand(critical, json.dumps(claims()).encode()), NOT_READABLE),
        "for an audience while none is configured": (jwt.encode(claims(aud="x"), SECRET), other_audience),
        "for an empty audience": (jwt.encode(claims(aud=[]), SECRET), other_audience),
        "sub twice": (payload_by_hand('"sub":"bob","sub":"alice"'), NOT_READABLE),
        "sub twice, once escaped": (payload_by_hand(r'"sub":"bob","\u0073ub":"alice"'), NOT_READABLE),
        "exp twice": (payload_by_hand('"sub":"alice","exp":4102444800'), NOT_READABLE),
        "a name twice within a claim": (payload_by_hand('"sub":"alice","x":[{"a":1,"a":2}]'), NOT_READABLE),
        "alg twice": (sign_by_hand(b'{"alg":"none","alg":"HS256"}', sound), NOT_READABLE),
        "NaN": (payload_by_hand('"sub":"alice","x":NaN'), NOT_READABLE),
        "payload in UTF-16": (signed(json.dumps(claims()).encode("utf-16")), NOT_READABLE),
        "header in UTF-16": (sign_by_hand('{"alg":"HS256"}'.encode("utf-16"), sound), NOT_READABLE),
        "exp not a number": (signed(b'{"sub":"a","iat":1,"exp":NaN}'), NOT_READABLE),
        "exp of 5000 digits": (signed(b'{"sub":"a","iat":1,"exp":' + b"9" * 5000 + b"}"), NOT_READABLE),
        "exp huge": (jwt.encode(claims(exp=10**300), SECRET), "The claim exp is after the year 9999."),
        "exp huge and broken": (jwt.encode(claims(exp=1e300), SECRET), "The claim exp is after the year 9999."),
        "exp a truth value": (jwt.encode(claims(exp=True), SECRET), "The token has expired."),
        "exp null": (jwt.encode(claims(exp=None), SECRET), "The token has no claim exp."),
        "exp a list": (jwt.encode(claims(exp=[now + 60]), SECRET), NOT_READABLE),
        "exp negative": (jwt.encode(claims(exp=-1e300), SECRET), "The token has expired."),
        "iat infinite": (signed(f'{{"sub":"a","iat":-1e400,"exp":{now + 3600}}}'.encode()), NOT_READABLE),
        "iat huge": (jwt.encode(claims(iat=10**300), SECRET), "The token is not valid yet."),
        "iat a text": (jwt.encode(claims(iat="1"), SECRET), "The claim iat is not a number."),
        "nbf null": (jwt.encode(claims(nbf=None), SECRET), NOT_READABLE),
        "sub null": (jwt.encode(claims(sub=None), SECRET), "The token has no claim sub."),
        "sub a list": (signed(json.dumps(claims(sub=["alice"])).encode()), "The claim sub is not a text."),
        "header not an object": (sign_by_hand(b"[]", sound), NOT_READABLE),
        "header nested deep": (sign_by_hand(b'{"alg":' + b"[" * 3000, b"{}"), NOT_READABLE),
        "algorithm a list": (by_hand({"alg": ["HS256"]}, sound), other_algorithm),
        "algorithm null": (by_hand({"alg": None}, sound), other_algorithm),
        "no algorithm": (by_hand({}, sound), other_algorithm),
        "algorithm in lower case": (by_hand({"alg": "hs256"}, sound), other_algorithm),
        "algorithm None": (by_hand({"alg": "nOnE"}, sound), other_algorithm),
        "payload not encoded": (by_hand({**hs256, "b64": False, "crit": ["b64"]}, b""), NOT_READABLE),
        "payload not encoded, not critical": (by_hand({**hs256, "b64": False}, sound), NOT_READABLE),
        "nothing critical": (by_hand({**hs256, "crit": []}, sound), NOT_READABLE),
        "compressed": (by_hand({**hs256, "zip": "DEF"}, zlib.compress(sound)), NOT_READABLE),
        "a key of its own": (by_hand({**hs256, "jwk": {"kty": "oct", "k": "eHg"}}, sound, "x" * 40), not_signed),
        "a key set of its own": (by_hand({**hs256, "jku": "http://127.0.0.1:1/"}, sound, "x" * 40), not_signed),
        "a key that is a path": (by_hand({**hs256, "kid": "../../../dev/null"}, sound, ""), not_signed),
        "a key that is SQL": (by_hand({**hs256, "kid": "x' UNION SELECT 'x"}, sound, "x"), not_signed),
        "a key of 10,000 characters": (by_hand({**hs256, "kid": "k" * 10_000}, b"{}"), too_long),
        "a key that is a number": (by_hand({**hs256, "kid": 1}, sound), NOT_READABLE),
        "padded": (f"{good}=", NOT_READABLE),
        "padded inside": (sign_by_hand(b'{"alg": "HS256"}', sound, padding=True), NOT_READABLE),
        "other alphabet": (f"{header}.{payload}.{'+' + signature[1:]}", NOT_READABLE),
        "a space inside": (f"{header}. {payload}.{signature}", NOT_READABLE),
        "a space behind": (f"{header}.{payload}.{signature} x", NOT_READABLE),
        "two tokens": (f"{good}, {good}", NOT_READABLE),
        "encrypted": (f"{header}.x.x.x.x", NOT_READABLE),
        "as JSON": (json.dumps({"payload": payload, "protected": header, "signature": signature}), NOT_READABLE),
        "dots": ("..", NOT_READABLE),
        "many dots": ("." * 8000, NOT_READABLE),
        "too long": ("x" * 8193, too_long),
    }  # fmt: skip


CASES = token_cases()


@pytest.mark.parametrize("case", CASES)
def test_a_token_that_breaks_a_rule_is_refused(anonymous: Client, case: str) -> None:
    token, detail = CASES[case]
    assert_refused(anonymous.get("/api/tasks", headers={"Authorization": f"Bearer {token}"}), detail)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"exp": int(time.time()) + 3600.5},
        {"nbf": 1},
        {"sub": "x" * 255},
        {"sub": "日本語"},
        {"email": 1, "name": ["x"]},
        {"email": "a\0", "name": "x" * 1001},
        {"iss": "https://anybody.example"},
    ],
)
def test_a_sound_token_is_accepted_and_its_user_can_write(anonymous: Client, changes: dict[str, Any]) -> None:
    token = jwt.encode(claims(**changes), SECRET)
    headers = {"Authorization": f"Bearer {token}"}
    created = anonymous.post("/api/tasks", json={"title": "x"}, headers=headers)
    assert (created.status_code, created.json()["user_id"]) == (201, changes.get("sub", "alice"))


@pytest.mark.parametrize("algorithm", [["EdDSA"], {"EdDSA": 1}, None, 1, True, "eddsa", "EdDSA\n"])
def test_an_algorithm_that_is_none_is_no_fault_beside_a_key_set(algorithm: Any) -> None:
    verifier = TokenVerifier(key_set=KeySet("http://127.0.0.1:1/"), origin="https://issuer.example")
    with pytest.raises(InvalidToken, match="not signed with an accepted algorithm"):
        asyncio.run(verifier.verify(by_hand({"alg": algorithm, "kid": "x"}, json.dumps(claims()).encode())))


def test_a_header_that_this_service_does_not_know_does_not_count(anonymous: Client) -> None:
    header = {"alg": "HS256", "jku": "http://127.0.0.1:1/", "x5c": ["x"], "jwk": {"kty": "oct", "k": "eHg"}, "kid": "x"}
    token = by_hand(header, json.dumps(claims()).encode())
    assert anonymous.get("/api/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.slow
def test_clocks_may_differ_by_five_seconds(anonymous: Client) -> None:
    now = int(time.time())
    for changes in ({"exp": now - 3}, {"iat": now + 4}, {"nbf": now + 4}):
        token = jwt.encode(claims(**changes), SECRET)
        assert anonymous.get("/api/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 200


@pytest.mark.slow
def test_issuer_and_audience_are_checked_where_they_are_set(
    make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    settings = make_settings(jwt_issuer="https://issuer.example", jwt_audience="tasks")
    right = {"iss": "https://issuer.example", "aud": "tasks"}
    refusals: dict[str, dict[str, Any]] = {
        "The token is from another issuer.": {"iss": "https://other.example"},
        "The token is for another audience.": {"aud": ["a", "b"]},
        "The token has no claim iss.": {"iss": ...},
        "The token has no claim aud.": {"aud": ...},
    }
    with Server(settings) as server, Client(server.url, conformance) as client:
        for audience in ("tasks", ["other", "tasks"]):
            token = jwt.encode(claims(**right | {"aud": audience}), SECRET)
            assert client.get("/api/tasks", headers={"Authorization": f"Bearer {token}"}).status_code == 200
        for detail, changes in refusals.items():
            token = jwt.encode(claims(**right | changes), SECRET)
            assert_refused(client.get("/api/tasks", headers={"Authorization": f"Bearer {token}"}), detail)


@pytest.mark.parametrize("audience", ["x", [], ""])
def test_the_log_names_the_setting_when_an_audience_is_not_configured(
    audience: Any, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING), pytest.raises(InvalidToken, match="another audience"):
        asyncio.run(TokenVerifier(secret=SECRET).verify(jwt.encode(claims(aud=audience), SECRET)))
    assert "JWT_AUDIENCE" in caplog.text


def test_the_user_is_made_from_the_claims_at_the_first_write(make_client: Callable[..., Client], database: Any) -> None:
    client = make_client(email="a@example.com", name="Alice")
    client.get("/api/tasks")
    assert user_row(database, client) == []
    client.create()
    assert user_row(database, client) == [{"email": "a@example.com", "name": "Alice"}]


def test_users_without_email_or_name_or_with_the_same_email_are_all_made(
    make_client: Callable[..., Client], database: Any
) -> None:
    for other in ({}, {"email": "same@example.com"}, {"email": "same@example.com"}):
        client = make_client(**other)
        client.create()
        assert user_row(database, client) == [{"email": other.get("email"), "name": None}]


def user_row(database: Any, client: Client) -> list[dict[str, Any]]:
    from sqlalchemy import select

    from models.user import User

    query = select(User.email, User.name).where(User.id == client.user)
    rows: list[dict[str, Any]] = database.rows(Scope.user(str(client.user)), query, {})
    return rows


@pytest.mark.slow
def test_a_remembered_token_is_refused_from_its_expiry_on(make_settings: Callable[..., Settings]) -> None:
    tokens = token_verifier(make_settings())
    token = tokens.sign({"sub": "alice"}, lifetime=3 - LEEWAY)  # with the leeway it counts for 2 to 3 s
    assert asyncio.run(tokens.verify(token)) == asyncio.run(tokens.verify(token))
    time.sleep(3.1)
    with pytest.raises(InvalidToken, match="expired"):
        asyncio.run(tokens.verify(token))


def test_a_remembered_token_says_nothing_about_one_with_another_signature(
    make_settings: Callable[..., Settings],
) -> None:
    tokens = token_verifier(make_settings())
    token = tokens.sign({"sub": "alice"}, lifetime=60)
    asyncio.run(tokens.verify(token))
    with pytest.raises(InvalidToken, match="signature"):
        asyncio.run(tokens.verify(token[:-9] + token[-9:-3].swapcase() + token[-3:]))


def test_no_more_than_some_tokens_are_remembered(
    make_settings: Callable[..., Settings], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tokens.verifier.REMEMBERED", 3)
    tokens = token_verifier(make_settings())
    signed = [tokens.sign({"sub": f"user {number}"}, lifetime=60) for number in range(5)]
    first = [asyncio.run(tokens.verify(token)) for token in signed]
    # What is remembered comes back as the same object. The newest first, since what is forgotten takes another's place.
    is_same = [asyncio.run(tokens.verify(signed[number])) is first[number] for number in (4, 3, 2, 1, 0)]
    assert is_same == [True, True, True, False, False]
