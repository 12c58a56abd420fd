"""Many people at once, who often hang up: nobody is told what is another's, and nothing is left."""

import asyncio
import gc
import os
from collections.abc import AsyncGenerator, Coroutine, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from logging import ERROR
from random import Random
from time import time_ns
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text
from structlog.testing import capture_logs

from db.engine import Database
from db.models import MessageStatus
from db.urls import parse_url
from graphql_api.services import Services
from graphql_api.settings import Settings
from resolvers.events import Ended
from resolvers.new_messages import NewMessage
from tests.factories import make_session, make_streaming_reply, make_viewer
from tests.isolation.chatters import DEADLINE_SECONDS, HANGING_UP, Chatter, Crowd
from tests.isolation.servers import listening, port_of
from tests.outages.faults import Moment, Wire, faulty_wire
from tests.people import open_parley

REQUESTS = 10_000 if os.environ.get("PARLEY_LONG_TESTS") == "1" else 1_000
"The longer one takes minutes; the shorter finds what is open to anybody all the same."
VIEWERS = 50
SEED = int(os.environ.get("PARLEY_SOAK_SEED", time_ns()))
"What they ask for, and when they hang up; not how it falls out."

STORED = """
SELECT user_id, CAST(row AS text) FROM chat_sessions AS row
UNION ALL SELECT user_id, CAST(row AS text) FROM chat_messages AS row
UNION ALL SELECT user_id, CAST(row AS text) FROM audit_logs AS row
UNION ALL SELECT owner_id, CAST(row AS text) FROM documents AS row
UNION ALL SELECT owner_id, chunk.content FROM document_chunks AS chunk
  JOIN documents ON documents.id = chunk.document_id"""
UNANSWERED = """
SELECT sent.entity_id, reply.status FROM audit_logs AS sent
LEFT JOIN chat_messages AS reply
  ON reply.user_id = sent.user_id AND reply.id = CAST(sent.detail->>'reply_id' AS uuid)
WHERE sent.action = 'send'
AND (reply.id IS NULL OR reply.status = 'STREAMING' OR reply.completed_at IS NULL)
AND NOT EXISTS (
  SELECT FROM audit_logs AS gone
  WHERE gone.user_id = sent.user_id AND gone.action IN ('delete', 'clear')
    AND CAST(gone.entity_id AS text) IN (sent.detail->>'session_id', sent.detail->>'reply_id')
)"""
"Messages that were accepted and have no reply that has ended, though nobody deleted it."
MISCOUNTED = """
SELECT session.id FROM chat_sessions AS session
LEFT JOIN chat_messages AS message
  ON message.user_id = session.user_id AND message.session_id = session.id
GROUP BY session.user_id, session.id
HAVING session.message_count <> count(message.id)
  OR session.last_position < coalesce(max(message.position), 0)"""
BUSY = """
SELECT state, query FROM pg_stat_activity
WHERE datname = current_database() AND backend_type = 'client backend'
  AND pid <> pg_backend_pid() AND state <> 'idle'"""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # A query that is slow because the machine is busy is no failure.
    return settings.model_copy(
        update={"rate_limit": "off", "query_timeout_seconds": DEADLINE_SECONDS}
    )


# A query whose client has gone is cancelled, and graphql-core never begins the rest of its fields.
# Such a coroutine is reported when it is collected, wherever that happens to be.
@pytest.mark.filterwarnings(
    "ignore:coroutine '(GraphQLCoreConverter|Executor).* was never awaited:RuntimeWarning",
    "ignore:Exception ignored in. <coroutine object (GraphQLCoreConverter|Executor)"
    ":pytest.PytestUnraisableExceptionWarning",
)
async def test_nobody_is_told_what_is_anothers(
    settings: Settings, database: Database, caplog: pytest.LogCaptureFixture
):
    with capture_logs() as logged:
        await _let_them_chat(settings, database)
    # What befell those who had hung up is told here alone; `caplog` has what asyncio says.
    assert [each for each in logged if each["log_level"] == "error"] == []
    assert [each.getMessage() for each in caplog.records if each.levelno >= ERROR] == []


async def _let_them_chat(settings: Settings, database: Database) -> None:
    async with listening(settings, database) as parley:
        await parley.http.get("/health")
        crowd, random = Crowd(port_of(parley)), Random(SEED)
        chatters = [Chatter(crowd, Random(random.random())) for _ in range(VIEWERS)]
        try:
            async with all_ending(), asyncio.TaskGroup() as group:
                for chatter in chatters:
                    group.create_task(chatter.chat(REQUESTS // VIEWERS))
            assert crowd.asked == REQUESTS
            assert crowd.hung_up.total() > (HANGING_UP - 0.02) * REQUESTS
            assert crowd.telling > REQUESTS / 4, "they would notice"
            await check_books(database, chatters)
            await check_pool(database)
        except BaseException as failure:
            failure.add_note(f"PARLEY_SOAK_SEED={SEED}; {crowd.answered=} {crowd.hung_up=}")
            raise
    gc.collect()  # what is ignored here is a failure of whichever test comes next


# --- at a moment that takes many requests to be met -----------------------------------


@dataclass(frozen=True)
class Near:
    """The application at the near end of a wire."""

    wire: Wire
    services: Services

    async def hang_up_at(self, statement: str, asked: Coroutine[Any, Any, object]) -> None:
        """Cancel what asks for something once Postgres has done a statement of it."""
        asking = asyncio.create_task(asked)

        def hang_up() -> None:
            asking.cancel()

        self.wire.break_at(statement, Moment.AFTER, then=hang_up)
        with pytest.raises(asyncio.CancelledError):
            await asking


@pytest.fixture
async def near(settings: Settings, database_url: str) -> AsyncGenerator[Near]:
    async with faulty_wire(database_url) as wire:
        database = Database(parse_url(wire.url))
        async with open_parley(settings, database) as parley:
            yield Near(wire, parley.services)
        await database.close()


async def test_who_hangs_up_in_the_commit_has_a_reply_all_the_same(near: Near):
    viewer, message = make_viewer(), NewMessage("Hello?", message_id=str(uuid4()))
    # Postgres has done it, and nobody has heard so yet.
    await near.hang_up_at("COMMIT", near.services.turns.send(viewer, message, "a request"))
    following = near.services.replies.follow(viewer, message.message_id or "", 0)
    *_, last = [event async for event in following]
    assert isinstance(last, Ended)
    assert last.reply.status == MessageStatus.COMPLETE


async def test_who_hangs_up_while_it_is_refused_is_no_failure(
    near: Near, database: Database, caplog: pytest.LogCaptureFixture
):
    viewer = make_viewer()
    session = await make_session(database, owner=viewer)
    await make_streaming_reply(database, owner=viewer, session=session)
    message = NewMessage("Hello?", session_id=str(session))
    await near.hang_up_at("ROLLBACK", near.services.turns.send(viewer, message, "a request"))
    await asyncio.wait(near.services.turns._beginnings)
    gc.collect()  # asyncio tells of what nobody has looked at when it is collected
    assert [each.getMessage() for each in caplog.records if each.levelno >= ERROR] == []


@asynccontextmanager
async def all_ending() -> AsyncGenerator[None]:
    """Wait in the end for all tasks that were begun in the block, and for those that they begin."""
    before = asyncio.all_tasks()
    yield
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            while begun := asyncio.all_tasks() - before:
                await asyncio.wait(begun)
    except TimeoutError as error:
        error.add_note(f"{asyncio.all_tasks() - before}")
        raise


async def check_books(database: Database, chatters: Sequence[Chatter]) -> None:
    """See that what is stored is right, that which nobody waited for too."""
    of_viewer = {chatter.viewer.user_id: chatter for chatter in chatters}
    for owner, row in await database.rows(text(STORED), {}):
        assert not of_viewer[owner].foreign(row), row
    assert await database.rows(text(UNANSWERED), {}) == []
    assert await database.rows(text(MISCOUNTED), {}) == []


async def check_pool(database: Database) -> None:
    """See that no connection is at work, and none was lost: all can be had at once."""
    pool = database.pool
    assert pool.in_use == 0
    assert await database.rows(text(BUSY), {}) == []
    barrier = asyncio.Barrier(pool.size + pool.max_overflow)

    async def hold() -> None:
        async with database.transaction() as transaction:
            await transaction.rows(text("SELECT 1"), {})
            await barrier.wait()

    async with asyncio.timeout(DEADLINE_SECONDS):
        await asyncio.gather(*(hold() for _ in range(barrier.parties)))
