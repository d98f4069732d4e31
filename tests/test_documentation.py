"""The documentation: Swagger UI 5 and the contract, served from here alone."""

import http.client
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import quote, urljoin, urlsplit

import flask_swagger_ui
import httpx
import pytest
import yaml

from openapi.contract import CONTRACT
from tests.support.client import Client, assert_problem
from tests.support.problems import NOT_FOUND
from tests.support.server import Server

ONLY_READ = (405, "method_not_allowed", "This path allows GET, HEAD.")


class References(HTMLParser):
    """Collects every URL that a page loads or links to."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.urls: list[str] = []
        self.feed(page)

    def handle_starttag(self, _tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.urls += [value for name, value in attrs if name in ("src", "href") and value]


def raw_get(url: str, path: str) -> httpx.Response:
    """Send a path as it is, which httpx would tidy up first."""
    connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
    try:
        connection.request("GET", path)
        response = connection.getresponse()
        return httpx.Response(response.status, headers=response.getheaders(), content=response.read())
    finally:
        connection.close()


def test_the_page_is_html_and_needs_no_token(anonymous: Client) -> None:
    response = anonymous.get("/docs")
    assert (response.status_code, response.headers["content-type"]) == (200, "text/html; charset=utf-8")


def test_everything_that_the_page_refers_to_is_there(anonymous: Client) -> None:
    urls = [urljoin("/docs", url) for url in References(anonymous.get("/docs").text).urls]
    assert {url.rsplit(".", 1)[1] for url in urls} == {"js", "css", "png"}
    assert {url: anonymous.get(url).status_code for url in urls} == dict.fromkeys(urls, 200)


def test_the_page_shows_the_contract_that_is_served(anonymous: Client) -> None:
    (url,) = re.findall(r'url: "(.*?)"', anonymous.get("/docs/initializer.js").text)
    assert urljoin("/docs", url) == "/openapi.json"


@pytest.mark.parametrize("path", ["/docs", "/docs/initializer.js"])
def test_the_page_refers_to_no_other_host(anonymous: Client, path: str) -> None:
    assert re.findall(r"""\w+://[^\s"']*|["'(=]//[^\s"']*""", anonymous.get(path).text) == []


def test_the_style_sheet_loads_nothing_from_another_host(anonymous: Client) -> None:
    style = anonymous.get("/docs/assets/swagger-ui.css").text
    assert re.findall(r"""url\((?!["']?data:)[^)]*\)|@import[^;]*""", style) == []


def test_swagger_ui_is_version_5(anonymous: Client) -> None:
    bundle = anonymous.get("/docs/assets/swagger-ui-bundle.js")
    assert bundle.headers["content-type"].startswith("text/javascript")
    assert re.findall(r'PACKAGE_VERSION:"(\d+)\.', bundle.text) == ["5"]


def test_the_page_behind_a_slash_leads_to_the_page(anonymous: Client) -> None:
    response = anonymous.get("/docs/")
    assert (response.status_code, response.headers["location"]) == (307, "../docs")
    assert response.next_request is not None
    assert response.next_request.url == anonymous.base_url.join("/docs")


def test_the_redirect_does_not_follow_the_host_header(anonymous: Client) -> None:
    response = anonymous.get("/docs/", headers={"Host": "elsewhere.example"})
    assert response.headers["location"] == "../docs"


SERVERS_OWN = ("x-bearerInfoFunc", "x-openapi-router-controller")


def without_functions(node: Any) -> Any:
    """Return the contract without what only the server reads."""
    if isinstance(node, dict):
        return {name: without_functions(value) for name, value in node.items() if name not in SERVERS_OWN}
    return [without_functions(one) for one in node] if isinstance(node, list) else node


def test_openapi_json_is_the_contract(anonymous: Client) -> None:
    response = anonymous.get("/openapi.json")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/json")
    assert response.json() == without_functions(yaml.safe_load(CONTRACT.read_text(encoding="utf-8")))


def test_openapi_yaml_is_the_same_document(anonymous: Client) -> None:
    response = anonymous.get("/openapi.yaml")
    assert (response.status_code, response.headers["content-type"]) == (200, "application/yaml")
    assert yaml.safe_load(response.text) == anonymous.get("/openapi.json").json()


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi.yaml"])
def test_the_served_contract_keeps_its_order(anonymous: Client, path: str) -> None:
    served = yaml.safe_load(anonymous.get(path).text)
    contract = without_functions(yaml.safe_load(CONTRACT.read_text(encoding="utf-8")))
    assert json.dumps(served) == json.dumps(contract)


@pytest.mark.parametrize("path", ["/openapi.json", "/openapi.yaml"])
def test_the_served_contract_names_no_module_or_function_of_the_server(anonymous: Client, path: str) -> None:
    text = anonymous.get(path).text
    assert [name for name in (*SERVERS_OWN, "bearer_info", "handlers", "openapi.") if name in text] == []


@pytest.mark.parametrize("path", ["/docs", "/docs/initializer.js", "/openapi.json", "/openapi.yaml"])
def test_what_changes_with_a_release_is_asked_for_again(anonymous: Client, path: str) -> None:
    assert anonymous.get(path).headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "path",
    [
        "/docs/assets/nothing.js",
        "/docs/assets/",
        "/docs/assets",
        "/docs/nothing",
        "/docsnothing",
        "/openapi.toml",
        "/docs/assets/" + "x" * 300,
        "/docs/assets/a%00b",
    ],
)
def test_an_unknown_file_is_not_found(server: Server, path: str) -> None:
    assert_problem(raw_get(server.url, path), *NOT_FOUND)


@pytest.mark.parametrize(
    "path", ["/docs", "/docs/", "/docs/initializer.js", "/docs/assets/swagger-ui.css", "/openapi.json", "/openapi.yaml"]
)
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_the_documentation_can_only_be_read(anonymous: Client, method: str, path: str) -> None:
    response = anonymous.request(method, path)
    assert_problem(response, *ONLY_READ)
    assert response.headers["allow"] == "GET, HEAD"


@pytest.mark.parametrize("path", ["/docs", "/docs/initializer.js", "/docs/assets/swagger-ui.css", "/openapi.json"])
def test_a_head_request_answers_as_get_without_the_body(anonymous: Client, path: str) -> None:
    head, get = anonymous.head(path), anonymous.get(path)
    assert (head.status_code, head.content) == (200, b"")
    for name in ("content-type", "content-length"):
        assert head.headers[name] == get.headers[name]


OUTSIDE = Path(flask_swagger_ui.__file__)  # one folder above the assets


@pytest.mark.parametrize(
    "path",
    [
        "../__init__.py",
        "%2e%2e/__init__.py",
        ".%2e/__init__.py",
        "..%2f__init__.py",
        "..%2F__init__.py",
        "..%5c__init__.py",
        "x/../../__init__.py",
        "..%2f..%2fflask_swagger_ui%2f__init__.py",
        "../dist/../__init__.py",
        quote(str(OUTSIDE)),
        "/" + quote(str(OUTSIDE)),
        quote(str(OUTSIDE), safe="").replace("%2F", "%2f"),
        "..%00/__init__.py",
        "../__init__.py%00.js",
    ],
)
def test_no_path_leaves_the_folder_of_the_assets(server: Server, path: str) -> None:
    assert OUTSIDE.name == "__init__.py"
    assert (OUTSIDE.parent / "dist").is_dir()
    response = raw_get(server.url, f"/docs/assets/{path}")
    assert_problem(response, *NOT_FOUND)
