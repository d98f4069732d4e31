"""The service behind a transaction pooler, as on Neon."""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from settings.settings import Settings
from tests.support.client import Client, Conformance
from tests.support.server import Server


def test_users_who_share_pooled_connections_see_only_their_own_tasks(
    pooler_url: str, make_settings: Callable[..., Settings], conformance: Conformance
) -> None:
    with Server(make_settings(database_url=pooler_url)) as server:
        clients = [Client(server.url, conformance, token=server.token(sub=f"pooled-{n}")) for n in range(8)]

        def work(number: int) -> list[str]:
            client = clients[number]
            for step in range(10):
                task = client.create(f"{number} {step}")
                client.patch(f"/api/tasks/{task['id']}/complete")
            return sorted(client.titles(status="completed"))

        with ThreadPoolExecutor(len(clients)) as threads:
            seen = list(threads.map(work, range(len(clients))))
        for client in clients:
            client.close()
    assert seen == [[f"{number} {step}" for step in range(10)] for number in range(8)]
