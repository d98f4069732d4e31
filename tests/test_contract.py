"""The contract keeps its own rules: every bound named, every error shared, every body with an example."""

import copy
import inspect
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from connexion.utils import get_function_from_name

from openapi.contract import Contract, InvalidContract
from openapi.contract_checks import check_supported
from openapi.problems import Code
from openapi.schemas import FORMATS, CompiledSchema
from tests.support.client import TITLES, Conformance

IDENTIFIERS = list(Contract().templates)
SCHEMA = re.compile(r"/(schema|items|properties/[^/]+|components/schemas/[^/]+)$")


@pytest.fixture
def operations(contract: Contract) -> dict[str, dict[str, Any]]:
    """The operations by their operationIds."""
    return {
        one["operationId"]: one
        for item in contract.document["paths"].values()
        for one in item.values()
        if one != "get" and isinstance(one, dict)
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


def schemas(contract: Contract) -> Iterator[tuple[str, dict[str, Any]]]:
    """Walk all schemas with their places, but for references to one."""
    for path, node in nodes(contract.document):
        if SCHEMA.search(path) and "/example" not in path and "$ref" not in node:
            yield path, node


def test_it_is_openapi_3_0_3_with_the_operations_of_the_specification(contract: Contract) -> None:
    assert contract.document["openapi"] == "3.0.3"
    assert set(contract.templates.items()) == {
        ("list_tasks", "/api/tasks"),
        ("create_task", "/api/tasks"),
        ("get_task", "/api/tasks/{id}"),
        ("update_task", "/api/tasks/{id}"),
        ("patch_task", "/api/tasks/{id}"),
        ("delete_task", "/api/tasks/{id}"),
        ("complete_task", "/api/tasks/{id}/complete"),
        ("get_me", "/api/me"),
        ("delete_me", "/api/me"),
        ("export_me", "/api/me/export"),
        ("health", "/health"),
        ("ready", "/ready"),
    }


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_every_error_answer_is_shared(operations: dict[str, Any], identifier: str) -> None:
    for status, answer in operations[identifier]["responses"].items():
        if int(status) >= 400:
            assert set(answer) == {"$ref"}
            assert answer["$ref"].startswith("#/components/responses/")


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_every_operation_is_described(operations: dict[str, Any], identifier: str) -> None:
    operation = operations[identifier]
    assert all(operation[name] for name in ("summary", "description", "tags"))


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_a_handler_names_each_parameter_of_its_operation(
    contract: Contract, operations: dict[str, Any], identifier: str
) -> None:
    operation = operations[identifier]
    item = contract.document["paths"][contract.templates[identifier]]
    parameters = [
        contract.resolve(one)["name"].lower().replace("-", "_")
        for one in [*item.get("parameters", []), *operation.get("parameters", [])]
    ]
    handler = f"{operation['x-openapi-router-controller']}.{identifier}"
    arguments = set(inspect.signature(get_function_from_name(handler)).parameters)
    assert arguments - {"database", "tokens", "caller", "body", "cursors", "stream", "url_for"} == set(parameters)
    assert ("body" in arguments) == ("requestBody" in operation)


def test_requests_allow_no_additional_properties(contract: Contract) -> None:
    for name in ("TaskCreate", "TaskUpdate", "TaskPatch", "TaskCompletion"):
        assert contract.document["components"]["schemas"][name]["additionalProperties"] is False


def test_every_schema_names_its_bounds(contract: Contract) -> None:
    for path, schema in schemas(contract):
        if schema["type"] == "string":
            assert {"maxLength", "enum", "format"} & set(schema), path
        elif schema["type"] == "integer":
            assert {"minimum", "maximum"} <= set(schema), path
        elif schema["type"] == "object":
            assert schema["additionalProperties"] is False, path


NULLABLE = {"description", "priority", "due_date", "email", "name", "user", "Description", "Priority", "DueDate"}


def test_null_is_for_what_a_task_or_a_user_may_lack(contract: Contract) -> None:
    for path, schema in schemas(contract):
        assert schema.get("nullable", False) == (path.rpartition("/")[2] in NULLABLE), path


@pytest.mark.parametrize("name", ["Task", "Me", "Export", "Health", "Problem", "InputError"])
def test_an_answer_has_all_of_its_fields(contract: Contract, name: str) -> None:
    count = 0
    for path, schema in nodes(contract.document["components"]["schemas"][name]):
        if "properties" in schema:
            assert set(schema["required"]) == set(schema["properties"]) - {"errors"}, path
            count += 1
    assert count


def test_a_nullable_enum_lists_null(contract: Contract) -> None:
    for path, schema in schemas(contract):
        if "enum" in schema:
            assert (None in schema["enum"]) == schema.get("nullable", False), path


def test_every_body_has_an_example_and_every_example_is_valid(contract: Contract, conformance: Conformance) -> None:
    count = 0
    for path, node in nodes(contract.document):
        for media_type, content in node.get("content", {}).items():
            examples = content.get("examples") or {"example": {"value": content["example"]}}
            schema = CompiledSchema(conformance.contract.resolve(content["schema"]))
            for example in examples.values():
                errors = schema.errors("body", conformance.contract.resolve(example)["value"])
                assert not errors, f"{path} {media_type}: {errors}"
                count += 1
    assert count > 15


@pytest.mark.parametrize("identifier", [one for one in IDENTIFIERS if one.endswith(("_task", "_tasks"))])
def test_an_answer_with_a_task_links_to_every_other_operation_on_it(
    contract: Contract, conformance: Conformance, operations: dict[str, Any], identifier: str
) -> None:
    on_a_task = {name for name, path in contract.templates.items() if "{id}" in path}
    for status, answer in operations[identifier]["responses"].items():
        schema = answer.get("content", {}).get("application/json", {}).get("schema", {})
        has_task = status < "300" and schema.get("$ref") == "#/components/schemas/Task"
        links = [conformance.contract.resolve(link) for link in answer.get("links", {}).values()]
        assert {link["operationId"] for link in links} == (on_a_task - {identifier} if has_task else set())
        assert all(link["parameters"] == {"id": "$response.body#/id"} for link in links)


@pytest.mark.parametrize("identifier", IDENTIFIERS)
def test_the_example_of_an_error_has_the_status_of_its_answer(
    conformance: Conformance, operations: dict[str, Any], identifier: str
) -> None:
    for status, answer in operations[identifier]["responses"].items():
        for content in conformance.contract.resolve(answer).get("content", {}).values():
            assert status < "300" or (content["example"]["status"], content["example"]["title"]) == (
                int(status),
                TITLES[int(status)],
            )


def test_every_code_that_the_service_answers_is_in_the_contract(contract: Contract) -> None:
    assert contract.document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] == list(Code)


def test_an_operation_id_that_is_there_twice_is_refused(contract: Contract, tmp_path: Path) -> None:
    document = copy.deepcopy(contract.document)
    document["paths"]["/health"]["get"]["operationId"] = "list_tasks"
    path = tmp_path / "contract.yaml"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidContract, match="has the operationId list_tasks more than once"):
        Contract(path)


def test_an_operation_without_an_id_is_refused(contract: Contract, tmp_path: Path) -> None:
    document = copy.deepcopy(contract.document)
    del document["paths"]["/health"]["get"]["operationId"]
    path = tmp_path / "contract.yaml"
    path.write_text(json.dumps(document))
    with pytest.raises(InvalidContract, match="an operation without operationId"):
        Contract(path)


def test_every_format_that_can_be_enforced_is_used(contract: Contract) -> None:
    assert {schema["format"] for _, schema in schemas(contract) if "format" in schema} == set(FORMATS)


def test_a_format_that_is_not_enforced_is_refused() -> None:
    with pytest.raises(InvalidContract, match="the format made-up, which nothing enforces"):
        check_supported({"properties": [{"x": {"type": "string", "format": "made-up"}}]})
    with pytest.raises(ValueError, match=r"[Ff]ormat"):
        CompiledSchema({"type": "string", "format": "made-up"})


@pytest.mark.parametrize("how", [{"explode": False}, {"style": "pipeDelimited"}])
def test_a_parameter_in_a_style_that_is_not_read_is_refused(how: dict[str, Any]) -> None:
    with pytest.raises(InvalidContract, match="The parameter tags is not in the style form"):
        check_supported({"parameters": [{"name": "tags", "in": "query", "schema": {"type": "array"}, **how}]})
