"""`DATABASE_READ_URL`: a real standby answers GraphQL's queries, and nothing else."""

import asyncio
import shutil
from collections.abc import AsyncGenerator, Generator
from typing import Any

import httpx2
import pytest
from pydantic import SecretStr
from sqlalchemy import text

from db import migration
from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.models import MessageStatus
from db.urls import parse_url
from graphql_api.app import create_app
from graphql_api.instance import Held, open_database
from graphql_api.settings import Settings
from tests.db.everything import FOLLOW, LISTED
from tests.factories import EXPIRED, make_session, make_streaming_reply
from tests.graphql_api.rest.frontends import Frontend
from tests.operations import DOCUMENT, MESSAGE, add_text, send, session, stop
from tests.people import Parley
from tests.process.processes import until
from tests.statements import recorded

LOOK = f"""query ($session: ID!, $reply: ID!, $document: ID!) {{
  viewer {{ id auditLog {LISTED} }}
  node(id: $reply) {{ __typename }}
  session(id: $session) {{ lastMessage {{ id }} activeReply {{ id }} messages {LISTED} }}
  sessions {LISTED}
  messages(sessionId: $session) {{ totalCount edges {{ node {MESSAGE} }} }}
  message(id: $reply) {MESSAGE}
  document(id: $document) {DOCUMENT}
  documents {LISTED}
}}"""
"All that can be looked at, but for `searchDocuments`."


@pytest.fixture(scope="module")
def urls(tmp_path_factory: pytest.TempPathFactory) -> Generator[tuple[str, str]]:
    """A primary, and a standby that was copied from it and streams what comes after."""
    folder = tmp_path_factory.mktemp("servers")
    primary, standby = [EmbeddedPostgres(folder / name) for name in ("primary", "standby")]
    try:
        asyncio.run(_migrate(primary.start()))
        primary.stop()
        with (folder / "primary" / "pgdata" / "pg_hba.conf").open("a") as rules:
            rules.write("host replication all 127.0.0.1/32 scram-sha-256\n")
        shutil.copytree(folder / "primary", folder / "standby")
        url = primary.start()
        copied = folder / "standby" / "pgdata"
        (copied / "standby.signal").touch()
        with (copied / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = '{url}'\n")
        yield url, standby.start()
    finally:
        standby.stop()
        primary.stop()


async def _migrate(url: str) -> None:
    database = Database(parse_url(url))
    await migration.upgrade(database)
    await database.close()


@pytest.fixture
async def held(settings: Settings, urls: tuple[str, str]) -> AsyncGenerator[Held]:
    given = zip(("database_url", "database_read_url"), map(SecretStr, urls), strict=True)
    async with open_database(settings.model_copy(update=dict(given))) as held:
        yield held


@pytest.fixture
async def parley(settings: Settings, held: Held) -> AsyncGenerator[Parley]:
    app = create_app(settings, held.database, reads=held.reads)
    async with app.router.lifespan_context(app):
        transport = httpx2.ASGITransport(app)
        async with httpx2.AsyncClient(transport=transport, base_url="http://parley") as http:
            yield Parley(http, app.state.services, held.database)


@pytest.fixture
async def behind(held: Held) -> AsyncGenerator[None]:
    """Let the standby stay where it is."""
    await ask(held.reads, "SELECT pg_wal_replay_pause()")
    await until(lambda: ask(held.reads, "SELECT pg_get_wal_replay_pause_state()"), "paused".__eq__)
    yield
    await ask(held.reads, "SELECT pg_wal_replay_resume()")


async def ask(database: Database, question: str, **values: Any) -> Any:
    return (await database.rows(text(question), values))[0][0]


async def caught_up(held: Held) -> None:
    """Wait until the standby has all that the primary had."""
    written = await ask(held.database, "SELECT pg_current_wal_lsn()::text")
    is_there = "SELECT pg_last_wal_replay_lsn() >= CAST(CAST(:written AS text) AS pg_lsn)"
    await until(lambda: ask(held.reads, is_there, written=written), bool)


async def test_a_query_asks_the_replica_alone(parley: Parley, held: Held):
    alice = parley.person()
    document = (await add_text(alice, "A lease is a promise."))["document"]["id"]
    await parley.documents_read()
    sent = await send(alice)
    await caught_up(held)
    asked = {"session": sent["session"]["id"], "reply": sent["reply"]["id"], "document": document}
    with recorded(held.database) as statements:
        seen = await alice.ask(LOOK, **asked)
    assert statements == []
    assert all(seen.values()), seen
    assert seen["messages"]["totalCount"] == 2


@pytest.mark.usefixtures("behind")
async def test_a_query_right_after_a_mutation_may_not_see_it(parley: Parley):
    alice = parley.person()
    sent = await send(alice)
    assert sent["session"]["messageCount"] == 2
    assert await session(alice, sent["session"]["id"]) is None


@pytest.mark.usefixtures("behind")
async def test_what_is_not_a_query_asks_the_primary(parley: Parley):
    alice = parley.person()
    sent = await send(alice)
    session_id, reply = sent["session"]["id"], sent["reply"]["id"]
    assert (await send(alice, sessionId=session_id))["session"]["messageCount"] == 4
    assert '"COMPLETE"' in await alice.text(FOLLOW, id=reply)
    assert (await stop(alice, reply))["reply"]["status"] == "COMPLETE"
    frontend = Frontend(alice)
    history = await frontend.get("/chat/history", session_id=session_id)
    assert len(history["messages"]) == 4


async def test_a_dead_servers_reply_reads_as_interrupted_and_nothing_is_written(
    parley: Parley, held: Held
):
    alice = parley.person()
    id = await make_session(held.database, owner=alice.viewer)
    reply = await make_streaming_reply(held.database, owner=alice.viewer, session=id, lease=EXPIRED)
    await caught_up(held)
    seen = await session(alice, str(id))
    assert seen["messages"]["edges"][-1]["node"]["status"] == "INTERRUPTED"
    stored = "SELECT status FROM chat_messages WHERE id = :id"
    assert await ask(held.database, stored, id=reply) == MessageStatus.STREAMING
