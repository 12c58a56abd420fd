"""One server for all of these tests, and what must be so after each."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio
import structlog
from structlog.testing import LogCapture

from db.engine import Database
from db.models import MessageStatus
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.conftest import cloned
from tests.operations import until
from tests.protocol.exchange import post
from tests.streaming.scripted import ScriptedModel
from tests.streaming.wire import Served, served

UVICORN_ON_BAD_UTF8 = "Invalid UTF-8 sequence received from client."
"It says so with a traceback, whatever is served."


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def server(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Served]:
    """A server with the defaults. Each test has viewers of its own."""
    folder = tmp_path_factory.mktemp("protocol") / "data"
    settings = Settings.model_construct(data_dir=folder, shutdown_grace_seconds=0.1)
    async with cloned(postgres_url) as url:
        database = Database(parse_url(url))
        async with served(settings, database) as server:
            yield server
        await database.close()


@pytest_asyncio.fixture(loop_scope="package")
async def voices(server: Served) -> AsyncGenerator[ScriptedModel]:
    """The server's model, silent at first; what it still says in the end is stopped."""
    server.model.voices.clear()
    yield server.model
    for run in server.services.running._runs.values():
        run.stop(MessageStatus.STOPPED)
    await until(lambda: not server.services.running._runs)


@pytest.fixture
def key() -> str:
    return str(uuid4())


@pytest.fixture
def logged() -> Generator[list[Any]]:
    """What is logged, as events with their fields."""
    configuration = structlog.get_config()
    capture = LogCapture()
    structlog.configure(processors=[structlog.contextvars.merge_contextvars, capture])
    yield capture.entries
    structlog.configure(**configuration)


@pytest_asyncio.fixture(loop_scope="package")
async def unharmed(
    server: Served, logged: list[Any], caplog: pytest.LogCaptureFixture
) -> AsyncGenerator[None]:
    """After the test the server answers, has no task left over, and has logged no traceback."""
    before = asyncio.all_tasks()
    yield
    mine = {asyncio.current_task()}
    await until(lambda: not asyncio.all_tasks() - before - mine)
    assert (await post(server.port, "{ __typename }")).json == {"data": {"__typename": "Query"}}
    assert not [entry for entry in logged if entry["event"].endswith(".failed")]
    faults = [each.getMessage() for each in caplog.get_records("call") if each.exc_info]
    assert not [fault for fault in faults if fault != UVICORN_ON_BAD_UTF8]
