"""Answers are compressed for clients that ask for it, where that pays."""

import httpx
import pytest

from tests.support.client import Client


def body_as_sent(client: Client, path: str, accept: str) -> tuple[httpx.Headers, bytes]:
    with client.stream("GET", path, headers={"Accept-Encoding": accept}) as response:
        return response.headers, b"".join(response.iter_raw())


@pytest.fixture
def long_list(alice: Client) -> Client:
    for number in range(10):
        alice.create(f"Task {number}", description="the same words " * 20)
    return alice


@pytest.mark.parametrize("path", ["/api/tasks", "/api/me/export", "/openapi.json", "/openapi.yaml"])
def test_a_long_answer_is_compressed_when_asked_for(long_list: Client, path: str) -> None:
    plain_headers, plain = body_as_sent(long_list, path, "identity")
    headers, sent = body_as_sent(long_list, path, "br, gzip")
    assert "content-encoding" not in plain_headers
    assert headers["content-encoding"] == "gzip"
    assert len(sent) < len(plain) / 2
    assert "accept-encoding" in headers["vary"].lower()
    assert long_list.get(path).content == plain


def test_a_short_answer_is_not_compressed(alice: Client) -> None:
    headers, _ = body_as_sent(alice, "/api/me", "gzip")
    assert "content-encoding" not in headers


@pytest.mark.parametrize(
    ("accept", "is_compressed"),
    [
        ("gzip", True),
        ("x-gzip", True),
        ("GZIP ; Q=0.5", True),
        ("*", True),
        ("br;q=1, *;q=0.1", True),
        ("gzip;q=1.000, identity;q=0", True),
        ("gzip\t;\tq=0.001", True),
        ("", False),
        ("identity", False),
        ("br, zstd", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, br", False),
        ("gzip; q=0, *", False),
        ("x-gzip;q=0, *", False),
        ("*;q=0", False),
        ("identity;q=0, *;q=0", False),
        ("gzip;q=0.5, identity", False),
        ("gzip;q=high", False),
        ("gzip;q=2", False),
        ("gzipped", False),
        ("notgzip", False),
    ],
)
def test_an_answer_is_compressed_as_the_client_weighs_it(long_list: Client, accept: str, is_compressed: bool) -> None:
    headers, _ = body_as_sent(long_list, "/api/tasks", accept)
    assert (headers.get("content-encoding") == "gzip") == is_compressed
    assert "accept-encoding" in headers["vary"].lower()


def test_an_answer_with_an_entity_tag_is_not_compressed(alice: Client) -> None:
    task = alice.create("Long", description="the same words " * 66)
    headers, sent = body_as_sent(alice, f"/api/tasks/{task['id']}", "gzip")
    assert len(sent) > 1024
    assert "content-encoding" not in headers


def test_an_error_is_as_readable_as_ever(long_list: Client) -> None:
    response = long_list.get("/api/tasks?" + "&".join(f"unknown{number}=1" for number in range(20)))
    assert response.headers["content-encoding"] == "gzip"
    assert len(response.json()["errors"]) == 20
