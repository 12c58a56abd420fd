"""An event loop that stands still says so, and where."""

import asyncio
import time
from collections.abc import Generator
from typing import Any

import pytest
from structlog.testing import capture_logs

from graphql_api.stalls import stalls_logged
from tests.operations import until

STALL_SECONDS = 0.2


@pytest.fixture
def logged() -> Generator[list[Any]]:
    with capture_logs() as logged:
        yield logged


def compute_for_long() -> None:
    time.sleep(STALL_SECONDS * 5)


async def test_a_stall_is_logged_with_where_it_was(logged: list[Any]):
    async with stalls_logged(STALL_SECONDS):
        await asyncio.sleep(0)  # the watch has begun
        compute_for_long()
        await until(lambda: bool(logged))
    assert logged[0]["event"] == "loop.stalled"
    assert logged[0]["milliseconds"] >= STALL_SECONDS * 1000
    innermost = logged[0]["at"].split(" < ")[0]
    assert innermost.startswith("graphql_api/test_stalls.py:")
    assert innermost.endswith(" compute_for_long")


async def test_nothing_watches_once_it_is_over():
    before = asyncio.all_tasks()
    async with stalls_logged():
        assert asyncio.all_tasks() > before
    assert asyncio.all_tasks() == before
