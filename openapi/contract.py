"""The contract as data: its paths, operations and parameters."""

import copy
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote, unquote

import yaml

CONTRACT = Path(__file__).parent / "contracts" / "rest-api.yaml"
Loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # in C if PyYAML was built with it
METHODS = ("get", "post", "put", "patch", "delete")
CONTROLLER = "x-openapi-router-controller"  # the module of an operation's handler

ESCAPE = re.compile("%[0-9A-Fa-f]{2}")
UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")

Node = dict[str, Any]


def canonical_path(raw_path: str) -> str:
    """Return the one spelling of a path that all equivalent ones share (RFC 3986, section 6.2.2).

    Letters, digits and `-._~` are decoded. What else is encoded stays so: an encoded slash separates no segments.
    """
    return ESCAPE.sub(_canonical_escape, raw_path) if "%" in raw_path else raw_path


def _canonical_escape(escape: re.Match[str]) -> str:
    character = unquote(escape[0], "latin-1")
    return character if character in UNRESERVED else escape[0].upper()


class InvalidContract(Exception):
    """The service cannot fulfil the contract; the message says where and why."""


@dataclass(frozen=True)
class Parameter:
    """A parameter of an operation, with all references resolved."""

    place: str
    name: str
    schema: Node
    is_required: bool
    is_list: bool  # repeated headers of this name form one list

    @property
    def argument(self) -> str:
        """The name of the handler's argument."""
        return (self.name.lower() if self.place == "header" else self.name).replace("-", "_")


@dataclass(frozen=True)
class Operation:
    """An operation of a path, with all references resolved."""

    id: str
    handler: str  # the dotted name of the function
    parameters: tuple[Parameter, ...]
    bodies: Mapping[str, Node]  # the schema of each media type
    is_body_required: bool
    responses: Node

    @property
    def has_entity_tag(self) -> bool:
        """Tell whether a successful response has an entity tag."""
        success = self.responses.get("200") or self.responses.get("201") or {}
        return "ETag" in success.get("headers", {})

    @classmethod
    def of(cls, item: Node, operation: Node) -> "Operation":
        """Make an operation, which inherits the parameters of its path."""
        body = operation.get("requestBody", {})
        return cls(
            id=operation["operationId"],
            handler=f"{operation[CONTROLLER]}.{operation['operationId']}",
            parameters=tuple(
                Parameter(one["in"], one["name"], one["schema"], one.get("required", False), one.get("x-list", False))
                for one in (*item.get("parameters", ()), *operation.get("parameters", ()))
            ),
            bodies={media_type: content["schema"] for media_type, content in body.get("content", {}).items()},
            is_body_required=body.get("required", False),
            responses=operation["responses"],
        )


@dataclass(frozen=True)
class PathItem:
    """A path of the contract with its operations by upper-case method (OpenAPI 3.0.3, section 4.7.9)."""

    template: str
    pattern: re.Pattern[str]
    operations: Mapping[str, Operation]

    @property
    def allow(self) -> str:
        """The value of an `Allow` header (RFC 9110, section 10.2.1)."""
        return ", ".join([*self.operations, "OPTIONS"])


class Match(NamedTuple):
    """The path item at a request's path, and the parameters in that path."""

    path_item: PathItem
    parameters: dict[str, str]


class Contract:
    """The OpenAPI document of this service. Raises InvalidContract."""

    def __init__(self, path: Path | None = None) -> None:
        path = path or CONTRACT
        self.document: Node = yaml.load(path.read_bytes(), Loader)  # noqa: S506 (it is a safe one)
        self._check_operation_ids()
        self.path_items = [
            PathItem(
                template,
                re.compile(re.sub(r"\\\{(.*?)\\\}", r"(?P<\1>[^/]+)", re.escape(template))),
                {method.upper(): Operation.of(item, item[method]) for method in METHODS if method in item},
            )
            for template, item in self.resolve(self.document["paths"]).items()
        ]
        self._fixed = {item.template: item for item in self.path_items if "{" not in item.template}
        self.templates = {one.id: item.template for item in self.path_items for one in item.operations.values()}

    @property
    def operations(self) -> Iterator[Operation]:
        """Every operation."""
        return (operation for item in self.path_items for operation in item.operations.values())

    def match(self, path: str) -> Match | None:
        """Return what the contract has at a path in its canonical form; one without parameters takes precedence.

        The parameters are percent-decoded; bytes that are no UTF-8 become lone surrogates.
        """
        if path in self._fixed:
            return Match(self._fixed[path], {})
        for item in self.path_items:
            if found := item.pattern.fullmatch(path):
                texts = found.groupdict()
                return Match(item, {name: unquote(text, errors="surrogateescape") for name, text in texts.items()})
        return None

    def url_for(self, operation_id: str, **parameters: object) -> str:
        """Return the path of an operation with its parameters filled in."""
        return self.templates[operation_id].format(**{name: quote(str(one)) for name, one in parameters.items()})

    def resolve(self, node: Any) -> Any:
        """Return a part of the document with every reference replaced by its target."""
        if isinstance(node, list):
            return [self.resolve(one) for one in node]
        if not isinstance(node, dict):
            return node
        while "$ref" in node:
            target: Any = self.document
            for step in node["$ref"].removeprefix("#/").split("/"):
                target = target[step]
            node = target
        return {name: self.resolve(value) for name, value in node.items()}

    @property
    def request_headers(self) -> list[str]:
        """The headers that the service reads, apart from those that any browser may send."""
        parameters = self.document["components"]["parameters"].values()
        return ["Authorization", "X-Request-Id", *(one["name"] for one in parameters if one["in"] == "header")]

    @property
    def response_headers(self) -> list[str]:
        """The headers that the service sets."""
        responses = [response for operation in self.operations for response in operation.responses.values()]
        return sorted({"Allow", *(name for response in responses for name in response.get("headers", ()))})

    @cached_property
    def public(self) -> Node:
        """The document without the names of Python modules and functions, which only Connexion needs."""
        document = copy.deepcopy(self.document)
        for scheme in document["components"]["securitySchemes"].values():
            scheme.pop("x-bearerInfoFunc", None)
        for item in document["paths"].values():
            for method in METHODS:
                item.get(method, {}).pop(CONTROLLER, None)
        return document

    def _check_operation_ids(self) -> None:
        items = self.document["paths"].values()
        operations = [item[method] for item in items for method in METHODS if method in item]
        if not all("operationId" in one and CONTROLLER in one for one in operations):
            raise InvalidContract(f"The contract has an operation without operationId or {CONTROLLER}.")
        identifiers = [one["operationId"] for one in operations]
        for identifier in identifiers:
            if identifiers.count(identifier) > 1:
                # In Connexion the last one would win, with its security.
                raise InvalidContract(f"The contract has the operationId {identifier} more than once.")
