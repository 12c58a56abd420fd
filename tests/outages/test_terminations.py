"""Every connection is killed each second, while people send and look up messages."""

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from db.engine import Database
from tests.outages.conftest import IS_LONG
from tests.outages.faults import Wire
from tests.outages.load import Load
from tests.process.processes import Server, served
from tests.streaming.scripted import sql

STORM_SECONDS = 30 if IS_LONG else 5
CALM_SECONDS = 10 if IS_LONG else 2
KILL = """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()"""


@pytest.fixture
async def server(wire: Wire, tmp_path: Path) -> AsyncGenerator[Server]:
    async with served(tmp_path / "data", DATABASE_URL=wire.url, RATE_LIMIT="off") as server:
        yield server


async def test_in_calm_weather_connections_come_about_and_nobody_is_put_off(
    server: Server, wire: Wire, onlooker: Database, capsys: pytest.CaptureFixture[str]
):
    load = Load(server, wire)
    async with load.going():
        await asyncio.sleep(CALM_SECONDS)  # the load itself is what is looked at
    load.tell("In calm weather", capsys)
    assert load.put_off == 0
    assert load.connection_success > 0.99
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
    assert killed
    await load.check(onlooker)
