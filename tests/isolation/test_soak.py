"""Many people at once, who often hang up: nobody is told what is another's, and nothing is left."""

import asyncio
import os
from random import Random
from time import time_ns

import pytest
from sqlalchemy import text

from db.engine import Database
from graphql_api.settings import Settings
from tests.isolation.chatters import HANGING_UP, Chatter, Crowd
from tests.isolation.servers import listening, port_of
from tests.operations import PATIENCE_SECONDS, until
from tests.people import Parley

REQUESTS = 10_000 if os.environ.get("PARLEY_LONG_TESTS") == "1" else 2_000
VIEWERS = 50
SEED = int(os.environ.get("PARLEY_SOAK_SEED", time_ns()))

UNANSWERED = """
SELECT sent.entity_id FROM audit_logs AS sent
WHERE sent.action = 'send' AND NOT EXISTS (
  SELECT FROM chat_messages AS reply
  WHERE reply.user_id = sent.user_id AND reply.id = CAST(sent.detail->>'reply_id' AS uuid)
    AND reply.status <> 'STREAMING' AND reply.completed_at IS NOT NULL
) AND NOT EXISTS (
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
WHERE datname = current_database() AND pid <> pg_backend_pid() AND state <> 'idle'"""

# A query whose client has gone is cancelled, and graphql-core never begins the rest of its fields.
# Such a coroutine is reported when it is collected, wherever that happens to be.
pytestmark = [
    pytest.mark.filterwarnings(f"ignore:{what}")
    for what in (
        "coroutine '(GraphQLCoreConverter|Executor).* was never awaited:RuntimeWarning",
        "Exception ignored in. <coroutine object (GraphQLCoreConverter|Executor)"
        ":pytest.PytestUnraisableExceptionWarning",
    )
]


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"rate_limit": "off"})


async def test_nobody_is_told_what_is_anothers(settings: Settings, database: Database):
    async with listening(settings, database) as parley:
        await parley.http.get("/health")
        before = asyncio.all_tasks()
        crowd, random = Crowd(port_of(parley)), Random(SEED)
        chatters = [Chatter(crowd, Random(random.random())) for _ in range(VIEWERS)]
        try:
            async with asyncio.TaskGroup() as group:
                for chatter in chatters:
                    group.create_task(chatter.chat(REQUESTS // VIEWERS))
            assert crowd.asked == REQUESTS
            assert crowd.hung_up.total() > (HANGING_UP - 0.02) * REQUESTS
            await check_nothing_is_left(parley, before)
        except BaseException as failure:
            failure.add_note(f"PARLEY_SOAK_SEED={SEED}; {crowd.answered=} {crowd.hung_up=}")
            raise


async def check_nothing_is_left(parley: Parley, before: set[asyncio.Task[object]]) -> None:
    """See that all that was begun has ended, and that the books are right."""
    services, database = parley.services, parley.database
    await until(lambda: not services.running._runs)
    await parley.documents_read()
    current = asyncio.current_task()
    await until(lambda: not {task for task in asyncio.all_tasks() if task is not current} - before)
    assert database.pool.in_use == 0
    assert await database.rows(text(BUSY), {}) == []
    assert await database.rows(text(UNANSWERED), {}) == []
    assert await database.rows(text(MISCOUNTED), {}) == []
    state = database.pool
    # None was lost: all of them can be had at once.
    barrier = asyncio.Barrier(state.size + state.max_overflow)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await asyncio.gather(*(_hold(database, barrier) for _ in range(barrier.parties)))


async def _hold(database: Database, barrier: asyncio.Barrier) -> None:
    async with database.transaction() as transaction:
        await transaction.rows(text("SELECT 1"), {})
        await barrier.wait()
