"""The owned tables as hash partitions by `user_id`, made with the statements of docs/scale.md.

    PARLEY_TEST_PARTITIONS=1 make test    # the whole suite runs on them

Here a part of it does, in a process of its own.
"""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from sqlalchemy import text

from db import messages, migration, sessions
from db.engine import Database
from db.models import Base
from graphql_api.settings import Settings
from tests import operations
from tests.db import schemas
from tests.db.everything import do_everything, needed
from tests.db.test_migrations import alembic
from tests.factories import make_session, make_turn, make_viewer
from tests.issuer import Issuer
from tests.openai_server import OpenAIServer
from tests.outages.invariants import broken_in
from tests.people import Parley

ROOT = Path(__file__).parents[2]
SUITE = ("tests/db/test_constraints.py", "tests/db/test_turns.py")
"What the keys promise, and the statements of a reply under way."

PARTS = """SELECT inhparent::regclass::text, count(*) FROM pg_inherits
    JOIN pg_class ON pg_class.oid = inhrelid AND relkind = 'r' GROUP BY 1"""
RULES = """SELECT conrelid::regclass::text, conname, pg_get_constraintdef(oid)
    FROM pg_constraint WHERE conparentid = 0 AND connamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT FROM pg_class WHERE pg_class.oid = conrelid AND relispartition)
    UNION SELECT indrelid::regclass::text, indexrelid::regclass::text,
        replace(pg_get_indexdef(indexrelid), ' ON ONLY ', ' ON ')
    FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
    WHERE NOT relispartition AND relnamespace = 'public'::regnamespace"""
"Constraints and indexes, by name, but for those of partitions."
SCANS = """SELECT relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0)
    FROM pg_stat_xact_user_tables WHERE relname ~ '_\\d+$'"""
"How often this connection has looked into each partition."


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer, issuer: Issuer) -> Settings:
    return settings.model_copy(update=needed(model, issuer))


async def rules(database: Database) -> set[tuple[str, ...]]:
    return {tuple(row) for row in await database.rows(text(RULES), {})}


async def parts(database: Database) -> dict[str, int]:
    return {row[0]: row[1] for row in await database.rows(text(PARTS), {})}


# --- the suite ------------------------------------------------------------------------


@schemas.as_migrated
def test_the_suites_statements_run_on_partitions_as_they_are():
    suite = [*SUITE, "tests/db/test_partitions.py"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    ended = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "--tb=short", "-p", "no:cacheprovider", *suite],
        cwd=ROOT,
        env={**kept, "PARLEY_TEST_PARTITIONS": "1"},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stdout[-5000:] + ended.stderr[-5000:]


async def test_the_database_of_a_test_is_partitioned_where_that_is_asked_for(database: Database):
    assert await parts(database) == (dict.fromkeys(owned(), 16) if schemas.PARTITIONED else {})


# --- what is partitioned --------------------------------------------------------------


def owned() -> set[str]:
    """Give the tables whose primary key begins with their rows' owner."""
    tables = Base.metadata.sorted_tables
    return {table.name for table in tables if next(iter(table.primary_key)).name == "user_id"}


@schemas.as_migrated
async def test_every_owned_table_is_partitioned_and_the_page_speaks_of_the_others(
    database: Database,
):
    await schemas.partition(database)
    assert (await parts(database)).keys() == owned()
    [_, page] = schemas.PAGE.read_text().split("COMMIT;")
    assert [
        name for name in schemas.TABLES if name not in owned() and f"`{name}`" not in page
    ] == []


@schemas.as_migrated
async def test_every_constraint_and_index_is_as_it_was(database: Database):
    before = await rules(database)
    await schemas.partition(database)
    assert await rules(database) == before


@schemas.as_migrated
async def test_a_conversation_goes_on_in_partitions(
    parley: Parley, database: Database, model: OpenAIServer, issuer: Issuer
):
    alice = parley.person()
    before = await operations.send(alice, "What is a lease?")
    await schemas.partition(database)
    after = await operations.send(alice, "And then?", sessionId=before["session"]["id"])
    assert after["session"]["messageCount"] == 4
    assert await broken_in(database, at_rest=True) == {}
    await do_everything(parley, model, issuer)


@schemas.as_migrated
async def test_reading_for_one_user_looks_into_one_partition(database: Database):
    viewer = make_viewer()
    session = await make_session(database, owner=viewer)
    question, _ = await make_turn(database, owner=viewer, session=session)
    await schemas.partition(database)
    async with database.transaction() as transaction:
        before = dict(tuple(row) for row in await transaction.rows(text(SCANS), {}))
        assert await sessions.session(viewer, transaction, session)
        assert await sessions.session_count(viewer, transaction) == 1
        assert await messages.message(viewer, transaction, question)
        assert await messages.reply_to(viewer, transaction, question)
        assert await messages.message_counts(viewer, transaction, [session], None) == {session: 2}
        assert len(await messages.history_before(viewer, transaction, session, 9, at_most=9)) == 2
        after = await transaction.rows(text(SCANS), {})
    looked_into = [name for name, scans in after if scans > before.get(name, 0)]
    assert sorted(name.rpartition("_")[0] for name in looked_into) == [
        "chat_messages",
        "chat_sessions",
    ]


# --- the schema goes on ---------------------------------------------------------------


async def test_migrations_run_on_partitions(empty_database: Database):
    await migration.upgrade(empty_database)
    whole = await rules(empty_database)
    await alembic(empty_database, "base", "0001")
    await schemas.partition(empty_database)
    await migration.upgrade(empty_database)
    assert await rules(empty_database) == whole
    assert (await parts(empty_database)).keys() == owned()


@schemas.as_migrated
async def test_what_the_next_release_may_do_can_be_done_to_partitions(
    parley: Parley, database: Database, model: OpenAIServer, issuer: Issuer
):
    await schemas.partition(database)
    for expansion in schemas.EXPANSIONS:
        await schemas.expand(database, expansion)
    await do_everything(parley, model, issuer)
