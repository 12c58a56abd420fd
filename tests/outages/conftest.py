"""A replica at the near end of a wire that breaks, and one that looks on."""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator

import pytest

from db.connections import Patience
from db.engine import Database
from db.viewer import Viewer
from tests.conftest import cloned
from tests.factories import make_viewer
from tests.outages.faults import Wire, faulty_wire
from tests.streaming.scripted import Replica, ScriptedModel, replica

PATIENCE = Patience(connect=1.0, acquire=5.0, statement=5.0, retry=2.0)
"The product's, but shorter."


# They take minutes, and need a machine of their own.
collect_ignore_glob = [] if "PARLEY_LONG_TESTS" in os.environ else ["test_*.py"]


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr("resolvers.runs.TICK_SECONDS", 0.02)
    monkeypatch.setattr("resolvers.watches.TICK_SECONDS", 0.02)
    monkeypatch.setattr("resolvers.runs.END_RETRY_SECONDS", 0.05)


@pytest.fixture
def voices() -> ScriptedModel:
    return ScriptedModel()


@pytest.fixture
def viewer() -> Viewer:
    return make_viewer()


@pytest.fixture(scope="module")
def shared_url(postgres_url: str) -> Generator[str]:
    """A database for all tests of a module, where each leaves it as whole as it found it."""
    database = cloned(postgres_url)
    with asyncio.Runner() as runner:
        yield runner.run(database.__aenter__())
        runner.run(database.__aexit__(None, None, None))


@pytest.fixture
async def wire(database_url: str) -> AsyncGenerator[Wire]:
    async with faulty_wire(database_url) as wire:
        yield wire


@pytest.fixture
async def a(wire: Wire, voices: ScriptedModel) -> AsyncGenerator[Replica]:
    """Has one connection, so that what it asks comes in order."""
    async with replica(wire.url, voices, pool_size=1, patience=PATIENCE) as opened:
        yield opened


@pytest.fixture
def onlooker(database: Database) -> Database:
    """The database, by a way that never breaks."""
    return database
