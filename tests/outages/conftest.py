"""A replica at the near end of a wire that breaks, and one that looks on."""

import asyncio
import os
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from db.connections import Patience
from db.engine import Database
from db.urls import parse_url
from db.viewer import Viewer
from graphql_api.settings import Settings
from tests.conftest import cloned
from tests.factories import make_viewer
from tests.operations import until
from tests.outages.faults import Wire, faulty_wire
from tests.outages.postgres import OwnPostgres, copy_data, make_data
from tests.people import Parley, open_parley
from tests.streaming.scripted import Replica, ScriptedModel, replica

IS_LONG = os.environ.get("PARLEY_LONG_TESTS") == "1"
"Whether each fault is tried at each point, again and again; else at some of them."
PATIENCE = Patience(retry=20.0)
"More than the product's: where nothing is to be given up, a busy machine is no reason to."


@pytest.fixture
def tick_seconds() -> float:
    """How often replies under way are written, and followed from elsewhere."""
    return 0.02


@pytest.fixture(autouse=True)
def _quick_ticks(monkeypatch: pytest.MonkeyPatch, tick_seconds: float) -> None:  # pyright: ignore[reportUnusedFunction]
    monkeypatch.setattr("resolvers.runs.TICK_SECONDS", tick_seconds)
    monkeypatch.setattr("resolvers.watches.TICK_SECONDS", tick_seconds)
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


@pytest.fixture(scope="session")
def made_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    asyncio.run(make_data(folder))
    return folder


@pytest.fixture
async def postgres(made_data: Path, tmp_path: Path) -> AsyncGenerator[OwnPostgres]:
    """A migrated server that the test may stop, start and kill."""
    copy_data(made_data, tmp_path)
    postgres = OwnPostgres(tmp_path)
    try:
        await postgres.start()
        yield postgres
    finally:
        await postgres.stop()


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


@asynccontextmanager
async def parley_over(
    wire: Wire,
    settings: Settings,
    *,
    pool_size: int = 5,
    max_overflow: int = 15,
    patience: Patience = PATIENCE,
) -> AsyncGenerator[Parley]:
    """Start the application at the near end of a wire; when it asks nothing more, it is there."""
    database = Database(
        parse_url(wire.url), pool_size=pool_size, max_overflow=max_overflow, patience=patience
    )
    # People here ask again and again until it is back, as fast as the machine can.
    settings = settings.model_copy(update={"rate_limit": "off"})
    async with open_parley(settings, database) as parley:
        await until(
            lambda: not any(task.get_name() == "fill index" for task in asyncio.all_tasks())
        )
        yield parley
    await database.close()
