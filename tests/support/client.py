"""An HTTP client that holds every answer to the contract, and the one helper that checks an error whole."""

import re
from collections import defaultdict
from typing import Any

import httpx

from openapi.contract import Contract, canonical_path
from openapi.schemas import CompiledSchema

TITLES = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    412: "Precondition Failed",
    413: "Content Too Large",
    414: "URI Too Long",
    415: "Unsupported Media Type",
    422: "Unprocessable Content",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
# What any server, proxy or browser rule adds to any answer.
GENERAL_HEADERS = {
    "date",
    "content-length",
    "content-type",
    "vary",
    "transfer-encoding",
    "connection",
    "keep-alive",
    "content-encoding",
} | {
    "x-content-type-options",  # those of the contract's description
    "cache-control",
    "strict-transport-security",
}


class Conformance:
    """Checks that an answer is one that the contract declares, and remembers which declared ones were seen."""

    def __init__(self) -> None:
        self.contract = Contract()
        self.seen: dict[tuple[str, str], set[int]] = defaultdict(set)

    def check(self, response: httpx.Response) -> None:
        """Fail unless status, headers and body of the answer are as the contract says."""
        assert re.fullmatch(r"[A-Za-z0-9._-]{1,64}", response.headers["x-request-id"])
        match = self.contract.match(canonical_path(response.request.url.raw_path.decode().partition("?")[0]))
        operation = match and match.path_item.operations.get(response.request.method)
        if match is None or operation is None:
            return  # no operation's answer; tests of paths and methods look at it
        template = match.path_item.template
        declared = {int(status): answer for status, answer in operation.responses.items()}
        where = f"{response.request.method} {template} {response.status_code}"
        assert response.status_code in declared, f"{where} is not in the contract: {response.text}"
        self.seen[response.request.method, template].add(response.status_code)
        answer = declared[response.status_code]
        headers = {name.lower(): header for name, header in answer.get("headers", {}).items()}
        for name, header in headers.items():
            if name in response.headers:
                value: Any = response.headers[name]
                schema = {"description": name} | header["schema"]
                errors = CompiledSchema(schema).errors(
                    "header", int(value) if schema["type"] == "integer" else value, name
                )
                assert not errors, f"{where}: {errors}"
            else:
                assert not header.get("required"), f"{where} has no {name}"
        undeclared = set(response.headers) - set(headers) - GENERAL_HEADERS
        assert not {name for name in undeclared if not name.startswith("access-control-")}, (where, undeclared)
        self._check_body(where, answer.get("content", {}), response)

    def _check_body(self, where: str, content: dict[str, Any], response: httpx.Response) -> None:
        if not content:
            assert response.content == b"", where
            assert "content-type" not in response.headers, where
            return
        assert response.headers["content-type"] in content, where
        schema = content[response.headers["content-type"]]["schema"]
        errors = CompiledSchema(schema).errors("body", response.json())
        assert not errors, f"{where}: {errors}"


class Client(httpx.Client):
    """A client of one user."""

    def __init__(
        self, url: str, conformance: Conformance, *, token: str | None = None, user: str | None = None
    ) -> None:
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        # Without `verify` each client would read the certificates of all authorities, which takes 20 ms.
        super().__init__(base_url=url, headers=headers, timeout=30, trust_env=False, verify=False)
        self._conformance = conformance
        self.user = user

    def send(self, request: httpx.Request, **options: Any) -> httpx.Response:
        """Send a request and check the answer."""
        response = super().send(request, **options)
        if not options.get("stream"):
            self._conformance.check(response)
        return response

    def create(self, title: str = "A task", **fields: Any) -> dict[str, Any]:
        """Create a task and return it."""
        response = self.post("/api/tasks", json={"title": title, **fields})
        assert response.status_code == 201, response.text
        created: dict[str, Any] = response.json()
        return created

    def titles(self, **parameters: str) -> list[str]:
        """Return the titles of the listed tasks."""
        response = self.get("/api/tasks", params=parameters)
        assert response.status_code == 200, response.text
        return [task["title"] for task in response.json()]


def assert_problem(
    response: httpx.Response, status: int, code: str, detail: str, *errors: tuple[str, str, str]
) -> None:
    """Check a problem whole; each of `errors` is (in, pointer, detail)."""
    expected: dict[str, Any] = {
        "type": "about:blank",
        "title": TITLES[status],
        "status": status,
        "detail": detail,
        "code": code,
        "request_id": response.headers["x-request-id"],
    }
    if errors:
        expected["errors"] = [dict(zip(("in", "pointer", "detail"), error, strict=True)) for error in errors]
    assert (response.status_code, response.json()) == (status, expected)
    assert response.headers["content-type"] == "application/problem+json"
