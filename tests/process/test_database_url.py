"""`DATABASE_URL`: somebody else's Postgres, whose schema is only changed when asked for."""

from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import uuid4

import pytest
import pytest_asyncio
from sqlalchemy import text

from db.engine import Database
from db.migration import newest_revision
from db.urls import parse_url
from tests.process.conversation import send
from tests.process.processes import run, served

pytestmark = pytest.mark.asyncio(loop_scope="session")


async def administer(url: str, statement: str) -> None:
    server = Database(parse_url(url), pool_size=1)
    await server.rows(text(statement), {})
    await server.close()


@pytest_asyncio.fixture(loop_scope="session")
async def empty_url(postgres_url: str) -> AsyncGenerator[str]:
    """A database with nothing in it."""
    name = f"empty_{uuid4().hex}"
    await administer(postgres_url, f"CREATE DATABASE {name}")
    try:
        yield f"{postgres_url.rpartition('/')[0]}/{name}"
    finally:
        await administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("command", [("serve",), ("ingest", ".")])
async def test_an_empty_one_is_refused_with_a_hint(
    command: tuple[str, ...], empty_url: str, tmp_path: Path
):
    ended = await run(*command, cwd=tmp_path, DATABASE_URL=empty_url, PORT="0")
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith("parley: ")
    assert "`parley migrate`" in line
    assert "AUTO_MIGRATE" in line


@pytest.mark.parametrize("name", ["DATABASE_URL", "NEON_DATABASE_URL"])
async def test_migrate_makes_it_fit_to_serve(name: str, empty_url: str, tmp_path: Path):
    setting = {name: empty_url}
    migrated = await run("migrate", cwd=tmp_path, **setting)
    assert migrated.code == 0, migrated
    assert f"from nothing to {newest_revision()}" in migrated.out
    async with served(tmp_path / "data", **setting) as server:
        assert (await send(server.person(), "Hello"))["reply"]["status"] == "COMPLETE"
        assert not (server.data_dir / "postgres").exists()
        ended = await server.interrupt()
        assert ended.code == 0, ended


async def test_migrate_again_changes_nothing(empty_url: str, tmp_path: Path):
    await run("migrate", cwd=tmp_path, DATABASE_URL=empty_url)
    again = await run("migrate", cwd=tmp_path, DATABASE_URL=empty_url)
    assert again.code == 0, again
    assert "up to date" in again.out


async def test_auto_migrate_does_it_at_the_start(empty_url: str, tmp_path: Path):
    async with served(tmp_path / "data", DATABASE_URL=empty_url, AUTO_MIGRATE="true") as server:
        assert (await send(server.person(), "Hello"))["reply"]["status"] == "COMPLETE"


async def test_two_servers_that_migrate_at_once_both_serve(empty_url: str, tmp_path: Path):
    settings = {"DATABASE_URL": empty_url, "AUTO_MIGRATE": "true"}
    async with (
        served(tmp_path / "one", **settings) as one,
        served(tmp_path / "two", **settings) as two,
    ):
        person = one.person()
        sent = await send(person, "Hello")
        again = await send(two.person(person.key), "And you?", sessionId=sent["session"]["id"])
        assert again["session"]["messageCount"] == 4


# --- what stands in the way of a migration ------------------------------------------------


@pytest.mark.parametrize(
    ("statement", "reason"),
    [
        ("CREATE TABLE users (id int)", "already exists"),
        (
            "CREATE TABLE alembic_version AS SELECT 'abc123'::text AS version_num",
            "alembic_version",
        ),
        (
            "CREATE TABLE alembic_version AS SELECT '20240101'::text AS version_num",
            "alembic_version",
        ),
    ],
    ids=["a table of ours", "another project's", "another project's by number"],
)
async def test_what_stands_in_the_way_is_said_in_a_line(
    statement: str, reason: str, empty_url: str, tmp_path: Path
):
    await administer(empty_url, statement)
    ended = await run("migrate", cwd=tmp_path, DATABASE_URL=empty_url)
    assert ended.code == 1, ended
    [line] = ended.err.splitlines()
    assert line.startswith("parley: DATABASE_URL: ")
    assert reason in line


async def test_a_right_that_is_missing_is_said_in_a_line(empty_url: str, tmp_path: Path):
    name = f"nobody_{uuid4().hex}"
    await administer(empty_url, f"CREATE ROLE {name} LOGIN PASSWORD 'secret'")
    try:
        _, _, place = empty_url.partition("@")
        url = f"postgresql://{name}:secret@{place}"
        ended = await run("migrate", cwd=tmp_path, DATABASE_URL=url)
    finally:
        await administer(empty_url, f"DROP ROLE {name}")
    assert ended.code == 1, ended
    [line] = ended.err.splitlines()
    assert "permission denied" in line
    assert "secret" not in line


@pytest.mark.parametrize("setting", ["DATABASE_READ_URL", "DATABASE_DIRECT_URL"])
async def test_the_setting_that_is_wrong_is_named(setting: str, empty_url: str, tmp_path: Path):
    command = "migrate" if setting == "DATABASE_DIRECT_URL" else "serve"
    settings = {"DATABASE_URL": empty_url, setting: "garbage", "PORT": "0"}
    ended = await run(command, cwd=tmp_path, **settings)
    assert ended.code == 1, ended
    [line] = ended.err.splitlines()
    assert line.startswith(f"parley: {setting}: ")
