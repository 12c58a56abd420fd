"""Migrations: up, down, up; the models' schema at the end; and what a start makes of another."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from db import migration
from db.engine import Database
from db.errors import DatabaseUnavailable, SchemaMismatch
from db.models import Base
from graphql_api.settings import Settings
from tests.db import schemas
from tests.db.everything import do_everything, needed
from tests.issuer import Issuer
from tests.openai_server import OpenAIServer
from tests.operations import send, until
from tests.people import Parley
from tests.process import processes
from tests.process.processes import run
from tests.streaming.scripted import statements_of

NOTE_STEPS = (
    """CREATE FUNCTION note() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
        INSERT INTO steps SELECT pg_backend_pid(), command_tag || ' ' || object_identity
            FROM pg_event_trigger_ddl_commands();
    END $$""",
    "CREATE EVENT TRIGGER note ON ddl_command_end EXECUTE FUNCTION note()",
)
"Whoever changes the schema is noted."
STAND_AT = text("UPDATE alembic_version SET version_num = :revision")
LOCK = text("SELECT pg_advisory_xact_lock(:key)")
WAITING = text(
    "SELECT pid FROM pg_locks JOIN pg_database ON pg_database.oid = database"
    " WHERE locktype = 'advisory' AND NOT granted AND datname = current_database()"
)


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


def shown(database: Database) -> str:
    """Give the URL of a database as settings have it."""
    url = database.url.sqlalchemy.set(drivername="postgresql")
    return url.render_as_string(hide_password=False)


def revisions() -> list[str]:
    script = ScriptDirectory.from_config(migration.alembic_config())
    return [each.revision for each in script.walk_revisions()][::-1]


def test_migrations_are_numbered_in_order():
    """A process knows a newer release's by its number."""
    numbers = [int(each) for each in revisions()]
    assert numbers == sorted(set(numbers))


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


@schemas.as_migrated
async def test_the_migrations_make_what_the_models_say(
    database: Database, empty_database: Database
):
    async with empty_database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    assert await schema(database) == await schema(empty_database)


@schemas.as_migrated
async def test_autogenerate_finds_nothing_to_do(database: Database):
    def check(connection: Connection) -> None:
        config: Config = migration.alembic_config()
        config.attributes["connection"] = connection
        command.check(config)

    async with database.engine.begin() as connection:
        await connection.run_sync(check)


async def test_processes_that_start_at_once_migrate_once(empty_database: Database, tmp_path: Path):
    """They are ten `parley migrate`, of which none gets ahead before all are there."""
    await empty_database.rows(text("CREATE TABLE steps (process int, step text)"), {})
    for statement in NOTE_STEPS:
        await empty_database.rows(text(statement), {})
    settings = {"DATABASE_URL": shown(empty_database)}
    async with asyncio.TaskGroup() as group, empty_database.transaction() as transaction:
        await transaction.rows(LOCK, {"key": migration._LOCK_KEY})
        ten = [
            group.create_task(run("migrate", cwd=tmp_path, DATA_DIR=f"data-{number}", **settings))
            for number in range(10)
        ]
        await processes.until(
            lambda: transaction.rows(WAITING, {}), lambda waiting: len(waiting) == 10
        )
    assert {each.result().code for each in ten} == {0}
    assert await migration.current_revision(empty_database) == migration.newest_revision()
    steps = await empty_database.rows(text("SELECT process, step FROM steps"), {})
    assert len({process for process, _ in steps}) == 1
    assert [step for _, step in steps].count("CREATE TABLE public.chat_messages") == 1


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


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer, issuer: Issuer) -> Settings:
    return settings.model_copy(update=needed(model, issuer))


@pytest.mark.skipif(schemas.EXPANDED, reason="the next release has done it already")
@pytest.mark.parametrize("expansion", schemas.EXPANSIONS)
async def test_a_running_server_does_everything_on_the_next_releases_schema(
    expansion: str, parley: Parley, model: OpenAIServer, issuer: Issuer
):
    """It has prepared its statements for the schema that it was started on."""
    await do_everything(parley, model, issuer)
    await schemas.expand(parley.database, expansion)
    await do_everything(parley, model, issuer)


# --- check_schema ---------------------------------------------------------------------


async def test_a_schema_up_to_date_is_as_it_should_be(database: Database):
    await migration.check_schema(database)


async def test_an_empty_database_is_behind(empty_database: Database):
    assert await migration.current_revision(empty_database) is None
    with pytest.raises(SchemaMismatch, match=r"behind \(at nothing, .*parley migrate"):
        await migration.check_schema(empty_database)


@pytest.mark.parametrize("revision", ["0000", "elsewhere"])
async def test_a_schema_that_is_no_later_one_is_behind(revision: str, database: Database):
    await database.rows(STAND_AT, {"revision": revision})
    with pytest.raises(SchemaMismatch, match=f"behind .at {revision},"):
        await migration.check_schema(database)


@pytest.mark.parametrize("auto_migrate", ["false", "true"])
async def test_a_server_starts_on_the_next_releases_schema(
    auto_migrate: str, database: Database, tmp_path: Path
):
    """As one of the last release's does that is started again while the next is rolled out."""
    await database.rows(STAND_AT, {"revision": "9999"})
    settings = {"DATABASE_URL": shown(database), "AUTO_MIGRATE": auto_migrate}
    async with processes.served(tmp_path / "data", **settings) as server:
        assert (await send(server.person()))["reply"]["status"] == "COMPLETE"
        health = (await server.http.get("/db-health")).json()
        assert (health["status"], health["schema"]["current"]) == ("ok", "9999")


async def test_migrating_by_the_last_release_changes_nothing(database: Database):
    await database.rows(STAND_AT, {"revision": "9999"})
    before = await schema(database)
    await migration.upgrade(database)
    assert await schema(database) == before
    assert await migration.current_revision(database) == "9999"
