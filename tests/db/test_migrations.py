"""Migrations: up, down, up; the models' schema at the end; and what a start makes of another."""

import asyncio

import pytest
from alembic import command
from alembic.config import Config
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text

from db import migration
from db.engine import Database
from db.errors import SchemaMismatch


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
    await asyncio.gather(*(migration.upgrade(empty_database) for _ in range(3)))
    assert await migration.current_revision(empty_database) == migration.newest_revision()


async def test_migrating_what_is_up_to_date_changes_nothing(database: Database):
    before = await schema(database)
    await migration.upgrade(database)
    assert await schema(database) == before


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
