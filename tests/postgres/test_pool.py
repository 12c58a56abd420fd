"""Connections are counted: never more than configured, and each comes back or is thrown away."""

import asyncio
import random
import time
from asyncio import Event
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import event, func, select, text

from db.connections import Patience
from db.engine import Database, Transaction
from db.errors import DatabaseUnavailable, PoolExhausted
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.openai_server import OpenAIServer, says
from tests.operations import SEND, being_written, send, until
from tests.people import Parley, open_parley
from tests.postgres.activity import Watcher, watching
from tests.process.conversation import send as send_to_process
from tests.process.processes import served
from tests.statements import recorded

SIZE, OVERFLOW = 2, 3
LIMIT = SIZE + OVERFLOW
VIEWER = "{ viewer { id isAnonymous createdAt } }"
SLEEP = text("SELECT 1 FROM pg_sleep(:seconds)")


@asynccontextmanager
async def opened(
    url: str,
    patience: Patience = Patience(),  # noqa: B008 - it is frozen
    *,
    size: int = SIZE,
    overflow: int = OVERFLOW,
) -> AsyncGenerator[Database]:
    database = Database(parse_url(url), pool_size=size, max_overflow=overflow, patience=patience)
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def watcher(database_url: str) -> AsyncGenerator[Watcher]:
    async with watching(database_url) as watcher:
        yield watcher


async def gives_back(database: Database, watcher: Watcher) -> None:
    """See that nothing is borrowed, and that the server knows of no connection but the kept ones.

    Of those some may be gone: the pool keeps a place for one that broke off, and fills it later.
    """
    await until(lambda: database.pool.in_use == 0)
    await watcher.settle(database.pool.idle)


# --- never more than configured -------------------------------------------------------


async def test_a_crowd_opens_no_more_connections_than_configured(
    settings: Settings, database_url: str, watcher: Watcher
):
    async with opened(database_url) as database, open_parley(settings, database) as parley:
        sent = await asyncio.gather(*(send(parley.person()) for _ in range(60)))
        assert {each["reply"]["status"] for each in sent} == {"COMPLETE"}
        assert 0 < watcher.most <= LIMIT
        await gives_back(database, watcher)
        assert database.pool.idle <= LIMIT


async def test_after_a_crowd_only_the_kept_ones_stay(database_url: str, watcher: Watcher):
    async with opened(database_url) as database:
        sleeping = [database.rows(SLEEP, {"seconds": 0.1}) for _ in range(20)]
        await asyncio.gather(*sleeping)
        assert watcher.most == LIMIT
        await watcher.until(SIZE)
        assert database.pool == (SIZE, 0, SIZE, 0, OVERFLOW)


async def test_none_is_closed_while_somebody_waits_for_one(database_url: str):
    """Making another takes longer than most statements."""
    made: list[object] = []
    async with opened(database_url) as database:
        event.listen(database.engine.sync_engine, "connect", lambda *each: made.append(each))
        await asyncio.gather(*(database.rows(text("SELECT 1"), {}) for _ in range(300)))
    assert len(made) == LIMIT


async def test_a_whole_process_needs_one_connection(
    postgres_url: str, watcher: Watcher, tmp_path: Path
):
    """The server itself refuses this user a second one, while it migrates and ever after."""
    name = f"one_{uuid4().hex}"
    await watcher.tell(
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret' CONNECTION LIMIT 1",
        f"CREATE DATABASE {name} OWNER {name}",
    )
    host = postgres_url.rpartition("@")[2].partition("/")[0]
    settings = {
        "DATABASE_URL": f"postgresql://{name}:secret@{host}/{name}",
        "DATABASE_POOL_SIZE": "1",
        "DATABASE_POOL_OVERFLOW": "0",
        "AUTO_MIGRATE": "true",
    }
    try:
        async with served(tmp_path / "data", **settings) as server:
            people = [server.person() for _ in range(10)]
            sent = await asyncio.gather(*(send_to_process(each, "Hello") for each in people))
            assert {each["reply"]["status"] for each in sent} == {"COMPLETE"}
    finally:
        await watcher.tell(f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


# --- all of them are busy -------------------------------------------------------------


async def test_who_waits_too_long_for_a_connection_is_told_to_come_again(
    settings: Settings, database_url: str
):
    patience = Patience(acquire=0.3)
    async with (
        opened(database_url, patience, size=1, overflow=0) as database,
        open_parley(settings, database) as parley,
    ):
        alice = parley.person()
        async with database.transaction():
            began = time.monotonic()
            answer = await ask(parley, VIEWER, alice.headers)
            assert 0.3 <= time.monotonic() - began < 3
        assert answer.status_code == 503
        assert int(answer.headers["Retry-After"]) > 0
        assert answer.json()["errors"][0]["extensions"]["code"] == "UNAVAILABLE"
        assert (await ask(parley, VIEWER, alice.headers)).status_code == 200


def test_by_default_a_query_has_more_time_than_a_connection_takes_to_be_had():
    """Else it would be a query that takes too long, which nobody tries again."""
    settings = Settings.model_construct()
    assert settings.query_timeout_seconds > settings.database_acquire_timeout_seconds


async def test_a_send_that_finds_no_connection_wrote_nothing(settings: Settings, database_url: str):
    patience = Patience(acquire=0.3)
    async with (
        opened(database_url, patience, size=1, overflow=0) as database,
        open_parley(settings, database) as parley,
    ):
        alice, input = parley.person(), {"content": "Hello", "messageId": str(uuid4())}
        async with database.transaction():
            answer = await ask(parley, SEND, alice.headers, input=input)
        assert (answer.status_code, answer.json()["data"]) == (503, None)
        assert (await alice.ask(SEND, input=input))["sendMessage"]["session"]["messageCount"] == 2


async def test_busy_connections_do_not_make_the_database_count_as_away(database_url: str):
    patience = Patience(acquire=0.05)
    async with opened(database_url, patience, size=1, overflow=0) as database:
        async with database.transaction() as transaction:
            for _ in range(3):
                with pytest.raises(PoolExhausted):
                    await database.rows(text("SELECT 1"), {})
            assert await transaction.rows(text("SELECT 1"), {})
        assert await database.rows(text("SELECT 1"), {})


# --- a statement that takes too long --------------------------------------------------


async def test_a_statement_that_takes_too_long_is_ended_on_the_server_too(
    database_url: str, watcher: Watcher
):
    async with opened(database_url, Patience(statement=0.2, retry=0)) as database:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable):
            await database.rows(SLEEP, {"seconds": 30})
        assert time.monotonic() - began < 5
        await gives_back(database, watcher)


async def test_a_read_that_took_longer_than_we_retry_is_not_asked_again(database_url: str):
    """It would take as long again, of a server that may be slow because of it."""
    async with opened(database_url, Patience(statement=0.5, retry=0.2)) as database:
        with recorded(database) as asked, pytest.raises(DatabaseUnavailable):
            await database.rows(select(func.pg_sleep(30)), {})
        assert len(asked) == 1


@pytest.mark.parametrize("setting", ["statement_timeout", "lock_timeout"])
async def test_a_limit_that_the_role_has_is_an_outage_too(
    database_url: str, watcher: Watcher, setting: str
):
    """That is where limits are set if a pooler takes none."""
    async with (
        opened(f"{database_url}?options=-c%20{setting}%3D200") as database,
        opened(database_url, size=1, overflow=0) as other,
        other.transaction() as lock,
    ):
        await lock.rows(text("LOCK TABLE users"), {})
        with pytest.raises(DatabaseUnavailable):
            await database.rows(text("UPDATE users SET name = 'x'"), {})
    await watcher.settle(0)


# --- who is cancelled gives back what they had ----------------------------------------


async def sleep_in_a_read(database: Database) -> None:
    await database.rows(SLEEP, {"seconds": 30})


async def sleep_in_a_transaction(database: Database) -> None:
    async def work(transaction: Transaction) -> None:
        await transaction.rows(SLEEP, {"seconds": 30})

    await database.transact(work)


@pytest.mark.parametrize("sleep", [sleep_in_a_read, sleep_in_a_transaction])
async def test_a_cancelled_statement_ends_and_its_connection_comes_back(
    database_url: str, watcher: Watcher, sleep: Callable[[Database], Awaitable[None]]
):
    async with opened(database_url) as database:
        tasks = [asyncio.ensure_future(sleep(database)) for _ in range(LIMIT)]
        await watcher.until(LIMIT, "active")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await gives_back(database, watcher)
        await asyncio.gather(*(database.rows(SLEEP, {"seconds": 0.1}) for _ in range(LIMIT)))
        assert watcher.most == LIMIT


async def test_cancelled_at_any_moment_a_connection_comes_back(database_url: str, watcher: Watcher):
    """While they wait for one, connect, begin, ask, commit or give it back."""

    async def use(database: Database) -> None:
        async def work(transaction: Transaction) -> None:
            await transaction.rows(text("CREATE TEMPORARY TABLE t (n int) ON COMMIT DROP"), {})
            await transaction.rows(SLEEP, {"seconds": 0.002})

        await database.rows(text("SELECT 1"), {})
        await database.transact(work)

    chance = random.Random(7)
    async with opened(database_url) as database:
        for _ in range(20):
            tasks = [asyncio.create_task(use(database)) for _ in range(15)]
            for task in tasks:
                await asyncio.wait([task], timeout=chance.uniform(0, 0.004))
                task.cancel()
            ends = await asyncio.gather(*tasks, return_exceptions=True)
            assert {type(end) for end in ends} <= {type(None), asyncio.CancelledError}
        await gives_back(database, watcher)
        assert watcher.most <= LIMIT
        await asyncio.gather(*(use(database) for _ in range(LIMIT)))


async def test_a_query_whose_client_left_gives_its_connection_back(
    settings: Settings, database_url: str, watcher: Watcher
):
    """Reads are cancelled; the table is locked, so that this one waits."""
    async with opened(database_url) as database, open_parley(settings, database) as parley:
        alice = parley.person()
        await send(alice)
        async with opened(database_url, size=1, overflow=0) as other, other.transaction() as lock:
            await lock.rows(text("LOCK TABLE chat_sessions"), {})
            query = "{ sessions { totalCount } }"
            asking = asyncio.create_task(ask(parley, query, alice.headers))
            await watcher.until(1, "active")
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking
            await watcher.until(0, "active")
        await gives_back(database, watcher)


async def test_replies_under_way_hold_no_connection(
    settings: Settings, model: OpenAIServer, database_url: str, watcher: Watcher
):
    settings = settings.model_copy(update={"openai_base_url": model.url})
    model.script(*[says("One", rest := Event(), ", two")] * 20)
    async with opened(database_url) as database, open_parley(settings, database) as parley:
        sends = [asyncio.create_task(send(parley.person())) for _ in range(20)]
        await until(lambda: len(parley.services.running._runs) == 20)
        await being_written(parley, "One")
        await until(lambda: database.pool.in_use == 0)
        for each in sends[10:]:
            each.cancel()
        await asyncio.gather(*sends[10:], return_exceptions=True)
        rest.set()
        await asyncio.gather(*sends[:10])
        await until(lambda: not parley.services.running._runs)
        await gives_back(database, watcher)
        assert watcher.most <= LIMIT


async def ask(
    parley: Parley, query: str, headers: dict[str, str], **variables: object
) -> httpx2.Response:
    body = {"query": query, "variables": variables}
    return await parley.http.post("/graphql", json=body, headers=headers)
