"""The processes that serve, without running them: what ends them, and with which code."""

import signal
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from uvicorn.config import STARTUP_FAILURE

from server import processes
from settings.settings import Settings


@pytest.fixture(autouse=True)
def without_uvicorns_logging(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uvicorn.Config, "configure_logging", lambda _: None)


def run(*, reload: bool = False, **overrides: Any) -> None:
    one = Mock(getsockname=lambda: ("127.0.0.1", 8000))
    processes.run(Settings.load({}, **overrides), [one], announcement="here", reload=reload)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [(None, 0), (KeyboardInterrupt, 0), (SystemExit(STARTUP_FAILURE), 1), (SystemExit(7), 7)],
)
def test_a_lone_process_ends_with_1_if_it_cannot_start(
    monkeypatch: pytest.MonkeyPatch, outcome: Any, code: int
) -> None:
    monkeypatch.setattr(uvicorn.Server, "run", Mock(side_effect=outcome))
    if code:
        with pytest.raises(SystemExit) as caught:
            run()
        assert caught.value.code == code
    else:
        run()


def test_for_development_uvicorn_starts_it_again_when_a_file_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    reloader = Mock()
    monkeypatch.setattr(processes, "ChangeReload", reloader)
    run(reload=True)
    assert reloader.return_value.run.called


class Worker:
    """A worker process of uvicorn's."""

    def __init__(self, exitcode: int | None, is_ready: bool) -> None:
        self.exitcode = exitcode
        self.is_ready = lambda timeout: is_ready  # noqa: ARG005
        self.is_alive = lambda timeout: exitcode is None  # noqa: ARG005
        self.start = Mock()
        self.kill = self.join = self.terminate = Mock()
        self.pid = 1


def workers(monkeypatch: pytest.MonkeyPatch, *made: Worker) -> processes.Workers:
    """Return a supervisor of these workers, of which it has started the first."""
    left = list(made)
    monkeypatch.setattr(processes, "Process", lambda *_: left.pop(0))
    supervisor = processes.Workers(uvicorn.Config("x", workers=2), [], "here")
    supervisor.init_processes()
    return supervisor


def test_the_other_workers_start_when_the_first_serves(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    supervisor = workers(monkeypatch, Worker(None, is_ready=True), Worker(None, is_ready=True))
    assert len(supervisor.processes) == 1
    supervisor.keep_subprocess_alive()
    assert capsys.readouterr().out == "here\n"
    assert len(supervisor.processes) == 2
    supervisor.keep_subprocess_alive()
    assert not supervisor.has_failed
    supervisor.should_exit.set()
    supervisor.keep_subprocess_alive()  # which starts none any more


def test_a_first_worker_that_takes_its_time_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = workers(monkeypatch, Worker(None, is_ready=False))
    supervisor.keep_subprocess_alive()
    assert len(supervisor.processes) == 1
    assert not supervisor.should_exit.is_set()


def test_a_first_worker_that_ends_ends_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = workers(monkeypatch, Worker(STARTUP_FAILURE, is_ready=False))
    supervisor.keep_subprocess_alive()
    assert supervisor.should_exit.is_set()
    assert supervisor.has_failed
    failed = Mock(has_failed=True)
    monkeypatch.setattr(processes, "Workers", lambda *_: failed)
    monkeypatch.setattr(processes, "shared", lambda sockets: sockets)
    with pytest.raises(SystemExit) as caught:
        run(web_concurrency=2)
    assert caught.value.code == 1
    assert failed.run.called


def test_a_worker_ends_after_its_supervisor(monkeypatch: pytest.MonkeyPatch) -> None:
    waited, kill, application = Mock(), Mock(), Mock()
    monkeypatch.setattr(processes, "wait", waited)
    monkeypatch.setattr("os.kill", kill)
    monkeypatch.setattr("openapi.app.application", application)
    monkeypatch.setattr("multiprocessing.parent_process", lambda: Mock(sentinel=5))
    monkeypatch.setattr("threading.Thread", lambda target, args, daemon: Mock(start=lambda: target(*args)))  # noqa: ARG005
    assert processes.application() is application.return_value
    waited.assert_called_once_with([5])
    assert kill.call_args.args[1] == signal.SIGTERM
