"""What the answers tell browsers to keep to."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.client import Client
from tests.support.server import SECRET, ServerProcess

REQUESTS = [
    ("GET", "/api/tasks", {}),
    ("POST", "/api/tasks", {"json": {"title": "x"}}),
    ("POST", "/api/tasks", {"json": {}}),
    ("GET", "/api/me/export", {}),
    ("GET", "/api/tasks", {"headers": {"Authorization": "Bearer x"}}),
    ("GET", "/api/nothing", {}),
    ("DELETE", "/api/tasks", {}),
    ("OPTIONS", "/api/tasks", {}),
    ("GET", "/health", {}),
    ("GET", "/nothing", {}),
    ("GET", "/docs", {}),
    ("GET", "/docs/", {}),
    ("GET", "/docs/nothing", {}),
    ("POST", "/docs", {}),
    ("GET", "/docs/assets/swagger-ui.css", {}),
    ("GET", "/openapi.json", {}),
]


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_no_browser_guesses_what_an_answer_is(alice: Client, method: str, path: str, options: dict[str, Any]) -> None:
    assert alice.request(method, path, **options).headers.get_list("x-content-type-options") == ["nosniff"]


@pytest.mark.parametrize(("method", "path", "options"), REQUESTS)
def test_nothing_under_api_is_stored_by_a_cache(alice: Client, method: str, path: str, options: dict[str, Any]) -> None:
    stored = alice.request(method, path, **options).headers.get_list("cache-control")
    assert (stored == ["no-store"]) == path.startswith("/api")


def test_the_documentation_is_shown_in_no_frame_and_runs_only_its_own_scripts(anonymous: Client) -> None:
    for path in ("/docs", "/docs/", "/docs/nothing", "/docs/initializer.js", "/docs/assets/swagger-ui-bundle.js"):
        headers = anonymous.get(path).headers
        assert {name: headers[name] for name in ("x-frame-options", "referrer-policy")} == {
            "x-frame-options": "DENY",
            "referrer-policy": "no-referrer",
        }
        policy = dict(part.split(" ", 1) for part in headers["content-security-policy"].split("; "))
        assert policy == {
            "default-src": "'none'",
            "script-src": "'self'",
            "style-src": "'self'",
            "img-src": "'self' data:",
            "connect-src": "'self'",
            "base-uri": "'none'",
            "form-action": "'none'",
            "frame-ancestors": "'none'",
        }


@pytest.fixture(scope="module", params=["127.0.0.1", "10.0.0.0/8"])
def behind_proxy(
    request: pytest.FixtureRequest, database_url: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, bool]]:
    """The address of a server, and whether it believes a proxy on this machine."""
    directory: Path = tmp_path_factory.mktemp("proxy")
    settings = {"DATABASE_URL": database_url, "BETTER_AUTH_SECRET": SECRET, "FORWARDED_ALLOW_IPS": request.param}
    with ServerProcess(directory=directory, **settings) as server:
        yield server.url, request.param == "127.0.0.1"


@pytest.mark.parametrize("path", ["/health", "/api/tasks", "/docs", "/nothing"])
def test_browsers_stay_with_https_when_a_trusted_proxy_says_that_it_is(
    behind_proxy: tuple[str, bool], path: str
) -> None:
    url, is_trusted = behind_proxy
    headers = httpx.get(url + path, headers={"X-Forwarded-Proto": "https"}, trust_env=False).headers
    assert headers.get("strict-transport-security") == ("max-age=31536000" if is_trusted else None)
    assert "strict-transport-security" not in httpx.get(url + path, trust_env=False).headers
