"""Behind a real PgBouncer in transaction mode, with a few server connections for everybody."""

import asyncio
import json
import os
from asyncio import Event
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import make_url, text

from db import migration
from db.engine import Database
from db.errors import DatabaseUrlInvalid
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.conftest import cloned
from tests.openai_server import OpenAIServer, says
from tests.operations import SESSION, being_written, send
from tests.people import Parley, Person, open_parley
from tests.postgres.activity import watching
from tests.postgres.servers import Pooler, needs_pgbouncer, pgbouncer
from tests.process.conversation import send as send_to_process
from tests.process.processes import run, served

pytestmark = needs_pgbouncer

CONVERSATIONS = 200
PIECES = 60 if "PARLEY_LONG_TESTS" in os.environ else 3
"How often a model speaks: each time, a tick of all 200 replies goes through the pooler."
ASK = """mutation ($input: SendMessageInput!) {
  sendMessage(input: $input) {
    ... on SendMessageSuccess { reply { status } }
  }
}"""
STREAM = """subscription ($input: SendMessageInput!) {
  sendMessage(input: $input) {
    __typename
    ... on ReplyDelta { text }
    ... on ReplyEnded { reply { status } }
  }
}"""
STREAMING = "FROM chat_messages WHERE status = 'STREAMING' AND content = :text"


@pytest.fixture(scope="module")
def three(postgres_url: str) -> Generator[Pooler]:
    with pgbouncer(postgres_url, server_connections=3) as pooler:
        yield pooler


@pytest.fixture(scope="module")
def ten(postgres_url: str) -> Generator[Pooler]:
    with pgbouncer(postgres_url, server_connections=10) as pooler:
        yield pooler


def name_of(url: str) -> str:
    name = make_url(url).database
    assert name
    return name


@asynccontextmanager
async def pooled(pooler: Pooler, url: str) -> AsyncGenerator[Database]:
    """Come to a database through the pooler, otherwise as Parley does by default."""
    database = Database(parse_url(pooler.url(name_of(url)), "transaction"))
    try:
        yield database
    finally:
        await database.close()


async def converse(person: Person) -> int:
    """Say two things in one session, and read it; gives how many operations failed."""
    session_id, failures = str(uuid4()), 0
    for question in ("What is a lease?", "And who renews it?"):
        sent = await person.post(ASK, input={"content": question, "sessionId": session_id})
        failures += sent.get("data") != {"sendMessage": {"reply": {"status": "COMPLETE"}}}
    read = await person.text(SESSION, id=session_id)
    return failures + ('"messageCount":4' not in read)


async def test_three_server_connections_carry_200_conversations(
    three: Pooler, settings: Settings, database_url: str
):
    name = name_of(database_url)
    async with pooled(three, database_url) as database, watching(database_url) as watcher:
        async with open_parley(settings, database) as parley:
            people = [parley.person() for _ in range(CONVERSATIONS)]
            failures = await asyncio.gather(*map(converse, people))
            passed_on = await asyncio.to_thread(three.show, "STATS", name)
            busy = await asyncio.to_thread(three.show, "POOLS", name)
        assert sum(failures) == 0
        assert passed_on["total_xact_count"] >= 2_000
        assert busy["sv_active"] + busy["sv_idle"] + busy["sv_used"] == 3
        assert watcher.most == 3


async def test_ten_server_connections_carry_200_streamed_replies(
    ten: Pooler, settings: Settings, model: OpenAIServer, database_url: str
):
    """All of them are under way at once: the next piece comes when every row holds the last."""
    settings = settings.model_copy(update={"openai_base_url": model.url})
    gates = [Event() for _ in range(PIECES)]
    pieces = [each for gate in gates for each in (" and so on", gate)]
    model.script(*[says("One", *pieces)] * CONVERSATIONS)
    async with pooled(ten, database_url) as database, watching(database_url) as watcher:
        async with open_parley(settings, database) as parley:
            streams = [asyncio.create_task(_stream(parley)) for _ in range(CONVERSATIONS)]
            for number, gate in enumerate(gates, 1):
                text = "One" + " and so on" * number
                await watcher.until_rows(CONVERSATIONS, STREAMING, text=text)
                gate.set()
            ends = await asyncio.gather(*streams)
        assert ends == [("One" + " and so on" * PIECES, "COMPLETE")] * CONVERSATIONS
        assert 0 < watcher.most <= 10


async def _stream(parley: Parley) -> tuple[str, str]:
    """Ask for a reply as an event stream; gives what was told of it, and how it ended."""
    message = {"content": "Count.", "messageId": str(uuid4())}
    told = await parley.person().text(STREAM, input=message)
    events = [json.loads(line[6:]) for line in told.splitlines() if line.startswith("data: {")]
    data = [event["data"]["sendMessage"] for event in events]
    return "".join(each.get("text", "") for each in data), data[-1]["reply"]["status"]


async def test_single_statements_find_what_they_prepared(three: Pooler, database_url: str):
    """Each is sent outside a transaction, so any server connection may get any part of it."""
    async with pooled(three, database_url) as database:

        async def ask(number: int) -> int:
            [[answer]] = await database.rows(text("SELECT CAST(:n AS int)"), {"n": number})
            return answer

        assert await asyncio.gather(*map(ask, range(500))) == list(range(500))


async def test_nothing_stays_prepared_on_the_server(three: Pooler, database_url: str):
    async with pooled(three, database_url) as database:
        for _ in range(3):
            await database.rows(text("SELECT CAST(:n AS int)"), {"n": 1})
        [[prepared]] = await database.rows(text("SELECT count(*) FROM pg_prepared_statements"), {})
    assert prepared == 0


async def test_a_replica_follows_and_stops_what_another_one_writes(
    three: Pooler, settings: Settings, model: OpenAIServer, database_url: str, tmp_path: Path
):
    """Stop requests and text go through rows alone: nothing listens, which poolers break."""
    settings = settings.model_copy(update={"openai_base_url": model.url})
    model.script(says("One", Event()))
    async with (
        pooled(three, database_url) as one,
        pooled(three, database_url) as two,
        open_parley(settings, one) as a,
        open_parley(settings.model_copy(update={"data_dir": tmp_path}), two) as b,
    ):
        writer = a.person()
        reader = Person(b.http, writer.key)
        sending = asyncio.create_task(send(writer, "Count."))
        await being_written(a, "One")
        [reply] = [run.reply for run in a.services.running._runs.values()]
        stop = f'mutation {{ stopReply(input: {{messageId: "{reply.id}"}}) {{ __typename }} }}'
        await reader.ask(stop)
        sent = await sending
    assert (sent["reply"]["status"], sent["reply"]["content"]) == ("STOPPED", "One")


async def test_migrations_go_through_it_where_there_is_no_way_past(
    three: Pooler, postgres_url: str
):
    async with cloned(postgres_url, "template0") as url, pooled(three, url) as database:
        await asyncio.gather(*(migration.upgrade(database) for _ in range(2)))
        assert not (await migration.schema_state(database)).is_behind


async def test_a_whole_process_serves_through_it(three: Pooler, postgres_url: str, tmp_path: Path):
    async with cloned(postgres_url, "template0") as url:
        settings = {"DATABASE_URL": three.url(name_of(url)), "DATABASE_POOLER": "transaction"}
        migrated = await run("migrate", cwd=tmp_path, DATABASE_DIRECT_URL=url, **settings)
        assert migrated.code == 0, migrated
        async with served(tmp_path / "data", **settings) as server:
            sent: Any = await send_to_process(server.person(), "Hello")
            assert sent["reply"]["status"] == "COMPLETE"


async def test_without_saying_so_the_pooler_breaks_it(three: Pooler, database_url: str):
    """So the other tests do test something: PgBouncer 1.18 knows no prepared statements."""
    database = Database(parse_url(three.url(name_of(database_url)), "none"))

    async def ask(number: int) -> bool:
        try:
            await database.rows(text(f"SELECT {number % 7}, CAST(:n AS int)"), {"n": number})
        except Exception:
            return False
        return True

    answered = await asyncio.gather(*map(ask, range(200)))
    await database.close()
    assert not all(answered)


@pytest.mark.parametrize("options", ["-c%20statement_timeout%3D5s", "-c%20search_path%3Dchat"])
def test_server_settings_are_refused_behind_a_pooler(options: str):
    with pytest.raises(DatabaseUrlInvalid, match="pooler"):
        parse_url(f"postgresql://a:b@127.0.0.1/chat?options={options}", "transaction")
