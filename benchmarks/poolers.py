"""What a normal pool is worth behind PgBouncer: Parley's, and SQLAlchemy's NullPool, side by side.

make bench-poolers

The usual advice for a pooler in transaction mode is NullPool, which makes a connection for each
unit of work. Both are measured on the same statements in turns, through PgBouncer and straight
to Postgres, all on this machine and without TLS: over a network each connection costs more.
It needs pgbouncer (Debian: pgbouncer) and starts an embedded Postgres of its own.
"""

import asyncio
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, ExitStack
from datetime import timedelta
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

from sqlalchemy import NullPool, make_url

from db import audit, migration, sessions, turns, users
from db.audit import Action, Entity
from db.embedded import EmbeddedPostgres
from db.engine import Database, Transaction
from db.ids import MessageId, RunId, SessionId, UserId, new_id
from db.urls import DatabaseUrl, parse_url
from db.viewer import Viewer
from tests.postgres.servers import PGBOUNCER, pgbouncer

ROUNDS = 6
AT_ONCE = 50
IN_A_ROW = 10
SERVER_CONNECTIONS = 10

Work = Callable[[Database], Awaitable[None]]


def without_pool(url: DatabaseUrl) -> Database:
    """Give the same database, but for its pool: at most as many connections, none of them kept."""
    database = Database(url)
    engine = database.engine.sync_engine
    pool = engine.pool
    engine.pool = NullPool(pool._creator, dialect=engine.dialect, _dispatch=pool.dispatch)
    return database


async def look_up(database: Database) -> None:
    """Ask for a session, which is not there: the cheapest of Parley's statements."""
    await sessions.session(Viewer(UserId(new_id())), database, SessionId(new_id()))


async def begin_turn(database: Database) -> None:
    """Store what the first turn of a conversation begins with, as `sendMessage` does."""
    viewer = Viewer(UserId(new_id()))

    async def begin(transaction: Transaction) -> None:
        await users.ensure_user(viewer, transaction)
        session = await sessions.make_session(
            viewer, transaction, SessionId(new_id()), opening_messages=2
        )
        assert session
        await turns.settle_session(viewer, transaction, session.id)
        question = await turns.write_question(
            viewer,
            transaction,
            id=MessageId(new_id()),
            session_id=session.id,
            position=1,
            content="What is a lease?",
            length=16,
            chapter=None,
            selected_text=None,
            document_ids=None,
        )
        assert question
        await turns.open_reply(
            viewer,
            transaction,
            id=MessageId(new_id()),
            run_id=RunId(new_id()),
            question=question,
            lease=timedelta(seconds=30),
        )
        await audit.record(viewer, transaction, Action.SEND, Entity.MESSAGE, question.id)

    await database.transact(begin)


async def look_ups_in_a_row(database: Database) -> None:
    for _ in range(IN_A_ROW):
        await look_up(database)


async def turns_in_a_row(database: Database) -> None:
    for _ in range(IN_A_ROW):
        await begin_turn(database)


async def look_ups_at_once(database: Database) -> None:
    await asyncio.gather(*(look_up(database) for _ in range(AT_ONCE)))


MEASURED: dict[str, tuple[Work, int]] = {
    "a look-up, one after another": (look_ups_in_a_row, IN_A_ROW),
    "a turn's transaction, one after another": (turns_in_a_row, IN_A_ROW),
    f"a look-up, {AT_ONCE} at once": (look_ups_at_once, AT_ONCE),
}


async def timed(work: Work, times: int, database: Database) -> float:
    """Give how long one of so many takes, in milliseconds."""
    began = time.perf_counter()
    await work(database)
    return (time.perf_counter() - began) / times * 1000


async def measure(ways: dict[str, DatabaseUrl]) -> None:
    print(f"{f'ms each, medians of {ROUNDS} rounds':62} pool  NullPool   ratio")
    for way, url in ways.items():
        async with AsyncExitStack() as stack:
            databases = {"pool": Database(url), "NullPool": without_pool(url)}
            for database in databases.values():
                stack.push_async_callback(database.close)
                await look_ups_at_once(database)  # what is first finds nothing compiled
                await begin_turn(database)
            took: dict[tuple[str, str], list[float]] = defaultdict(list)
            for number in range(ROUNDS):
                # By turns, and each first as often as the other: others use the machine too.
                order = list(databases.items())[:: -1 if number % 2 else 1]
                for what, (work, times) in MEASURED.items():
                    for name, database in order:
                        took[what, name].append(await timed(work, times, database))
            for what in MEASURED:
                pool, none = (median(took[what, name]) for name in databases)
                print(f"{f'{way}: {what}':60} {pool:6.2f} {none:9.2f} {none / pool:7.1f}")


async def migrated(url: str) -> DatabaseUrl:
    database = Database(parse_url(url))
    await migration.upgrade(database)
    await database.close()
    return database.url


def main() -> None:
    if PGBOUNCER is None:
        print("There is no PgBouncer (Debian: pgbouncer): nothing was measured.")
        return
    with ExitStack() as stack:
        postgres = EmbeddedPostgres(Path(stack.enter_context(TemporaryDirectory())) / "postgres")
        stack.callback(postgres.stop)
        straight = postgres.start()
        pooler = stack.enter_context(pgbouncer(straight, server_connections=SERVER_CONNECTIONS))
        through = pooler.url(make_url(straight).database or "")

        async def run() -> None:
            await measure(
                {
                    "through PgBouncer": parse_url(through, "transaction"),
                    "straight to Postgres": await migrated(straight),
                }
            )

        asyncio.run(run())


if __name__ == "__main__":
    main()
