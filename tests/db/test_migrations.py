"""Migrations: up, down, up; the models' schema at the end; and what a start makes of another."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from typing import Any

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from db import migration
from db.engine import Database
from db.errors import DatabaseUnavailable, SchemaMismatch
from tests import operations
from tests.operations import until
from tests.people import Parley
from tests.streaming.scripted import statements_of


async def alembic(database: Database, *steps: str) -> None:
    """Go to each of the revisions in turn, in one transaction."""

    def run(connection: Connection) -> None:
        config = migration.alembic_config()
        config.attributes["connection"] = connection
        for step in steps:
            (command.downgrade if step.startswith(("-", "base")) else command.upgrade)(config, step)

    async with database.engine.begin() as connection:
        await connection.run_sync(run)


async def schema(database: Database) -> set[tuple[str, ...]]:
    """Give all columns, indexes and constraints, as Postgres describes them."""
    statements = (
        "SELECT table_name, column_name, data_type, is_nullable, column_default"
        " FROM information_schema.columns WHERE table_schema = 'public'",
        "SELECT indexname, indexdef FROM pg_indexes WHERE schemaname = 'public'",
        "SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE connamespace = 'public'::regnamespace",
    )
    found = [await database.rows(text(statement), {}) for statement in statements]
    return {tuple(map(str, row)) for rows in found for row in rows if "alembic" not in row[0]}


def revisions() -> list[str]:
    script = ScriptDirectory.from_config(migration.alembic_config())
    return [each.revision for each in script.walk_revisions()][::-1]


def test_there_is_one_head():
    assert len(ScriptDirectory.from_config(migration.alembic_config()).get_heads()) == 1


@pytest.mark.parametrize("revision", revisions())
async def test_a_migration_goes_up_down_and_up_again(revision: str, empty_database: Database):
    await alembic(empty_database, revision)
    once = await schema(empty_database)
    await alembic(empty_database, "-1")
    assert await schema(empty_database) != once
    await alembic(empty_database, revision)
    assert await schema(empty_database) == once


async def test_all_the_way_down_nothing_is_left(empty_database: Database):
    await migration.upgrade(empty_database)
    assert await schema(empty_database)
    await alembic(empty_database, "base")
    assert await schema(empty_database) == set()


async def test_the_migrations_make_what_the_models_say(database: Database):
    def check(connection: Connection) -> None:
        config: Config = migration.alembic_config()
        config.attributes["connection"] = connection
        command.check(config)

    async with database.engine.begin() as connection:
        await connection.run_sync(check)


async def test_processes_that_start_at_once_migrate_once(empty_database: Database):
    processes = [Database(empty_database.url) for _ in range(10)]
    with statements_of_all(processes) as statements:
        await asyncio.gather(*(migration.upgrade(each) for each in processes))
    for process in processes:
        await process.close()
    steps = [each for each in statements if each.startswith(("INSERT INTO alem", "UPDATE alem"))]
    assert len(steps) == len(revisions())
    assert await migration.current_revision(empty_database) == migration.newest_revision()


@contextmanager
def statements_of_all(databases: list[Database]) -> Generator[list[str]]:
    with ExitStack() as stack:
        lists = [stack.enter_context(statements_of(each)) for each in databases]
        all: list[str] = []
        yield all
        all.extend(statement for each in lists for statement in each)


async def test_migrating_what_is_up_to_date_changes_nothing(database: Database):
    before = await schema(database)
    await migration.upgrade(database)
    assert await schema(database) == before


# --- under load -----------------------------------------------------------------------


@pytest.fixture
async def behind(empty_database: Database) -> Database:
    """A database whose users' table the next migration changes."""
    await alembic(empty_database, "0001")
    return empty_database


@asynccontextmanager
async def users_held(database: Database) -> AsyncGenerator[None]:
    """Read the users' table in a transaction that takes its time."""
    async with database.transaction() as transaction:
        await transaction.rows(text("SELECT count(*) FROM users"), {})
        yield


async def test_a_migration_gets_a_lock_that_a_query_holds_once_it_is_free(
    behind: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(migration, "LOCK_TIMEOUT", "20ms")
    with statements_of(behind) as statements:

        def tries() -> int:
            return sum("lock_timeout" in each for each in statements)

        async with users_held(behind):
            migrating = asyncio.create_task(migration.upgrade(behind))
            await until(lambda: tries() >= 2)
            # Between two tries, nobody stands in line behind the migration.
            await behind.rows(text("SELECT count(*) FROM users"), {})
            assert not migrating.done()
        await migrating
    await migration.check_schema(behind)


async def test_a_migration_that_gets_no_lock_changes_nothing(
    behind: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(migration, "LOCK_TIMEOUT", "20ms")
    monkeypatch.setattr(migration, "LOCK_PATIENCE_SECONDS", 0.1)
    before = await schema(behind)
    async with users_held(behind):
        with pytest.raises(DatabaseUnavailable, match="held"):
            await migration.upgrade(behind)
    assert await migration.current_revision(behind) == "0001"
    assert await schema(behind) == before


# --- the next release's schema --------------------------------------------------------

TABLES = (
    "users",
    "chat_sessions",
    "chat_messages",
    "documents",
    "document_contents",
    "document_chunks",
    "audit_logs",
)
EXPANSIONS = {
    "a column that may be null": [f"ALTER TABLE {table} ADD new_one text" for table in TABLES],
    "a column with a default": [
        f"ALTER TABLE {table} ADD new_one integer NOT NULL DEFAULT 1" for table in TABLES
    ],
    "a table": [
        "CREATE TABLE new_ones (user_id uuid REFERENCES users ON DELETE CASCADE, id uuid,"
        " session_id uuid NOT NULL, PRIMARY KEY (user_id, id), FOREIGN KEY (user_id, session_id)"
        " REFERENCES chat_sessions (user_id, id) ON DELETE CASCADE)"
    ],
    "an index": ["CREATE INDEX ON chat_messages (user_id, created_at)"],
    "a check that allows more": [
        "ALTER TABLE chat_messages DROP CONSTRAINT ck_chat_messages_role",
        "ALTER TABLE chat_messages ADD CONSTRAINT ck_chat_messages_role"
        " CHECK (role IN ('USER', 'ASSISTANT', 'SYSTEM', 'TOOL')) NOT VALID",
        "ALTER TABLE chat_messages VALIDATE CONSTRAINT ck_chat_messages_role",
    ],
    "a column that may be null from now on": [
        "ALTER TABLE chat_messages ALTER content_length DROP NOT NULL",
        "ALTER TABLE documents ALTER title DROP NOT NULL",
    ],
    "a wider type": [
        "ALTER TABLE chat_messages ALTER position TYPE bigint",
        "ALTER TABLE chat_sessions ALTER message_count TYPE bigint,"
        " ALTER last_position TYPE bigint",
        "ALTER TABLE documents ALTER chunk_count TYPE bigint",
    ],
}
"What the first step of a change may do: `migrations/README.md` has the same list."


async def do_everything(parley: Parley) -> None:
    """Do what people do, and see that it comes out as it always does."""
    alice = parley.person()
    document = (await operations.add_text(alice, "A lease is a promise."))["document"]
    await parley.documents_read()
    [found] = await operations.search(alice, "What is a lease?")
    assert found["documentId"] == document["id"]
    sent = await operations.send(alice, "What is a lease?")
    assert sent["reply"]["status"] == "COMPLETE"
    assert sent["session"]["messageCount"] == 2
    id = sent["session"]["id"]
    assert (await operations.session(alice, id))["messages"]["totalCount"] == 2
    stopped = await operations.stop(alice, sent["reply"]["id"])
    assert stopped["reply"]["status"] == "COMPLETE"
    deletions: list[tuple[str, Any]] = [
        (operations.DELETE_MESSAGE, sent["reply"]["id"]),
        (operations.DELETE_SESSION, id),
    ]
    for mutation, thing in deletions:
        [result] = (await alice.ask(mutation, id=thing)).values()
        assert result["deletedId"] == thing


@pytest.mark.parametrize("expansion", EXPANSIONS)
async def test_a_running_server_does_everything_on_the_next_releases_schema(
    parley: Parley, expansion: str
):
    """It has prepared its statements for the schema that it was started on."""
    await do_everything(parley)
    for statement in EXPANSIONS[expansion]:
        await parley.database.rows(text(statement), {})
    await do_everything(parley)


# --- check_schema ---------------------------------------------------------------------


async def test_a_schema_up_to_date_is_as_it_should_be(database: Database):
    await migration.check_schema(database)


async def test_an_empty_database_is_behind(empty_database: Database):
    assert await migration.current_revision(empty_database) is None
    with pytest.raises(SchemaMismatch, match=r"behind \(at nothing, .*parley migrate"):
        await migration.check_schema(empty_database)


async def test_a_schema_of_a_newer_release_is_refused(database: Database):
    await database.rows(text("UPDATE alembic_version SET version_num = '9999'"), {})
    with pytest.raises(SchemaMismatch, match=r"\(9999\) is of a newer release"):
        await migration.check_schema(database)
