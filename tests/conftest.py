"""Real parts for the tests: a Postgres of our own, the whole application, several people.

The schema is migrated once into a template database that each test gets a clone of.
"""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from sqlalchemy import text

from db import migration
from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.people import Parley, Person, open_parley

TEMPLATE = "template_of_tests"


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A Postgres server for this test run, with a migrated template database."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    url = postgres.start()
    asyncio.run(_make_template(url))
    yield url
    postgres.stop()


async def _make_template(url: str) -> None:
    await _administer(url, f"CREATE DATABASE {TEMPLATE}")
    database = Database(parse_url(_named(url, TEMPLATE)))
    await migration.upgrade(database)
    await database.close()


async def _administer(url: str, statement: str) -> None:
    server = Database(parse_url(url), pool_size=1)
    await server.rows(text(statement), {})
    await server.close()


def _named(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


@asynccontextmanager
async def cloned(postgres_url: str) -> AsyncGenerator[str]:
    """Give the URL of a fresh, migrated database, dropped afterwards."""
    name = f"test_{uuid4().hex}"
    await _administer(postgres_url, f"CREATE DATABASE {name} TEMPLATE {TEMPLATE}")
    try:
        yield _named(postgres_url, name)
    finally:
        await _administer(postgres_url, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.fixture
async def database_url(postgres_url: str) -> AsyncGenerator[str]:
    async with cloned(postgres_url) as url:
        yield url


@pytest.fixture
async def database(database_url: str) -> AsyncGenerator[Database]:
    database = Database(parse_url(database_url))
    yield database
    await database.close()


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """The defaults, whatever the environment of the test run says."""
    return Settings.model_construct(data_dir=tmp_path / "data", reply_lease_seconds=30.0)


@pytest.fixture
async def parley(settings: Settings, database: Database) -> AsyncGenerator[Parley]:
    """The application, answered by the extractive model."""
    async with open_parley(settings, database) as parley:
        yield parley


@pytest.fixture
def alice(parley: Parley) -> Person:
    return parley.person()


@pytest.fixture
def bob(parley: Parley) -> Person:
    return parley.person()
