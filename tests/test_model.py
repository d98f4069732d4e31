"""The whole service against a plain model of it: three users with two devices each, any operations in any order.

After every step each user sees exactly what the model says. `--model-steps` makes the run longer. A failure prints the
steps that lead to it and a decorator with which it can be replayed.
"""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import httpx
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from tests.support.client import Client, Conformance, assert_problem
from tests.support.lists import DATES, DESCRIPTIONS, FILTERS, ORDERS, WORDS, expected, walk
from tests.support.server import Server

pytestmark = pytest.mark.unmeasured

STEPS_OF_AN_EXAMPLE = 50
USERS, DEVICES = 3, 2
PRIORITIES = (None, "low", "medium", "high")
BAD_FIELDS: tuple[dict[str, Any], ...] = (
    {"title": " "},
    {"title": "x" * 201},
    {"priority": "urgent"},
    {"due_date": "2026-01-01"},
    {"user_id": "somebody"},
    {"completed": None},
)

Task = dict[str, Any]

# Strategies

WHO = st.integers(0, USERS - 1)
DEVICE = st.integers(0, DEVICES - 1)
TITLE = st.sampled_from(WORDS) | st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=20).map(
    "t{}".format
)
FIELDS = st.fixed_dictionaries(
    {},
    optional={
        "title": TITLE,
        "description": st.sampled_from(DESCRIPTIONS),
        "completed": st.booleans(),
        "priority": st.sampled_from(PRIORITIES),
        "due_date": st.sampled_from(DATES),
    },
)
NEW_TASK = st.tuples(TITLE, FIELDS).map(lambda drawn: drawn[1] | {"title": drawn[0]})
KEY = st.none() | st.sampled_from(("key-1", "key-2", "key-3"))
# Whose task is reached for, which of them, and an id for what nobody has.
WHOSE = (*["own"] * 6, *["another's"] * 2, "gone", "unknown")
AIM = st.tuples(st.sampled_from(WHOSE), st.integers(0, 20), st.uuids(version=4))
TAGS = st.just(["*"]) | st.lists(
    st.sampled_from(("current", "weak", "older", "newer", "other")), min_size=1, max_size=3, unique=True
)
CONDITION: st.SearchStrategy[dict[str, list[str]]] = st.one_of(
    st.just({}),
    st.fixed_dictionaries({"If-Match": TAGS}),
    st.fixed_dictionaries({"If-None-Match": TAGS}),
    st.fixed_dictionaries({"If-Match": TAGS, "If-None-Match": TAGS}),
)
QUERY = st.fixed_dictionaries({}, optional={name: st.sampled_from(values) for name, values in FILTERS.items()})


class Device(Client):
    """A client that knows what its token says of its user."""

    claims: dict[str, Any]


@dataclass
class User:
    """What the model knows about a user."""

    devices: list[Device]
    stored: dict[str, Any] | None = None  # email and name, as they came with the first write
    tasks: dict[str, Task] = field(default_factory=dict)
    keys: dict[str, tuple[Task, bytes]] = field(default_factory=dict)


def tag(kind: str, version: int) -> str:
    """Return an entity tag that relates to a version in this way."""
    return {
        "*": "*",
        "current": f'"{version}"',
        "weak": f'W/"{version}"',
        "older": f'"{version - 1}"',
        "newer": f'"{version + 1}"',
        "other": f'"0{version}"',
    }[kind]


def is_met(asked: dict[str, list[str]]) -> bool:
    """Tell whether a write with these headers happens (RFC 9110, sections 13.1.1 and 13.1.2)."""
    wanted, unwanted = asked.get("If-Match", ["*"]), asked.get("If-None-Match", [])
    return bool({"*", "current"} & set(wanted)) and not {"*", "current", "weak"} & set(unwanted)


def as_answered(given: Task) -> Task:
    """Return the fields of a request as an answer has them."""
    due = given.get("due_date")
    if due is None:
        return given
    return given | {"due_date": datetime.fromisoformat(due).astimezone(UTC).isoformat().replace("+00:00", "Z")}


class Service(RuleBasedStateMachine):
    """The operations, each with what the model says about its answer."""

    steps = 0

    def __init__(self, devices: list[list[Device]], sign: Callable[..., str]) -> None:
        super().__init__()
        self.users = [User(one) for one in devices]
        self.gone: list[str] = []
        self.turn = itertools.count()
        for user in self.users:
            name = f"model-{uuid4().hex}"
            for number, client in enumerate(user.devices):
                client.user = name
                # The first device's token says who the user is, the second's does not.
                client.claims = {"email": f"{name}@example.com", "name": None} if number == 0 else {}
                client.headers["Authorization"] = f"Bearer {sign(3600, sub=name, **client.claims)}"

    @initialize(bodies=st.lists(NEW_TASK, min_size=2 * USERS, max_size=2 * USERS))
    def begin(self, bodies: list[Task]) -> None:
        for number, body in enumerate(bodies):
            self.create(number % USERS, number % DEVICES, body, None)

    def teardown(self) -> None:
        for user in self.users:
            user.devices[0].delete("/api/me")

    # Creating

    @rule(who=WHO, device=DEVICE, body=NEW_TASK, key=KEY)
    def create(self, who: int, device: int, body: Task, key: str | None) -> None:
        user = self.users[who]
        headers = {"Idempotency-Key": key} if key else {}
        response = user.devices[device].post("/api/tasks", json=body, headers=headers)
        known = user.keys.get(key or "")
        if known and known[0] == body:
            assert_replay(response, known[1])
        elif known:
            detail = "This Idempotency-Key was used with another body. Use a new key for a new task."
            assert_problem(response, 422, "idempotency_key_reused", detail)
        else:
            self.created(user, user.devices[device], response, body)
            if key:
                user.keys[key] = (body, response.content)

    @rule(who=WHO, device=DEVICE, number=st.integers(0, 20))
    def repeat(self, who: int, device: int, number: int) -> None:
        user = self.users[who]
        if not user.keys:
            return
        key, (body, first) = list(user.keys.items())[number % len(user.keys)]
        response = user.devices[device].post("/api/tasks", json=body, headers={"Idempotency-Key": key})
        assert_replay(response, first)

    @rule(who=WHO, device=DEVICE, bad=st.sampled_from(BAD_FIELDS), key=KEY, aim=AIM)
    def refuse(self, who: int, device: int, bad: Task, key: str | None, aim: Any) -> None:
        client = self.users[who].devices[device]
        path = f"/api/tasks/{self.reach(who, aim)[0]}"
        headers = {"Idempotency-Key": key} if key else {}
        for response in (
            client.post("/api/tasks", json={"title": "a"} | bad, headers=headers),
            client.put(path, json=bad),
            client.put(path, json={}),
            client.patch(path, json=bad),
            client.patch(f"{path}/complete", json=bad),
        ):
            assert (response.status_code, response.json()["code"]) == (400, "bad_request")

    def created(self, user: User, client: Any, response: httpx.Response, body: Task) -> None:
        assert response.status_code == 201, response.text
        task = response.json()
        made = {name: task[name] for name in ("id", "created_at", "updated_at")}
        plain = {"description": None, "completed": False, "priority": None, "due_date": None}
        assert task == plain | as_answered(body) | made | {"user_id": client.user, "version": 1}
        assert (response.headers["location"], response.headers["etag"]) == (f"/api/tasks/{task['id']}", '"1"')
        assert "idempotency-replayed" not in response.headers
        assert not any(task["id"] in one.tasks for one in self.users)
        user.tasks[task["id"]] = task
        if user.stored is None:
            user.stored = {"email": client.claims.get("email"), "name": None}

    # One task

    @rule(who=WHO, device=DEVICE, aim=AIM, unwanted=st.none() | TAGS)
    def get(self, who: int, device: int, aim: Any, unwanted: list[str] | None) -> None:
        task_id, task = self.reach(who, aim)
        asked = {"If-None-Match": unwanted} if unwanted else {}
        response = self.request(who, device, "GET", task_id, asked)
        if task is None:
            self.assert_out_of_reach(response, task_id)
        elif unwanted and {"*", "current", "weak"} & set(unwanted):
            assert (response.status_code, response.headers["etag"]) == (304, tag("current", task["version"]))
        else:
            assert (response.status_code, response.json()) == (200, task)
            assert response.headers["etag"] == tag("current", task["version"])

    @rule(who=WHO, device=DEVICE, aim=AIM, asked=CONDITION, change=FIELDS.filter(bool))
    def put(self, who: int, device: int, aim: Any, asked: Any, change: Task) -> None:
        self.write(who, device, "PUT", aim, asked, change, json=change)

    @rule(who=WHO, device=DEVICE, aim=AIM, asked=CONDITION, change=FIELDS, is_json=st.booleans())
    def patch(self, who: int, device: int, aim: Any, asked: Any, change: Task, is_json: bool) -> None:
        headers = {"Content-Type": "application/json" if is_json else "application/merge-patch+json"}
        self.write(who, device, "PATCH", aim, asked, change, json=change, headers=headers)

    @rule(who=WHO, device=DEVICE, aim=AIM, asked=CONDITION, value=st.none() | st.booleans())
    def complete(self, who: int, device: int, aim: Any, asked: Any, value: bool | None) -> None:
        task = self.reach(who, aim)[1]
        change = {"completed": task is not None and not task["completed"] if value is None else value}
        options = {} if value is None else {"json": change}
        self.write(who, device, "PATCH", aim, asked, change, suffix="/complete", **options)

    @rule(who=WHO, device=DEVICE, aim=AIM, asked=CONDITION)
    def delete(self, who: int, device: int, aim: Any, asked: Any) -> None:
        task_id, task = self.reach(who, aim)
        response = self.request(who, device, "DELETE", task_id, asked)
        if task is None:
            self.assert_out_of_reach(response, task_id)
        elif not is_met(asked):
            assert_stale(response, task)
        else:
            assert response.status_code == 204
            del self.users[who].tasks[task_id]
            self.gone.append(task_id)

    def write(self, who: int, device: int, method: str, aim: Any, asked: Any, change: Task, **options: Any) -> None:
        task_id, task = self.reach(who, aim)
        response = self.request(who, device, method, task_id, asked, **options)
        if task is None:
            self.assert_out_of_reach(response, task_id)
        elif not is_met(asked):
            assert_stale(response, task)
        else:
            answer = response.json()
            assert response.status_code == 200, answer
            written = {"version": task["version"] + 1, "updated_at": answer["updated_at"]} if change else {}
            assert answer == task | as_answered(change) | written
            assert response.headers["etag"] == tag("current", answer["version"])
            self.users[who].tasks[task_id] = answer

    def reach(self, who: int, aim: tuple[str, int, UUID]) -> tuple[str, Task | None]:
        """Return the id that is reached for, and the task where the caller has it."""
        whose, number, unknown = aim
        choices = {
            "own": list(self.users[who].tasks),
            "another's": [one for user in self.users if user is not self.users[who] for one in user.tasks],
            "gone": self.gone,
            "unknown": [],
        }[whose] or [str(unknown)]
        task_id = choices[number % len(choices)]
        return task_id, self.users[who].tasks.get(task_id)

    def request(
        self, who: int, device: int, method: str, task_id: str, asked: Any, suffix: str = "", **options: Any
    ) -> httpx.Response:
        version = next((user.tasks[task_id]["version"] for user in self.users if task_id in user.tasks), 1)
        conditions = {name: ", ".join(tag(kind, version) for kind in kinds) for name, kinds in asked.items()}
        headers = options.pop("headers", {}) | conditions
        client = self.users[who].devices[device]
        return client.request(method, f"/api/tasks/{task_id}{suffix}", headers=headers, **options)

    def assert_out_of_reach(self, response: httpx.Response, task_id: str) -> None:
        if any(task_id in user.tasks for user in self.users):
            assert_problem(response, 403, "not_your_task", "This task belongs to another user.")
        else:
            assert_problem(response, 404, "task_not_found", "There is no task with this id.")
        assert "etag" not in response.headers

    # All tasks

    @rule(who=WHO, device=DEVICE, query=QUERY, order=st.sampled_from(ORDERS), limit=st.integers(1, 7))
    def list_pages(self, who: int, device: int, query: Any, order: tuple[str, str | None], limit: int) -> None:
        user = self.users[who]
        asked = query | {"sort": order[0]} | ({"order": order[1]} if order[1] else {})
        wanted = expected(list(user.tasks.values()), asked)
        assert user.devices[device].get("/api/tasks", params=asked).json() == wanted
        pages = list(walk(user.devices[device], asked | {"limit": limit}))
        assert pages == [wanted[start : start + limit] for start in range(0, len(wanted), limit)] or pages == [[]]
        assert list(itertools.chain(*pages)) == wanted

    @rule(who=WHO, device=DEVICE)
    def export(self, who: int, device: int) -> None:
        user = self.users[who]
        export = user.devices[device].get("/api/me/export").json()
        assert export["tasks"] == sorted(user.tasks.values(), key=lambda task: task["id"])
        assert [one["key"] for one in export["idempotency_keys"]] == sorted(user.keys)
        assert (export["user"] is None) == (user.stored is None)

    @rule(who=WHO, device=DEVICE, is_meant=st.sampled_from((False, False, False, True)))
    def erase(self, who: int, device: int, is_meant: bool) -> None:
        if not is_meant:  # or there would be little left to look at
            return
        user = self.users[who]
        assert user.devices[device].delete("/api/me").status_code == 204
        self.gone += user.tasks
        user.stored, user.tasks, user.keys = None, {}, {}

    @invariant()
    def every_user_sees_exactly_the_model(self) -> None:
        Service.steps += 1
        for user in self.users:
            client: Any = user.devices[next(self.turn) % DEVICES]
            assert client.get("/api/tasks").json() == expected(list(user.tasks.values()), {})
            completed = sum(task["completed"] for task in user.tasks.values())
            stored = user.stored or {"email": None, "name": None}
            assert client.get("/api/me").json() == {
                "id": client.user,
                "email": client.claims.get("email") or stored["email"],
                "name": stored["name"],
                "tasks": {"pending": len(user.tasks) - completed, "completed": completed},
            }


def assert_replay(response: httpx.Response, first: bytes) -> None:
    assert (response.status_code, response.content) == (201, first)
    assert response.headers["idempotency-replayed"] == "true"


def assert_stale(response: httpx.Response, task: Task) -> None:
    detail = "The task has changed since. Its current entity tag is in the ETag header."
    assert_problem(response, 412, "precondition_failed", detail)
    assert response.headers["etag"] == tag("current", task["version"])


@pytest.fixture
def devices(server: Server, conformance: Conformance) -> Iterator[list[list[Device]]]:
    """The clients of each user, every one with a connection of its own."""
    devices = [[Device(server.url, conformance) for _ in range(DEVICES)] for _ in range(USERS)]
    yield devices
    for client in itertools.chain(*devices):
        client.close()


def test_every_user_always_sees_exactly_what_a_plain_model_says(
    server: Server, devices: list[list[Device]], pytestconfig: pytest.Config
) -> None:
    steps = pytestconfig.getoption("--model-steps")
    if server.settings.server_framework == "flask":  # the same handlers under another host
        steps //= 5

    # To replay a failure put the decorator that it printed here.
    def service() -> Service:
        return Service(devices, server.token)

    Service.steps = 0
    while Service.steps < steps:  # some examples are short
        run_state_machine_as_test(
            service,  # type: ignore[arg-type]  # a function that makes one will do
            settings=settings(
                max_examples=(steps - Service.steps) // STEPS_OF_AN_EXAMPLE + 2,
                stateful_step_count=STEPS_OF_AN_EXAMPLE,
                deadline=None,
                derandomize=False,
                print_blob=True,
                suppress_health_check=list(HealthCheck),
            ),
        )
