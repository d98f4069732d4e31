"""The contract keeps its own rules: every bound named, every error shared, every body with an example."""

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from connexion.utils import get_function_from_name

from openapi.contract import CONTRACT, Contract
from openapi.problems import DOMAIN_ERRORS, FRAMEWORK_ERRORS, INTERNAL_ERROR, NO_PATH
from openapi.validation import CompiledSchema, check_formats
from tests.client import Conformance

contract = Contract()
OPERATIONS = {
    operation["operationId"]: operation for endpoint in contract.endpoints for operation in endpoint.operations.values()
}


def nodes(node: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk all objects of the document with their places."""
    if isinstance(node, dict):
        yield path, node
        for name, value in node.items():
            yield from nodes(value, f"{path}/{name}")
    elif isinstance(node, list):
        for index, value in enumerate(node):
            yield from nodes(value, f"{path}/{index}")


def schemas() -> Iterator[tuple[str, dict[str, Any]]]:
    for path, node in nodes(contract.document):
        if isinstance(node.get("type"), str) and "/example" not in path and "securitySchemes" not in path:
            yield path, node


def test_it_is_openapi_3_0_3_with_the_operations_of_the_specification() -> None:
    assert contract.document["openapi"] == "3.0.3"
    assert set(contract.templates.items()) == {
        ("handlers.tasks.list_tasks", "/api/tasks"),
        ("handlers.tasks.create_task", "/api/tasks"),
        ("handlers.tasks.get_task", "/api/tasks/{id}"),
        ("handlers.tasks.update_task", "/api/tasks/{id}"),
        ("handlers.tasks.patch_task", "/api/tasks/{id}"),
        ("handlers.tasks.delete_task", "/api/tasks/{id}"),
        ("handlers.tasks.complete_task", "/api/tasks/{id}/complete"),
        ("handlers.me.get_me", "/api/me"),
        ("handlers.me.delete_me", "/api/me"),
        ("handlers.me.export_me", "/api/me/export"),
        ("handlers.health.health", "/health"),
        ("handlers.health.ready", "/ready"),
    }


@pytest.mark.parametrize("identifier", OPERATIONS)
def test_every_error_answer_is_shared(identifier: str) -> None:
    for status, answer in OPERATIONS[identifier]["responses"].items():
        if int(status) >= 400:
            assert set(answer) == {"$ref"}
            assert answer["$ref"].startswith("#/components/responses/")


@pytest.mark.parametrize("identifier", OPERATIONS)
def test_every_operation_is_described(identifier: str) -> None:
    operation = OPERATIONS[identifier]
    assert all(operation[name] for name in ("summary", "description", "tags"))


@pytest.mark.parametrize("identifier", OPERATIONS)
def test_a_handler_names_each_parameter_of_its_operation(identifier: str) -> None:
    operation = OPERATIONS[identifier]
    item = contract.document["paths"][contract.templates[identifier]]
    conformance = Conformance()
    parameters = [
        conformance._resolve(one)["name"].lower().replace("-", "_")
        for one in [*item.get("parameters", []), *operation.get("parameters", [])]
    ]
    arguments = set(inspect.signature(get_function_from_name(identifier)).parameters)
    assert arguments - {"database", "user", "token_info", "body", "cursors", "stream"} == set(parameters)
    assert ("body" in arguments) == ("requestBody" in operation)


def test_requests_allow_no_additional_properties() -> None:
    for name in ("TaskCreate", "TaskUpdate", "TaskPatch", "TaskCompletion"):
        assert contract.document["components"]["schemas"][name]["additionalProperties"] is False


def test_every_schema_names_its_bounds() -> None:
    for path, schema in schemas():
        if schema["type"] == "string":
            assert {"maxLength", "enum", "format", "pattern"} & set(schema), path
        elif schema["type"] == "integer":
            assert {"minimum", "maximum"} <= set(schema), path
        elif schema["type"] == "object":
            assert schema["additionalProperties"] is False, path


def test_a_nullable_enum_lists_null() -> None:
    for path, schema in schemas():
        if "enum" in schema:
            assert (None in schema["enum"]) == schema.get("nullable", False), path


def test_every_body_has_an_example_and_every_example_is_valid() -> None:
    conformance = Conformance()
    count = 0
    for path, node in nodes(contract.document):
        for media_type, content in node.get("content", {}).items():
            examples = content.get("examples") or {"example": {"value": content["example"]}}
            schema = CompiledSchema(conformance._resolve_all(content["schema"]))
            for example in examples.values():
                errors = schema.errors("body", conformance._resolve(example)["value"])
                assert not errors, f"{path} {media_type}: {errors}"
                count += 1
    assert count > 15


def test_links_lead_from_a_created_task_to_every_operation_on_it() -> None:
    conformance = Conformance()
    links = OPERATIONS["handlers.tasks.create_task"]["responses"]["201"]["links"].values()
    targets = {conformance._resolve(link)["operationId"] for link in links}
    assert targets == {name for name, path in contract.templates.items() if "{id}" in path}


def test_every_code_that_the_service_answers_is_in_the_contract() -> None:
    problems = [*DOMAIN_ERRORS.values(), *FRAMEWORK_ERRORS.values(), INTERNAL_ERROR, NO_PATH]
    codes = {problem.code for problem in problems}
    other = {"bad_request", "invalid_token", "content_too_large", "unsupported_media_type", "precondition_failed"}
    other |= {"request_timeout", "target_too_long", "rate_limited", "headers_too_large"}
    declared = contract.document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"]
    assert codes | other == set(declared)


def test_an_operation_id_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    document = yaml.safe_load(CONTRACT.read_text())
    document["paths"]["/health"]["get"]["operationId"] = "handlers.tasks.list_tasks"
    path = tmp_path / "contract.yaml"
    path.write_text(yaml.safe_dump(document))
    with pytest.raises(ValueError, match=r"handlers\.tasks\.list_tasks is there more than once"):
        Contract(path)


def test_a_format_that_is_not_enforced_is_refused() -> None:
    with pytest.raises(ValueError, match="the format made-up, which nothing enforces"):
        check_formats({"properties": [{"x": {"type": "string", "format": "made-up"}}]})
    with pytest.raises(ValueError, match=r"[Ff]ormat"):
        CompiledSchema({"type": "string", "format": "made-up"})
