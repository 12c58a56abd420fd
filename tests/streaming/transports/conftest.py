"""One server for all transports; each test has viewers of its own."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import uuid4

import pytest
import pytest_asyncio

from db.engine import Database
from db.models import MessageStatus
from db.urls import parse_url
from graphql_api.settings import Settings
from resolvers.events import StreamEvent
from resolvers.streams import ReplyStream
from tests.conftest import cloned
from tests.operations import until
from tests.streaming.scripted import ScriptedModel
from tests.streaming.transports.asking import ELSEWHERE
from tests.streaming.wire import (
    Served,
    served,
)


class Live:
    """How many generators are following some stream."""

    def __init__(self) -> None:
        self.count = 0


@pytest_asyncio.fixture(scope="package", loop_scope="package")
async def server(
    postgres_url: str, tmp_path_factory: pytest.TempPathFactory
) -> AsyncGenerator[Served]:
    """It takes pages of its own origin, and of one other."""
    settings = Settings.model_construct(
        data_dir=tmp_path_factory.mktemp("transports") / "data",
        allowed_origins=frozenset({ELSEWHERE}),
        shutdown_grace_seconds=0.1,
    )
    async with cloned(postgres_url) as url:
        database = Database(parse_url(url))
        async with served(settings, database) as server:
            yield server
        await database.close()


@pytest_asyncio.fixture(loop_scope="package")
async def voices(server: Served) -> AsyncGenerator[ScriptedModel]:
    """The server's model, silent at first, and with nothing to say in the end."""
    server.model.voices.clear()
    yield server.model
    for run in server.services.running._runs.values():
        run.stop(MessageStatus.STOPPED)
    await until(lambda: not server.services.running._runs)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Live:
    live, follow = Live(), ReplyStream.follow

    async def counted(stream: ReplyStream, offset: int) -> AsyncGenerator[StreamEvent]:
        live.count += 1
        try:
            async with aclosing(follow(stream, offset)) as events:
                async for event in events:
                    yield event
        finally:
            live.count -= 1

    monkeypatch.setattr(ReplyStream, "follow", counted)
    return live


@pytest.fixture
def key() -> str:
    return str(uuid4())
