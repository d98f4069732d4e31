"""The documentation and cross-origin calls in a real browser (FR-021)."""

import http.server
import json
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright

from openapi.contract import Contract
from settings.settings import Settings
from tests.support.browser import ARGUMENTS
from tests.support.client import Client, Conformance
from tests.support.hosts import HOSTS
from tests.support.server import Server

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

OPERATIONS = len(Contract().templates)

expect.set_options(timeout=30_000)  # milliseconds, as for everything else that Playwright waits for


@pytest.fixture(scope="module")
def launch() -> Iterator[Callable[[str], Browser]]:
    """Launch the browser at a path; once, however often it is asked for."""
    with sync_playwright() as playwright, ExitStack() as stack:

        @cache
        def launch(path: str) -> Browser:
            browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS)
            stack.callback(browser.close)
            return browser

        yield launch


@pytest.fixture
def page(launch: Callable[[str], Browser], need: Callable[..., str]) -> Iterator[Page]:
    """An empty page that shares no storage with those of other tests."""
    with launch(need("chromium", "chromium-browser")).new_context() as context:
        yield context.new_page()


@contextmanager
def watched(page: Page) -> Iterator[list[str]]:
    """Collect the errors in the page's console, its exceptions and its failed requests."""
    complaints: list[str] = []
    page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("requestfailed", lambda request: complaints.append(f"{request.url}: {request.failure}"))
    yield complaints
    page.wait_for_load_state("networkidle")


def authorize(page: Page, token: str) -> None:
    """Enter the token as a reader of the documentation does."""
    page.get_by_role("button", name="Authorize").first.click()
    dialog = page.locator(".modal-ux")
    dialog.get_by_role("textbox").fill(token)
    dialog.get_by_role("button", name="Apply credentials").click()
    expect(dialog.get_by_text("Authorized")).to_be_visible()
    dialog.get_by_role("button", name="Close", exact=True).click()


def open_operation(page: Page, method: str, path: str) -> Locator:
    """Unfold an operation and return it, ready to be tried out."""
    operation = page.locator(f".opblock-{method}").filter(has=page.locator(f'[data-path="{path}"]'))
    operation.locator(".opblock-summary-control").first.click()
    expect(operation.get_by_role("button", name="Execute")).to_be_visible()
    return operation


def execute(operation: Locator) -> tuple[str, str]:
    """Send the request and return the status and the body that the page shows."""
    operation.get_by_role("button", name="Execute").click()
    answer = operation.locator(".live-responses-table .response")
    expect(answer).to_be_visible()
    return (
        answer.locator(".response-col_status").inner_text().split()[0],
        answer.locator(".response-col_description .highlight-code code").first.inner_text(),
    )


def test_a_task_is_created_through_the_documentation(page: Page, server: Server, alice: Client) -> None:
    page.goto(f"{server.url}/docs")
    authorize(page, alice.headers["authorization"].removeprefix("Bearer "))
    operation = open_operation(page, "post", "/api/tasks")
    operation.locator("textarea.body-param__text").fill(json.dumps({"title": "Written in the browser"}))
    status, body = execute(operation)
    assert status == "201"
    assert alice.get("/api/tasks").json() == [json.loads(body)]
    assert alice.titles() == ["Written in the browser"]


def test_the_token_is_remembered_across_a_reload(page: Page, server: Server, alice: Client) -> None:
    task = alice.create("Seen after the reload")
    page.goto(f"{server.url}/docs")
    authorize(page, alice.headers["authorization"].removeprefix("Bearer "))
    page.reload()
    status, body = execute(open_operation(page, "get", "/api/tasks"))
    assert (status, json.loads(body)) == ("200", [task])


def test_without_a_token_the_documentation_shows_the_401(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    status, body = execute(open_operation(page, "get", "/api/tasks"))
    assert (status, json.loads(body)["code"]) == ("401", "missing_token")


def test_the_documentation_asks_no_other_host(page: Page, server: Server, alice: Client) -> None:
    hosts: set[str] = set()
    page.on("request", lambda request: hosts.add(urlsplit(request.url).netloc))
    page.goto(f"{server.url}/docs")
    authorize(page, alice.headers["authorization"].removeprefix("Bearer "))
    execute(open_operation(page, "get", "/api/tasks"))
    page.wait_for_load_state("networkidle")
    assert hosts == {urlsplit(server.url).netloc}


def test_the_documentation_has_no_fault(page: Page, server: Server, alice: Client) -> None:
    with watched(page) as complaints:
        page.goto(f"{server.url}/docs")
        authorize(page, alice.headers["authorization"].removeprefix("Bearer "))
        execute(open_operation(page, "get", "/api/tasks"))
    assert complaints == []


def test_the_documentation_keeps_to_its_security_policy_under_any_name(
    page: Page, server: Server, alice: Client
) -> None:
    page.add_init_script(
        "window.violations = []; document.addEventListener('securitypolicyviolation',"
        " event => window.violations.push(event.violatedDirective + ' ' + event.blockedURI))"
    )
    with watched(page) as complaints:
        page.goto(f"{server.url.replace('127.0.0.1', 'tasks.example')}/docs")
        authorize(page, alice.headers["authorization"].removeprefix("Bearer "))
        execute(open_operation(page, "get", "/api/tasks"))
        page.locator(".models-control").click()
    assert (complaints, page.evaluate("window.violations")) == ([], [])


def test_the_documentation_has_no_fault_after_a_reload(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    open_operation(page, "get", "/api/tasks")
    with watched(page) as complaints:
        page.reload()
        expect(page.locator(".opblock")).to_have_count(OPERATIONS)
    assert complaints == []


def test_every_operation_stands_in_the_documentation(page: Page, server: Server) -> None:
    page.goto(f"{server.url}/docs")
    expect(page.locator(".opblock")).to_have_count(OPERATIONS)
    shown = {
        (block.locator(".opblock-summary-method").inner_text(), block.locator("[data-path]").get_attribute("data-path"))
        for block in page.locator(".opblock").all()
    }
    assert shown == {(method, one.template) for one in Contract().path_items for method in one.operations}


# Calls from other origins


class Blank(http.server.BaseHTTPRequestHandler):
    """Serves an empty page at every path."""

    def do_GET(self) -> None:
        content = b"<!DOCTYPE html><title>A frontend</title><link rel=icon href=data:,>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def blank_site() -> Iterator[str]:
    """Serve an empty page and give its origin."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Blank) as site:
        thread = threading.Thread(target=site.serve_forever, args=(0.02,))
        thread.start()
        yield f"http://127.0.0.1:{site.server_port}"
        site.shutdown()
        thread.join()


@pytest.fixture(scope="module")
def frontend() -> Iterator[str]:
    """The origin of a frontend that is allowed to call the API."""
    with blank_site() as origin:
        yield origin


@pytest.fixture
def stranger() -> Iterator[str]:
    """The origin of a page that is not."""
    with blank_site() as origin:
        yield origin


@pytest.fixture(scope="module", params=HOSTS)
def api(request: pytest.FixtureRequest, make_settings: Callable[..., Settings], frontend: str) -> Iterator[Server]:
    """The API, which knows the frontend."""
    with Server(make_settings(server_framework=request.param, cors_origins=(frontend,))) as server:
        yield server


@pytest.fixture
def carol(api: Server, conformance: Conformance) -> Iterator[Client]:
    """A client of that API, with the token that the frontend uses."""
    with Client(api.url, conformance, token=api.token(sub=f"carol-{secrets.token_hex(6)}")) as client:
        yield client


CALL = """async ({url, method, token, body}) => {
    const options = {method, credentials: "include", headers: {"X-Request-Id": "from-the-browser"}};
    if (token) options.headers.Authorization = token;
    if (body !== null) {
        options.headers["Content-Type"] = "application/json";
        options.body = JSON.stringify(body);
    }
    try {
        const response = await fetch(url, options);
        const text = await response.text();
        return {
            status: response.status,
            body: text ? JSON.parse(text) : null,
            location: response.headers.get("Location"),
            id: response.headers.get("X-Request-Id"),
            challenge: response.headers.get("WWW-Authenticate"),
        };
    } catch (error) {
        return {error: error.name};
    }
}"""


def call(page: Page, client: Client, method: str, path: str, body: Any = None, token: str = "") -> dict[str, Any]:
    """Have the page call the API as its user, and return what it could read."""
    url = str(client.base_url.join(path))
    token = token or client.headers["authorization"]
    read: dict[str, Any] = page.evaluate(CALL, {"url": url, "method": method, "token": token, "body": body})
    return read


def test_a_frontend_on_an_allowed_origin_uses_every_method(page: Page, frontend: str, carol: Client) -> None:
    page.goto(frontend)
    created = call(page, carol, "POST", "/api/tasks", {"title": "From afar"})
    assert (created["status"], created["body"]["title"]) == (201, "From afar")
    task = f"/api/tasks/{created['body']['id']}"
    assert call(page, carol, "GET", "/api/tasks")["body"] == [created["body"]]
    assert call(page, carol, "GET", task)["body"] == created["body"]
    assert call(page, carol, "PUT", task, {"priority": "high"})["body"]["priority"] == "high"
    assert call(page, carol, "PATCH", f"{task}/complete")["body"]["completed"] is True
    assert call(page, carol, "DELETE", task)["status"] == 204
    assert carol.titles() == []


def test_a_frontend_reads_the_headers_that_the_api_sets(page: Page, frontend: str, carol: Client) -> None:
    page.goto(frontend)
    created = call(page, carol, "POST", "/api/tasks", {"title": "From afar"})
    assert created["location"] == f"/api/tasks/{created['body']['id']}"
    assert created["id"] == "from-the-browser"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/tasks", {}, 400),
        ("GET", "/api/tasks/8e4c9a0e-3f5b-4c86-9d0f-0a4b5f2f7a11", None, 404),
        ("DELETE", "/api/tasks", None, 405),
        ("GET", "/nothing", None, 404),
    ],
)
def test_a_frontend_reads_the_detail_of_an_error(
    page: Page, frontend: str, carol: Client, method: str, path: str, body: Any, status: int
) -> None:
    page.goto(frontend)
    answer = call(page, carol, method, path, body)
    assert (answer["status"], answer["body"]["detail"]) == (
        status,
        carol.request(method, path, json=body).json()["detail"],
    )


def test_a_frontend_reads_why_its_token_was_refused(page: Page, frontend: str, api: Server, carol: Client) -> None:
    page.goto(frontend)
    answer = call(page, carol, "GET", "/api/tasks", token=f"Bearer {api.token(-60, sub='carol')}")
    assert (answer["status"], answer["body"]["detail"]) == (401, "The token has expired.")
    assert answer["challenge"].startswith('Bearer realm="tasks-api", error="invalid_token"')


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_page_on_another_origin_cannot_use_the_api(page: Page, stranger: str, carol: Client, method: str) -> None:
    page.goto(stranger)
    body = {"title": "From a stranger"} if method == "POST" else None
    assert call(page, carol, method, "/api/tasks", body) == {"error": "TypeError"}
    assert carol.titles() == []


def test_a_page_on_another_origin_cannot_read_a_simple_answer(page: Page, stranger: str, carol: Client) -> None:
    page.goto(stranger)
    read = page.evaluate(
        "url => fetch(url, {credentials: 'include'}).then(response => response.text(), error => error.name)",
        str(carol.base_url.join("/health")),
    )
    assert read == "TypeError"
