"""Slots are shared among users in turn, and none is lost."""

import asyncio
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from openapi.slots import Slots


async def settle() -> None:
    """Let every task go as far as it can."""
    for _ in range(5):
        await asyncio.sleep(0)


@pytest.mark.parametrize(("size", "share"), [(1, 1), (2, 1), (3, 1), (10, 5), (11, 5)])
def test_a_user_holds_at_most_half_of_the_slots(size: int, share: int) -> None:
    slots = Slots(size)
    assert [slots.take("greedy") for _ in range(size + 1)] == [True] * share + [False] * (size + 1 - share)
    assert slots.free == size - share


def test_a_users_share_may_be_another_one() -> None:
    slots = Slots(10, share=3)
    assert [slots.take("greedy") for _ in range(4)] == [True] * 3 + [False]


def test_users_who_wait_are_served_in_turn_and_one_users_requests_in_order() -> None:
    served: list[str] = []

    async def ask(slots: Slots, user: str, name: str) -> None:
        await slots.acquire(user)
        served.append(name)

    async def run() -> None:
        slots = Slots(1)
        assert slots.take("busy")
        async with asyncio.TaskGroup() as tasks:
            for number in range(4):
                tasks.create_task(ask(slots, "greedy", f"greedy {number}"))
            await settle()
            tasks.create_task(ask(slots, "modest", "modest"))
            await settle()
            for holder in ("busy", "greedy", "modest", "greedy", "greedy"):
                slots.release(holder)
                await settle()

    asyncio.run(run())
    assert served == ["greedy 0", "modest", "greedy 1", "greedy 2", "greedy 3"]


def test_a_user_who_holds_their_share_is_passed_over() -> None:
    async def run() -> None:
        slots = Slots(2)
        assert slots.take("greedy")
        assert slots.take("busy")
        greedy = asyncio.create_task(slots.acquire("greedy"))
        modest = asyncio.create_task(slots.acquire("modest"))
        await settle()
        slots.release("busy")
        await asyncio.wait_for(modest, 5)
        assert not greedy.done()
        slots.release("greedy")
        await asyncio.wait_for(greedy, 5)

    # In a thread of its own: where greenlets have run, coverage may have lost its trace.
    with ThreadPoolExecutor() as threads:
        threads.submit(asyncio.run, run()).result()


def test_a_turn_that_was_granted_and_cancelled_at_once_goes_to_the_next() -> None:
    async def run() -> None:
        slots = Slots(1)
        assert slots.take("busy")
        first, second = (asyncio.create_task(slots.acquire(user)) for user in ("first", "second"))
        await settle()
        slots.release("busy")
        first.cancel()  # before it has heard of its slot
        await asyncio.wait_for(second, 5)
        assert first.cancelled()
        slots.release("second")
        assert slots.free == 1

    asyncio.run(run())


def test_a_turn_that_has_just_been_cancelled_is_passed_over() -> None:
    async def run() -> None:
        slots = Slots(1)
        assert slots.take("busy")
        first, second = (asyncio.create_task(slots.acquire("same")) for _ in range(2))
        await settle()
        first.cancel()
        slots.release("busy")
        await asyncio.wait_for(second, 5)
        slots.release("same")
        assert slots.free == 1

    asyncio.run(run())


STEPS = st.lists(st.tuples(st.sampled_from(["ask", "release", "cancel"]), st.integers(0, 3)), max_size=60)


@given(size=st.integers(1, 6), steps=STEPS)
def test_whatever_users_do_no_slot_is_lost_and_none_waits_who_may_have_one(size: int, steps: Any) -> None:
    async def run() -> None:
        slots = Slots(size)
        tasks: dict[str, list[asyncio.Task[None]]] = {}
        for action, number in steps:
            user = f"user {number}"
            asked = tasks.setdefault(user, [])
            if action == "ask":
                asked.append(asyncio.create_task(slots.acquire(user)))
            else:
                found = next((one for one in asked if one.done() == (action == "release")), None)
                if found:
                    asked.remove(found)
                    slots.release(user) if action == "release" else found.cancel()
            await settle()
            held = Counter({user: sum(one.done() for one in asked) for user, asked in tasks.items()})
            waiting = {user for user, asked in tasks.items() if not all(one.done() for one in asked)}
            assert slots.free == size - held.total() >= 0
            assert all(count <= slots.share for count in held.values())
            assert not slots.free or all(held[user] == slots.share for user in waiting)
        for asked in tasks.values():
            for one in asked:
                one.cancel()
        await settle()

    asyncio.run(run())
