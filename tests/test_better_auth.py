"""Tokens from a real Better Auth server, as a frontend gets them for a user who has signed up."""

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import httpx
import pytest

from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.server import ROOT, Server
from tokens.key_set import COOL_DOWN

pytestmark = [pytest.mark.slow, pytest.mark.unmeasured]

ISSUER = ROOT / "tests" / "issuer"
ALGORITHMS = ["EdDSA", "ES256", "ES512", "RS256", "PS256"]


@pytest.fixture(scope="session")
def better_auth(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Path]:
    """Install the issuer once, where a test asks for it."""
    directory = tmp_path_factory.mktemp("issuer")

    def install() -> Path:
        if not (directory / "node_modules").exists():
            for name in (".npmrc", "package.json", "package-lock.json", "server.mjs"):
                shutil.copy(ISSUER / name, directory)
            command = ["npm", "ci", "--no-audit", "--no-fund", "--ignore-scripts"]
            done = subprocess.run(command, cwd=directory, capture_output=True, text=True, timeout=300, check=False)
            assert done.returncode == 0, done.stdout + done.stderr
        return directory

    return install


@pytest.fixture
def issuer_directory(need: Callable[..., str], better_auth: Callable[[], Path]) -> Path:
    need("node")
    need("npm")
    return better_auth()


@pytest.fixture
def port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return int(probe.getsockname()[1])


@contextmanager
def running(directory: Path, port: int, algorithm: str) -> Iterator[str]:
    """Run the issuer with keys of its own, and yield its URL."""
    command = ["node", "server.mjs", str(port), algorithm]
    environment = os.environ | {"NODE_ENV": "production"}
    with subprocess.Popen(command, cwd=directory, env=environment, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n"
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def token_of(url: str, name: str) -> str:
    """Sign a user up and return a token for them."""
    with httpx.Client(base_url=url, headers={"Origin": url}, timeout=30, trust_env=False) as browser:
        user = {"email": f"{name}@example.com", "password": "correct horse battery staple", "name": name}
        assert browser.post("/api/auth/sign-up/email", json=user).status_code == 200
        return str(browser.get("/api/auth/token").json()["token"])


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_a_user_who_signed_up_with_better_auth_has_their_tasks(
    make_settings: Callable[..., Settings],
    conformance: Conformance,
    issuer_directory: Path,
    port: int,
    algorithm: str,
) -> None:
    with running(issuer_directory, port, algorithm) as url:
        token = token_of(url, "alice")
        with (
            Server(make_settings(better_auth_secret=None, better_auth_url=url)) as server,
            Client(server.url, conformance, token=token) as client,
        ):
            task = client.create()
            me = client.get("/api/me").json()
            assert (me["id"], me["email"], me["name"]) == (task["user_id"], "alice@example.com", "alice")
            assert client.titles() == [task["title"]]


def test_when_better_auth_comes_back_with_other_keys_its_new_tokens_are_accepted_and_the_old_ones_are_not(
    make_settings: Callable[..., Settings], conformance: Conformance, issuer_directory: Path, port: int
) -> None:
    with ExitStack() as stack:
        with running(issuer_directory, port, "EdDSA") as url:
            old = token_of(url, "alice")
            settings = make_settings(better_auth_secret=None, better_auth_url=url)
            server = stack.enter_context(Server(settings))
        client = stack.enter_context(Client(server.url, conformance, token=old))
        assert client.get("/api/tasks").status_code == 200  # the issuer is away, its keys are known
        stack.enter_context(running(issuer_directory, port, "ES256"))
        client.headers["Authorization"] = f"Bearer {token_of(url, 'bob')}"
        deadline = time.monotonic() + COOL_DOWN + 1
        while client.get("/api/tasks").status_code != 200:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        client.headers["Authorization"] = f"Bearer {old}"
        assert client.get("/api/tasks").status_code == 401
