"""Every connection is killed each second, while people send and look up messages."""

import asyncio
import os
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from db.engine import Database
from tests.outages.faults import Wire
from tests.outages.load import Load
from tests.process.processes import Server, served
from tests.streaming.scripted import sql

IS_LONG = os.environ.get("PARLEY_LONG_TESTS") == "1"
STORM_SECONDS = 30 if IS_LONG else 6
CALM_SECONDS = 10 if IS_LONG else 3
P95_SECONDS = 0.2 if IS_LONG else 1.0
"Where all tests are run on a busy machine, a look-up takes what the machine leaves it."
KILL = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@pytest.fixture
async def server(wire: Wire, tmp_path: Path) -> AsyncGenerator[Server]:
    async with served(tmp_path / "data", DATABASE_URL=wire.url, RATE_LIMIT="off") as server:
        yield server


async def test_in_calm_weather_connections_come_about_and_look_ups_are_quick(
    server: Server, wire: Wire, onlooker: Database, capsys: pytest.CaptureFixture[str]
):
    load = Load(server, wire)
    async with load.going():
        await asyncio.sleep(CALM_SECONDS)  # the load itself is what is looked at
    load.tell("In calm weather", capsys)
    assert load.put_off == 0
    assert load.connection_success > 0.99
    assert load.p95_seconds < P95_SECONDS
    await load.check(onlooker)


async def test_no_message_is_lost_or_doubled_in_a_storm(
    server: Server, wire: Wire, onlooker: Database, capsys: pytest.CaptureFixture[str]
):
    load, killed = Load(server, wire), 0
    async with load.going():
        for _ in range(STORM_SECONDS):
            await asyncio.sleep(1)
            killed += (await sql(onlooker, KILL))[0][0]
    load.tell(f"In a storm that killed {killed} connections", capsys)
    assert killed >= STORM_SECONDS
    assert load.connection_success > 0.99
    assert load.p95_seconds < P95_SECONDS
    await load.check(onlooker)
