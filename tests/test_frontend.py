"""The examples for frontends: a new Next.js application with all of them is built and used in a browser."""

import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import cache
from pathlib import Path
from secrets import token_urlsafe

import pytest
from playwright.sync_api import Page, Route, expect

from openapi.contract import CONTRACT
from settings.settings import Settings
from tests.support.browser import browser
from tests.support.documents import ADDRESS
from tests.support.frontend import (
    DOCUMENTS,
    ORIGIN,
    TEMPLATE,
    command,
    compile_strictly,
    examples,
    free_port,
    generate_types,
    install_application,
    printed,
    printed_variables,
    run,
    served,
)
from tests.support.server import ROOT, Server

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

PASSWORD = "correct horse battery staple"


def test_every_example_names_the_file_that_it_is() -> None:
    names = [name for name, _ in examples()]
    assert len(names) == len(set(names)) > 0


def test_no_other_document_has_examples_for_frontends() -> None:
    others = {*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")} - set(DOCUMENTS)
    assert [path.name for path in others if re.search(r"^```[tj]sx?\b", path.read_text(encoding="utf-8"), re.M)] == []


def test_the_application_has_every_package_that_the_documents_install() -> None:
    package = json.loads((TEMPLATE / "package.json").read_text(encoding="utf-8"))
    wanted = {
        re.sub(r"(?<=.)@.*", "", name)
        for _, text in printed()
        for line in re.findall(r"^npm install (.*)$", text, re.MULTILINE)
        for name in line.split()
        if not name.startswith("--")
    }
    assert wanted
    assert wanted <= package["dependencies"].keys() | package["devDependencies"].keys()


@pytest.fixture(scope="module")
def install(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Install the application with the examples; once, however often it is asked for."""

    @cache
    def install() -> Path:
        directory = tmp_path_factory.mktemp("frontend")
        install_application(directory)
        return directory

    return install


@pytest.fixture
def application(need: Callable[..., str], install: Callable[[], Path]) -> Path:
    """The folder of the application."""
    need("node")
    need("npm")
    return install()


@pytest.fixture
def compiled(application: Path) -> Path:
    """The folder of the application with the compiled examples."""
    if not (application / "build").exists():
        generate_types(application, str(CONTRACT))
        compile_strictly(application)
    return application


@pytest.mark.parametrize("name", ["due-dates", "tasks-browser"])
def test_the_examples_do_what_they_promise_in_every_time_zone_and_while_users_come_and_go(
    compiled: Path, name: str
) -> None:
    run(f"node --import ./alias.mjs --test --test-timeout=60000 {name}.test.mjs", compiled)


@pytest.fixture(scope="module")
def serve(make_settings: Callable[..., Settings], install: Callable[[], Path]) -> Iterator[Callable[[], str]]:
    """Set the application up as the documents say and serve it beside the service; once. Returns its origin."""
    with ExitStack() as stack:

        @cache
        def serve() -> str:
            directory, port, secret = install(), free_port(), token_urlsafe(32)
            origin = f"http://localhost:{port}"

            def variables(file: str, api: str) -> dict[str, str]:
                own = {"<the secret>": secret, ORIGIN: origin, ADDRESS: api}
                return {name: own[value] for name, value in printed_variables(file).items()}

            database = make_settings().database_url
            settings = Settings.load(variables("the service's .env", ""), database_url=database)
            api = stack.enter_context(Server(settings)).url
            lines = variables("the frontend's .env.local", api) | {"NEXT_PUBLIC_TASKS_API_URL": api}
            (directory / ".env.local").write_text("".join(f"{name}={value}\n" for name, value in lines.items()))
            generate_types(directory, f"{api}/openapi.json")
            run(command("npx auth migrate"), directory)
            run("npx next build", directory)
            stack.enter_context(served(directory, port))
            return origin

        yield serve


@pytest.fixture
def page(need: Callable[..., str], serve: Callable[[], str]) -> Iterator[Page]:
    """An empty page of a browser that nobody has signed in with; addresses are relative to the application's."""
    for program in ("node", "npm"):
        need(program)
    with browser(need("chromium", "chromium-browser")) as chromium, chromium.new_context(base_url=serve()) as context:
        context.set_default_timeout(30_000)
        yield context.new_page()


def sign_up(page: Page, name: str) -> None:
    """Sign a user up with the tutorial's page."""
    page.goto("/")
    page.get_by_label("Email").fill(f"{name}@example.com")
    page.get_by_label("Password").fill(PASSWORD)
    page.get_by_role("button", name="Sign up").click()
    expect(page.get_by_text(f"You are {name}@example.com.")).to_be_visible()


def test_a_user_signs_up_gets_tokens_and_creates_tasks(page: Page) -> None:
    sign_up(page, "alice")
    page.get_by_label("Title").fill("Water the plants")
    page.get_by_role("button", name="Create a task").click()
    expect(page.get_by_text("Your tasks: Water the plants")).to_be_visible()  # with Better Auth's own token
    page.goto("/tasks")
    expect(page.get_by_role("listitem")).to_have_text(["Water the plants"])  # with one that the frontend signs
    page.get_by_label("Title").fill("Buy milk")
    page.get_by_role("button", name="Create").click()
    expect(page.get_by_role("listitem")).to_have_text(["Buy milk", "Water the plants"])


TITLES = "() => guide.tasks.GET('/api/tasks').then(({ data }) => data.map(task => task.title), error => error.message)"
CREATE = "title => guide.tasks.POST('/api/tasks', { body: { title } }).then(({ response }) => response.status)"


def test_a_token_that_arrives_when_the_next_user_has_signed_in_is_not_used(page: Page) -> None:
    held: list[Route] = []
    sign_up(page, "carol")
    sign_up(page, "dave")
    page.goto("/probe")
    page.wait_for_function("window.guide")
    assert page.evaluate(CREATE, "Dave's own") == 201
    assert page.evaluate("email => guide.signIn(email, 'wrong password')", "carol@example.com") is not None
    page.evaluate("guide.forgetToken()")
    with page.expect_request("**/api/tasks-token"):
        page.route("**/api/tasks-token", lambda route: held.append(route), times=1)
        page.evaluate(f"() => {{ window.early = ({TITLES})(); }}")
    while not held:
        page.wait_for_timeout(10)
    answers = [(route, route.fetch()) for route in held]  # for Dave, kept until Carol has signed in
    assert (
        page.evaluate("([email, password]) => guide.signIn(email, password)", ["carol@example.com", PASSWORD]) is None
    )
    for route, answer in answers:
        route.fulfill(response=answer)
    assert page.evaluate("window.early") == "The user has signed out."
    assert page.evaluate(TITLES) == []
    assert page.evaluate(CREATE, "Carol's own") == 201
    assert page.evaluate(TITLES) == ["Carol's own"]
    page.evaluate("guide.signOut()")
    assert page.evaluate("guide.tasks.GET('/api/tasks').then(({ error }) => error.code)") == "missing_token"
