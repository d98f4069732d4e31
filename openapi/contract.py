"""The contract as data: loaded, checked for what Connexion lets pass, and asked about paths."""

import copy
import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import yaml

CONTRACT = Path(__file__).parent / "contracts" / "rest-api.yaml"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # the same in C, where PyYAML was built with it
METHODS = ("get", "post", "put", "patch", "delete")


@dataclass(frozen=True)
class Endpoint:
    """One path of the contract with its operations."""

    template: str
    pattern: re.Pattern[str]
    operations: dict[str, dict[str, Any]]  # by method in upper case

    @property
    def allow(self) -> str:
        """The value of an `Allow` header (RFC 9110, section 10.2.1)."""
        return ", ".join([*self.operations, "OPTIONS"])


class Route(NamedTuple):
    """What the contract has at a path, and the parameters in that path."""

    endpoint: Endpoint
    parameters: dict[str, str]


class Contract:
    """The OpenAPI document of this service."""

    def __init__(self, path: Path | None = None) -> None:
        path = path or CONTRACT
        self.document: dict[str, Any] = yaml.load(path.read_bytes(), Loader)  # noqa: S506 (it is a safe one)
        self.endpoints = [
            Endpoint(
                template,
                re.compile(re.sub(r"\\\{(.*?)\\\}", r"(?P<\1>[^/]+)", re.escape(template))),
                {method.upper(): item[method] for method in METHODS if method in item},
            )
            for template, item in self.document["paths"].items()
        ]
        self._fixed = {endpoint.template: endpoint for endpoint in self.endpoints if "{" not in endpoint.template}
        identifiers = [operation.get("operationId") for operation in self._operations()]
        if None in identifiers:
            raise ValueError(f"{path}: an operation has no operationId, which names its handler")
        for identifier in identifiers:
            if identifiers.count(identifier) > 1:
                # Connexion would let the last one win, with the security of that one.
                raise ValueError(f"{path}: the operationId {identifier} is there more than once")

    def route(self, path: str) -> Route | None:
        """Return what the contract has at this path, which is already percent-decoded.

        A path without parameters goes before one that has them.
        """
        if path in self._fixed:
            return Route(self._fixed[path], {})
        for endpoint in self.endpoints:
            found = endpoint.pattern.fullmatch(path)
            if found:
                return Route(endpoint, found.groupdict())
        return None

    @cached_property
    def templates(self) -> dict[str, str]:
        """The path of each operationId."""
        return {
            operation["operationId"]: endpoint.template
            for endpoint in self.endpoints
            for operation in endpoint.operations.values()
        }

    @cached_property
    def request_headers(self) -> list[str]:
        """The headers that the service reads, beside those that every browser may send."""
        parameters = self.document["components"]["parameters"].values()
        own = [one["name"] for one in parameters if one["in"] == "header"]
        return ["Authorization", "X-Request-Id", *own]

    @cached_property
    def response_headers(self) -> list[str]:
        """The headers that the service sets."""
        answers = [
            answer
            for operation in self._operations()
            for answer in operation["responses"].values()
            if "headers" in answer
        ]
        answers += self.document["components"]["responses"].values()
        return sorted({"Allow", *(name for answer in answers for name in answer["headers"])})

    @cached_property
    def routed(self) -> dict[str, Any]:
        """The document for Connexion, which leaves out what is not the handlers' to answer.

        Connexion takes the media type of an answer from all answers of the operation. Its handlers give none of the
        errors; those are raised.
        """
        document = copy.deepcopy(self.document)
        for answer in document["components"]["responses"].values():
            answer.pop("content", None)
        # The middleware sets it, outside of Connexion's validation of answers.
        document["components"]["headers"]["X-Request-Id"]["required"] = False
        return document

    @cached_property
    def public(self) -> dict[str, Any]:
        """The document without the names of Python functions that only Connexion reads."""
        document = copy.deepcopy(self.document)
        for scheme in document["components"]["securitySchemes"].values():
            scheme.pop("x-bearerInfoFunc", None)
        return document

    def _operations(self) -> Iterator[dict[str, Any]]:
        for endpoint in self.endpoints:
            yield from endpoint.operations.values()
