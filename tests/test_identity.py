"""Who calls comes from the token alone, whatever the contract's parameters are called."""

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import Mock
from urllib.parse import quote

import pytest

from openapi.app import application, create_app
from openapi.binding import RESERVED, Binding
from openapi.contract import Contract, InvalidContract
from openapi.problems import NO_TOKEN, ProblemError
from openapi.request import Input, Request
from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.hosts import HOSTS
from tests.support.server import Server

PLACES = {"query": "params", "header": "headers", "path": ""}  # and the argument of a client that fills them
Change = Callable[[Callable[[dict[str, Any]], Any]], None]


@pytest.fixture
def change_contract(contract: Contract, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Change:
    """Let the application start on a changed contract."""

    def change(change: Callable[[dict[str, Any]], Any]) -> None:
        document = copy.deepcopy(contract.document)
        change(document)
        path = tmp_path / "contract.yaml"
        path.write_text(json.dumps(document))
        monkeypatch.setattr("openapi.contract.CONTRACT", path)

    return change


def add(document: dict[str, Any], name: str, place: str, path: str = "/api/tasks") -> str:
    """Add a parameter to the operations of a path and return the path, which one in the path makes longer."""
    item = document["paths"].pop(path)
    path = f"{path}/by/{{{name}}}" if place == "path" else path
    document["paths"][path] = item
    schema = {"type": "string", "maxLength": 255}
    parameter = {"name": name, "in": place, "required": place == "path", "schema": schema}
    item.setdefault("parameters", []).append(parameter)
    return path


def spelled(name: str, place: str) -> str:
    """Return a header's usual spelling."""
    return name.replace("_", "-").title() if place == "header" else name


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", sorted(RESERVED))
def test_a_parameter_with_a_reserved_name_is_refused_at_the_start(
    make_settings: Callable[..., Settings], change_contract: Change, name: str, place: str
) -> None:
    change_contract(lambda document: add(document, spelled(name, place), place))
    sentence = f"the {place} parameter {spelled(name, place)} has a name that is reserved for the service"
    with pytest.raises(InvalidContract, match=sentence):
        create_app(make_settings())


@pytest.mark.parametrize("host", HOSTS)
@pytest.mark.parametrize("place", PLACES)
def test_without_that_refusal_the_caller_is_still_the_tokens(
    make_settings: Callable[..., Settings],
    change_contract: Change,
    conformance: Conformance,
    monkeypatch: pytest.MonkeyPatch,
    host: str,
    place: str,
) -> None:
    monkeypatch.setattr("openapi.app.check", lambda *_: None)
    names = [spelled(name, place) for name in sorted(RESERVED)]

    def add_all(document: dict[str, Any]) -> None:
        path = "/api/tasks"
        for name in names:
            path = add(document, name, place, path)

    change_contract(add_all)
    alice, bob = (f"{user} {host} {place}" for user in ("alice", "bob"))
    with (
        Server(make_settings(server_framework=host)) as server,
        Client(server.url, conformance, token=server.token(sub=alice)) as client,
        Client(server.url, conformance, token=server.token(sub=bob)) as other,
    ):
        path = "/api/tasks" + (f"/by/{quote(bob)}" * len(names) if place == "path" else "")
        sent: dict[str, Any] = {} if place == "path" else {PLACES[place]: dict.fromkeys(names, bob)}
        created = client.post(path, json={"title": "hers"}, **sent)
        assert (created.status_code, created.json()["user_id"]) == (201, alice), created.text
        assert [task["user_id"] for task in client.get(path, **sent).json()] == [alice]
        assert other.get(path, **sent).json() == []


def test_two_parameters_of_one_name_are_refused_at_the_start(
    make_settings: Callable[..., Settings], change_contract: Change
) -> None:
    change_contract(lambda document: add(document, "if_match", "query", "/api/tasks/{id}"))
    with pytest.raises(InvalidContract, match="has the name of another parameter"):
        create_app(make_settings())


def test_a_parameter_that_its_handler_does_not_take_is_refused_at_the_start(
    make_settings: Callable[..., Settings], change_contract: Change
) -> None:
    change_contract(lambda document: add(document, "colour", "query"))
    with pytest.raises(InvalidContract, match=r"handlers\.tasks\.\w+ has no argument colour for the parameter colour"):
        create_app(make_settings())


def test_an_argument_that_is_no_parameter_is_refused_at_the_start(
    make_settings: Callable[..., Settings], change_contract: Change
) -> None:
    def drop(document: dict[str, Any]) -> None:
        del document["paths"]["/api/tasks"]["get"]["parameters"][-1]

    change_contract(drop)
    with pytest.raises(InvalidContract, match="has the argument cursor, which is no parameter of list_tasks"):
        create_app(make_settings())


def test_an_argument_that_a_request_may_leave_out_needs_a_default(
    make_settings: Callable[..., Settings], change_contract: Change
) -> None:
    def drop(document: dict[str, Any]) -> None:
        del document["components"]["parameters"]["Limit"]["schema"]["default"]

    change_contract(drop)
    with pytest.raises(InvalidContract, match="list_tasks needs a default for limit"):
        create_app(make_settings())


def test_a_contract_that_cannot_be_kept_ends_the_process_with_a_sentence(
    change_contract: Change, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DATABASE_URL", "postgresql://localhost/none")
    change_contract(lambda document: add(document, "user", "query"))
    with pytest.raises(SystemExit):
        application()
    assert "the query parameter user has a name that is reserved" in capsys.readouterr().err


def test_a_file_that_cannot_be_used_ends_the_process_with_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    error = PermissionError(13, "Permission denied", "/data")
    monkeypatch.setattr("openapi.app.create_app", Mock(side_effect=error))
    with pytest.raises(SystemExit):
        application()
    assert capsys.readouterr().err == "Permission denied: /data\n"


def sent(**parameters: Any) -> Request:
    """Return a request of nobody with these parameters, whatever they are called."""
    services: Any = None
    request = Request("id", None, services)
    request.input = Input(parameters, {"title": "sent"})
    return request


def test_a_handler_that_asks_for_the_caller_is_not_called_without_one() -> None:
    with pytest.raises(ProblemError) as refused:
        Binding(lambda caller: caller).call(sent(caller="sent"))
    assert refused.value.problem is NO_TOKEN


def test_the_body_is_never_a_parameter() -> None:
    assert Binding(lambda body: body).call(sent(body="sent")) == {"title": "sent"}


def test_the_operation_and_the_input_cannot_be_read_before_they_are_known() -> None:
    services: Any = None
    request = Request("id", None, services)
    for place in ("operation", "input"):
        with pytest.raises(AttributeError):
            getattr(request, place)
