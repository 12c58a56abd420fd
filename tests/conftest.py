"""Real parts for the tests: a Postgres of our own, the whole application, several people.

The schema is migrated once into a template database that each test gets a clone of.
`tests/db/schemas.py` says what else the template may be: partitioned, or the next release's.
"""

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast
from uuid import uuid4

import pytest
import structlog
from sqlalchemy import text

from db import migration
from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.db import schemas
from tests.issuer import Issuer, issuing
from tests.openai_server import OpenAIServer, openai_server
from tests.people import Parley, Person, open_parley

TEMPLATE = "template_of_tests"


def pytest_make_parametrize_id(val: object) -> str | None:
    """Name random ids alike: all processes of a run have to find the same tests."""
    looks_random = isinstance(val, str) and re.fullmatch(r"[0-9a-f-]{31,36}", val)
    return "random" if looks_random else None


def _refuse_the_internet(event: str, arguments: tuple[Any, ...]) -> None:
    """Let sockets reach this machine alone: a test that needs another is no test."""
    if event != "socket.connect" or not isinstance(arguments[1], tuple):
        return
    host = cast("tuple[str, int]", arguments[1])[0]
    if not ip_address(host).is_loopback:
        raise AssertionError(f"A test tried to connect to {host}.")


sys.addaudithook(_refuse_the_internet)
structlog.configure(
    processors=[
        structlog.processors.add_log_level,
        # The default draws every local variable of every frame, which takes seconds.
        structlog.dev.ConsoleRenderer(
            colors=False, exception_formatter=structlog.dev.plain_traceback
        ),
    ]
)


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Generator[str]:
    """A Postgres server for this test run, with a migrated template database."""
    postgres = EmbeddedPostgres(tmp_path_factory.mktemp("postgres"))
    url = postgres.start()
    asyncio.run(_make_template(url))
    yield url
    postgres.stop()


async def _make_template(url: str) -> None:
    for unneeded in ("fsync", "full_page_writes"):
        await _administer(url, f"ALTER SYSTEM SET {unneeded} = off")
    await _administer(url, "SELECT pg_reload_conf()")
    await _administer(url, f"CREATE DATABASE {TEMPLATE}")
    database = Database(parse_url(_named(url, TEMPLATE)))
    await migration.upgrade(database)
    await schemas.change(database)
    await database.close()


async def _administer(url: str, statement: str) -> None:
    server = Database(parse_url(url), pool_size=1)
    await server.rows(text(statement), {})
    await server.close()


def _named(url: str, name: str) -> str:
    return f"{url.rpartition('/')[0]}/{name}"


@asynccontextmanager
async def cloned(postgres_url: str, template: str = TEMPLATE) -> AsyncGenerator[str]:
    """Give the URL of a fresh, migrated database, dropped afterwards."""
    name = f"test_{uuid4().hex}"
    await _administer(
        postgres_url, f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy"
    )
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
async def empty_database(postgres_url: str) -> AsyncGenerator[Database]:
    """A database without tables."""
    async with cloned(postgres_url, "template0") as url:
        database = Database(parse_url(url))
        yield database
        await database.close()


@pytest.fixture
async def model() -> AsyncGenerator[OpenAIServer]:
    """A server that speaks OpenAI's API. A module's own `settings` may name its `url`."""
    async with openai_server() as server:
        yield server


@pytest.fixture
async def issuer() -> AsyncGenerator[Issuer]:
    """An issuer of tokens. A module's own `settings` may take its `settings`."""
    async with issuing() as issuer:
        yield issuer


@pytest.fixture
def quick_folder() -> Generator[Path]:
    """An empty folder, in memory where the system has one.

    A new vector store syncs its files to disk again and again: 0.2 s a test, in memory 0.01 s.
    """
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="parley-test-", dir=memory) as folder:
        yield Path(folder)


@pytest.fixture
def settings(quick_folder: Path) -> Settings:
    """The defaults, whatever the environment of the test run says."""
    return Settings.model_construct(data_dir=quick_folder, reply_lease_seconds=30.0)


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
