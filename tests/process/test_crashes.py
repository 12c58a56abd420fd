"""A server that dies, or is told to stop, in the middle of a reply and of an ingestion."""

import asyncio
import signal
import time
from asyncio import Event
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx2
import pytest
import pytest_asyncio
from sqlalchemy import text

from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.openai_server import OpenAIServer, openai_server, says
from tests.people import Person, open_parley
from tests.process.conversation import ADD_TEXT, DOCUMENT, HISTORY, last_message, search, send
from tests.process.processes import Server, postgres_url, served, until

pytestmark = pytest.mark.asyncio(loop_scope="session")

LEASE_SECONDS = 2.0
SETTINGS = {
    "REPLY_LEASE_SECONDS": str(LEASE_SECONDS),
    "SHUTDOWN_GRACE_SECONDS": "1",
}
HALF = "Half of a sentence"
LARGE = "\n\n".join(f"# Chapter {n}\n\n" + f"Word{n} is here. " * 60 for n in range(4_000))


@asynccontextmanager
async def replica(folder: Path, url: str) -> AsyncGenerator[httpx2.AsyncClient]:
    """Run another server on the same Postgres, within the test's own process."""
    settings = Settings.model_construct(data_dir=folder, reply_lease_seconds=LEASE_SECONDS)
    database = Database(parse_url(url))
    try:
        async with open_parley(settings, database) as parley:
            yield parley.http
    finally:
        await database.close()


async def begin_reply(person: Person, session_id: str) -> asyncio.Task[Any]:
    """Ask, and wait until the first half of the reply can be read."""

    async def ask() -> None:
        with suppress(httpx2.TransportError, AssertionError):  # its server goes away
            await send(person, "Say something.", sessionId=session_id)

    asking = asyncio.create_task(ask())
    reply = await until(
        lambda: last_message(person, session_id), lambda last: last and last["content"] == HALF
    )
    assert reply["status"] == "STREAMING"
    return asking


# --- kill -9 --------------------------------------------------------------------------


@dataclass
class Aftermath:
    """What was seen of a server's death, and the server that came after it."""

    server: Server
    openai: OpenAIServer
    key: str
    session_id: str
    document_id: str
    statuses: list[tuple[float, str]]
    "How the reply was read by another server on the same Postgres, by seconds after the death."

    def person(self) -> Person:
        return self.server.person(self.key)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def aftermath(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Aftermath]:
    folder = tmp_path_factory.mktemp("crash")
    key, session_id = str(uuid4()), str(uuid4())
    statuses: list[tuple[float, str]] = []
    async with openai_server() as openai:
        openai.script(says(HALF, Event(), ", which nobody heard."))
        settings = SETTINGS | {"OPENAI_BASE_URL": openai.url}
        async with served(folder / "data", **settings) as server:
            url = await asyncio.to_thread(postgres_url, server.data_dir)
            assert url
            async with replica(folder / "replica", url) as http:
                asking = await begin_reply(person := server.person(key), session_id)
                added = await person.ask(ADD_TEXT, text=LARGE)
                document_id = added["addDocument"]["document"]["id"]

                async def status() -> str:
                    return (await person.ask(DOCUMENT, id=document_id))["document"]["status"]

                await until(status, lambda status: status == "PROCESSING")
                await server.kill()
                death = time.monotonic()
                await asking
                elsewhere = Person(http, key)
                while not statuses or statuses[-1][1] == "STREAMING":
                    last = await last_message(elsewhere, session_id)
                    statuses.append((time.monotonic() - death, last["status"]))
                    assert statuses[-1][0] < 30
                    await asyncio.sleep(0.05)
            # The dead one's Postgres is left running, for the next one to adopt.
            async with served(folder / "data", **settings) as next_server:
                yield Aftermath(next_server, openai, key, session_id, document_id, statuses)


async def test_no_reader_sees_a_dead_reply_streaming_for_long(aftermath: Aftermath):
    seconds, status = aftermath.statuses[-1]
    assert status == "INTERRUPTED"
    assert seconds < LEASE_SECONDS + 5


async def test_a_dead_reply_keeps_its_text(aftermath: Aftermath):
    history = await aftermath.person().ask(HISTORY, id=aftermath.session_id)
    assert history["session"] == {"activeReply": None}
    assert history["messages"]["edges"][1]["node"] == {
        "role": "ASSISTANT",
        "status": "INTERRUPTED",
        "content": HALF,
        "error": {"code": "INTERRUPTED"},
    }


async def test_its_session_takes_new_messages(aftermath: Aftermath):
    aftermath.openai.script(says("Here I am again."))
    sent = await send(aftermath.person(), "Hello?", sessionId=aftermath.session_id)
    assert sent["reply"]["content"] == "Here I am again."
    assert sent["reply"]["status"] == "COMPLETE"


async def test_a_document_that_was_being_read_is_read_by_the_next_server(aftermath: Aftermath):
    person = aftermath.person()

    async def document() -> Any:
        return (await person.ask(DOCUMENT, id=aftermath.document_id))["document"]

    read = await until(document, lambda it: it["status"] in ("READY", "FAILED"), 60)
    assert (read["status"], read["error"]) == ("READY", None)
    assert read["chunkCount"] >= 4_000
    for n in (0, 3_999):
        assert await search(person, f"Word{n}")


# --- told to stop ---------------------------------------------------------------------


@dataclass
class Stopping:
    """A server that is in the middle of a reply."""

    server: Server
    key: str
    session_id: str


@pytest_asyncio.fixture(loop_scope="session")
async def stopping(tmp_path: Path) -> AsyncGenerator[Stopping]:
    key, session_id = str(uuid4()), str(uuid4())
    async with openai_server() as openai:
        openai.script(says(HALF, Event(), ", which nobody heard."))
        settings = SETTINGS | {"OPENAI_BASE_URL": openai.url}
        async with served(tmp_path / "data", **settings) as server:
            asking = await begin_reply(server.person(key), session_id)
            yield Stopping(server, key, session_id)
        await asking


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_a_reply_is_stored_before_the_server_stops(
    end: signal.Signals, stopping: Stopping, tmp_path: Path
):
    server = stopping.server
    ended = await (server.interrupt() if end is signal.SIGINT else server.terminate())
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err
    postgres = EmbeddedPostgres(server.data_dir / "postgres")
    try:
        url = await asyncio.to_thread(postgres.start)
        async with replica(tmp_path / "replica", url) as http:
            last = await last_message(Person(http, stopping.key), stopping.session_id)
    finally:
        await asyncio.to_thread(postgres.stop)
    assert (last["status"], last["content"]) == ("INTERRUPTED", HALF)


async def test_ctrl_c_twice_does_not_hang(stopping: Stopping):
    stopping.server.process.press_ctrl_c()
    await asyncio.sleep(0.3)  # an impatient person
    stopping.server.process.press_ctrl_c()
    ended = await stopping.server.process.ended(15)
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err


async def test_a_server_stops_while_it_stores_passages(tmp_path: Path):
    async with served(tmp_path / "data", **SETTINGS) as server:
        url = await asyncio.to_thread(postgres_url, server.data_dir)
        assert url
        database = Database(parse_url(url), pool_size=1)

        async def storing() -> object:
            statement = text(
                "SELECT count(*) FROM pg_stat_activity"
                " WHERE query LIKE 'INSERT INTO document_chunks%' AND query_start > :since"
            )
            return (await database.rows(statement, {"since": since}))[0][0]

        try:
            since = (await database.rows(text("SELECT clock_timestamp()"), {}))[0][0]
            # So large that storing takes longer than the server takes to hear of its end.
            await server.person().ask(ADD_TEXT, text="\n\n".join([LARGE] * 3))
            await until(storing, bool, 60)
        finally:
            await database.close()
        server.process.press_ctrl_c()
        ended = await server.process.ended(30)
        assert ended.code == 0, ended
        assert "Traceback" not in ended.err
