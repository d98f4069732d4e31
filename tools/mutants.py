"""Every mutant of the contract: the document with one constraint dropped, loosened, tightened or changed.

What stands in `components` is changed in its place, so that it counts once, however many refer to it. Not changed is
what only people read: info, tags, summaries, descriptions, examples, `bearerFormat`.
"""

import copy
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from openapi.contract import CONTROLLER, METHODS

Path = tuple[str | int, ...]
BOUNDS = ("minLength", "maxLength", "minimum", "maximum", "minItems", "maxItems", "minProperties", "maxProperties")
OTHER_TYPE = {"string": "integer", "integer": "string", "boolean": "string", "array": "string", "object": "string"}
OTHER_FORMAT = {"uuid": "date-time", "date-time": "uuid", "if-match": "uuid", "if-none-match": "uuid"}
QUANTIFIER = re.compile(r"\{(\d+)(?:,(\d+))?\}")
CHARACTER_CLASS = re.compile(r"\[(?:\\.|[^\]\\])+\]")


@dataclass(frozen=True)
class Mutant:
    """One change of the document: `change` gets the object that `path` leads to, and its last key."""

    name: str  # the place of the change, as a JSON pointer, and what is changed
    path: Path
    change: Callable[[Any, Any], None]

    def document(self, document: dict[str, Any]) -> dict[str, Any]:
        """Return the changed document."""
        changed = copy.deepcopy(document)
        self.change(_at(changed, self.path[:-1]), self.path[-1])
        return changed


def mutants(document: dict[str, Any]) -> Iterator[Mutant]:
    """Yield every mutant of the contract."""
    yield _put(("servers", 0, "url"), "/v2", "changed")
    yield from _security(document, ())
    for scheme in document["components"]["securitySchemes"]:
        yield _drop(("components", "securitySchemes", scheme, "x-bearerInfoFunc"))
        yield _put(("components", "securitySchemes", scheme, "scheme"), "basic", "changed")
    operations = [
        ("paths", path, method) for path, item in document["paths"].items() for method in METHODS if method in item
    ]
    for path in document["paths"]:
        yield _drop(("paths", path))
        yield _rename(("paths", path), f"{path}-renamed")
        yield from _parameters(document, ("paths", path))
    for number, operation in enumerate(operations):
        other = operations[(number + 1) % len(operations)]
        yield from _operation(document, operation, _at(document, other)["operationId"])
    components = document["components"]
    for name in components["parameters"]:
        yield from _parameter(document, ("components", "parameters", name))
    for name in components["headers"]:
        yield from _header(document, ("components", "headers", name))
    for name in components["schemas"]:
        yield from _schema(document, ("components", "schemas", name))
    for name in components["responses"]:
        yield from _response(document, ("components", "responses", name))
    for name, link in components["links"].items():
        yield from _link(("components", "links", name), link)


def _at(document: Any, path: Path) -> Any:
    for step in path:
        document = document[step]
    return document


def _name(path: Path, kind: str) -> str:
    return "".join("/" + str(step).replace("~", "~0").replace("/", "~1") for step in path) + f" {kind}"


def _drop(path: Path, kind: str = "dropped") -> Mutant:
    return Mutant(_name(path, kind), path, lambda node, key: node.pop(key))


def _put(path: Path, value: Any, kind: str, *, place: Path | None = None) -> Mutant:
    return Mutant(_name(place or path, kind), path, lambda node, key: node.__setitem__(key, copy.deepcopy(value)))


def _rename(path: Path, name: str) -> Mutant:
    def rename(node: dict[str, Any], key: str) -> None:
        renamed = {name if one == key else one: value for one, value in node.items()}
        node.clear()
        node.update(renamed)

    return Mutant(_name(path, f"renamed to {name}"), path, rename)


def _refer_to(document: dict[str, Any], path: Path) -> Mutant:
    """Let a reference lead to the next component of its kind."""
    target: str = _at(document, path)["$ref"]
    section, _, name = target.rpartition("/")
    names = list(document["components"][section.rpartition("/")[2]])
    other = names[(names.index(name) + 1) % len(names)]
    return _put((*path, "$ref"), f"{section}/{other}", f"leads to {other}")


def _security(document: dict[str, Any], path: Path) -> Iterator[Mutant]:
    node = _at(document, path)
    place = (*path, "security")
    if node.get("security") != []:
        yield _put(place, [], "none")
        yield _put(place, [{"bearer": []}, {}], "optional")
    if "security" in node:
        yield _drop(place)


def _operation(document: dict[str, Any], path: Path, another_id: str) -> Iterator[Mutant]:
    operation = _at(document, path)
    yield _drop(path)
    yield _rename(path, "trace")
    yield _put((*path, "operationId"), another_id, "as another's")
    yield _drop((*path, "operationId"))
    yield _drop((*path, CONTROLLER))
    yield _put((*path, CONTROLLER), "handlers.conditions", "changed")
    yield from _security(document, path)
    yield from _parameters(document, path)
    for place in ("query", "header"):
        for name in ("extra", "user"):  # which no handler takes, and which once stood for the caller
            added = {"name": name, "in": place, "schema": {"type": "string", "maxLength": 9}}
            parameters = [*operation.get("parameters", []), added]
            yield _put((*path, "parameters"), parameters, f"with {name} in {place}")
    if "requestBody" in operation:
        body = (*path, "requestBody")
        yield _drop(body)
        yield _put((*body, "required"), not operation["requestBody"]["required"], "flipped")
        yield from _content(document, body)
    for status, answer in operation["responses"].items():
        response = (*path, "responses", status)
        yield _drop(response)
        yield _rename(response, "299" if status < "300" else "499")
        if "$ref" in answer:
            yield _refer_to(document, response)
        else:
            yield from _response(document, response)
    yield _put((*path, "responses", "418"), {"$ref": "#/components/responses/BadRequest"}, "added")


def _parameters(document: dict[str, Any], path: Path) -> Iterator[Mutant]:
    for index, _ in enumerate(_at(document, path).get("parameters", [])):
        yield _drop((*path, "parameters", index))


def _parameter(document: dict[str, Any], path: Path) -> Iterator[Mutant]:
    parameter = _at(document, path)
    yield _put((*path, "name"), "renamed", "changed")
    yield _put((*path, "in"), "header" if parameter["in"] == "query" else "query", "changed")
    yield _put((*path, "required"), not parameter.get("required", False), "flipped")
    if parameter["in"] != "path" and parameter["schema"].get("type") != "array":  # where a value can be there twice
        yield _put((*path, "x-list"), not parameter.get("x-list", False), "flipped")
    if parameter.get("explode"):
        yield _put((*path, "explode"), False, "flipped")
        yield _put((*path, "style"), "pipeDelimited", "changed")
    yield from _schema(document, (*path, "schema"), is_text=True)


def _response(document: dict[str, Any], path: Path) -> Iterator[Mutant]:
    answer = _at(document, path)
    for name, header in answer.get("headers", {}).items():
        yield _drop((*path, "headers", name))
        yield _rename((*path, "headers", name), f"{name}-Renamed")
        if "$ref" not in header:
            yield from _header(document, (*path, "headers", name))
    yield _put((*path, "headers", "X-Extra"), {"schema": {"type": "string", "maxLength": 9}}, "added")
    if "content" in answer:
        yield _drop((*path, "content"))
        yield from _content(document, path)
    for name in answer.get("links", {}):
        yield _drop((*path, "links", name))
        yield _refer_to(document, (*path, "links", name))


def _header(document: dict[str, Any], path: Path) -> Iterator[Mutant]:
    yield _put((*path, "required"), not _at(document, path).get("required", False), "flipped")
    yield from _schema(document, (*path, "schema"), is_text=True)


def _content(document: dict[str, Any], path: Path) -> Iterator[Mutant]:
    content = _at(document, path)["content"]
    for media_type in content:
        place = (*path, "content", media_type)
        if len(content) > 1:
            yield _drop(place)
        yield _rename(place, "application/renamed+json")
        yield _drop((*place, "schema"))
        yield from _schema(document, (*place, "schema"))
    yield _put((*path, "content", "text/plain"), next(iter(content.values())), "added")


def _link(path: Path, link: dict[str, Any]) -> Iterator[Mutant]:
    yield _drop((*path, "parameters"))
    yield _put((*path, "operationId"), "list_tasks", "changed")
    for name in link["parameters"]:
        yield _put((*path, "parameters", name), "$response.body#/title", "changed")


def _schema(document: dict[str, Any], path: Path, *, is_text: bool = False) -> Iterator[Mutant]:
    """Change a schema; `is_text` for that of a parameter or header, where nothing is ever null."""
    schema = _at(document, path)
    if "$ref" in schema:
        yield _refer_to(document, path)
        return
    yield _drop((*path, "type"))
    yield _put((*path, "type"), OTHER_TYPE[schema["type"]], "changed")
    if not is_text:
        yield _put((*path, "nullable"), not schema.get("nullable", False), "flipped")
    for bound in BOUNDS:
        if bound in schema:
            yield _drop((*path, bound))
            yield from (
                _put((*path, bound), schema[bound] + step, f"{step:+}") for step in (-1, 1) if schema[bound] + step >= 0
            )
    if "format" in schema:
        yield _drop((*path, "format"))
        yield _put((*path, "format"), OTHER_FORMAT[schema["format"]], "changed")
    yield from _pattern(schema, path)
    yield from _values(schema, path)
    if "uniqueItems" in schema:
        yield _put((*path, "uniqueItems"), False, "flipped")
    if "items" in schema:
        yield from _schema(document, (*path, "items"), is_text=is_text)
    if "properties" in schema:
        yield from _properties(document, schema, path)


def _pattern(schema: dict[str, Any], path: Path) -> Iterator[Mutant]:
    pattern = schema.get("pattern", "")
    if pattern:
        yield _drop((*path, "pattern"))
    changed = {"without ^": pattern.removeprefix("^"), "without $": pattern.removesuffix("$")}
    for found in QUANTIFIER.finditer(pattern):
        for group in (1, 2):
            for step in (-1, 1):
                if found[group] and (number := int(found[group]) + step) >= 0:
                    text = f"{pattern[: found.start(group)]}{number}{pattern[found.end(group) :]}"
                    changed[f"{found[group]}{step:+} at {found.start(group)}"] = text
    for found in CHARACTER_CLASS.finditer(pattern):
        changed[f"any at {found.start()}"] = f"{pattern[: found.start()]}[\\s\\S]{pattern[found.end() :]}"
    for position, (character, other) in ((p, (c, "*+"[c == "*"])) for p, c in enumerate(pattern) if c in "*+"):
        if position and pattern[position - 1] == "]":
            changed[f"{character} as {other} at {position}"] = f"{pattern[:position]}{other}{pattern[position + 1 :]}"
    for found in re.finditer(r"\)\?", pattern):
        changed[f"no choice at {found.start()}"] = f"{pattern[: found.start()]}){pattern[found.end() :]}"
    yield from (_put((*path, "pattern"), text, kind) for kind, text in changed.items() if text != pattern)


def _values(schema: dict[str, Any], path: Path) -> Iterator[Mutant]:
    for index, value in enumerate(schema.get("enum", [])):
        yield _drop((*path, "enum", index), f"{value} dropped")
    if "enum" in schema:
        yield _drop((*path, "enum"))
        yield _put((*path, "enum"), [*schema["enum"], "another"], "another added")
    if "default" in schema:
        default = schema["default"]
        yield _drop((*path, "default"))
        if "enum" in schema:
            yield from (_put((*path, "default"), one, f"as {one}") for one in schema["enum"] if one != default)
        else:
            yield _put((*path, "default"), not default if schema["type"] == "boolean" else default - 1, "changed")


def _properties(document: dict[str, Any], schema: dict[str, Any], path: Path) -> Iterator[Mutant]:
    yield _drop((*path, "additionalProperties"))
    yield _put((*path, "additionalProperties"), True, "allowed")
    yield _put((*path, "properties", "extra"), {"type": "string", "maxLength": 9}, "added")
    required = schema.get("required", [])
    for name in required:
        rest = [one for one in required if one != name]
        yield _put((*path, "required"), rest, f"{name} dropped") if rest else _drop((*path, "required"))
    for name in schema["properties"]:
        if name not in required:
            yield _put((*path, "required"), [*required, name], f"{name} added")
        yield from _property(schema, path, name)
        yield from _schema(document, (*path, "properties", name))


def _property(schema: dict[str, Any], path: Path, name: str) -> Iterator[Mutant]:
    """Drop and rename a property, also where it is required."""
    properties, required = schema["properties"], schema.get("required", [])
    for kind, kept in (("dropped", {}), ("renamed", {name: f"{name}_renamed"})):
        names = {one: kept.get(one, one) for one in properties if one != name or kept}
        changed = schema | {"properties": {names[one]: value for one, value in properties.items() if one in names}}
        changed["required"] = [names[one] for one in required if one in names]
        if not changed["required"]:
            del changed["required"]
        yield _put(path, changed, kind, place=(*path, "properties", name))
