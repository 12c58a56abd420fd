"""A Parley on this machine: its data folder, its database, its own documents."""

import asyncio
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import NamedTuple

import structlog

from db import migration
from db.connections import Patience
from db.embedded import EmbeddedPostgres, EmbeddedPostgresError
from db.engine import Database
from db.errors import DatabaseError
from db.ingestion import has_no_documents
from db.urls import parse_url
from graphql_api.auth import operator
from graphql_api.data_folder import DataFolder, DataFolderInUse
from graphql_api.services import Services
from graphql_api.settings import Settings
from resolvers.intake import FileSource

log = structlog.get_logger(__name__)

POSTGRES_FOLDER = "postgres"
WAIT_SECONDS = 0.2
"How often a command looks whether another one is done with the data folder."
RESTART_SECONDS = 5.0
"How often an embedded Postgres that does not start, such as on a full disk, is tried again."
OWN_DOCS_SECONDS = 20
"The first start waits this long at most for its own documents to be readable."


class Held(NamedTuple):
    """What this process works with: a database, and who else has the data folder (or null).

    `reads` is where queries may be answered from: the same, or a replica of it.
    """

    database: Database
    reads: Database
    neighbour: DataFolderInUse | None


@asynccontextmanager
async def open_database(settings: Settings, *, beside: bool = False) -> AsyncGenerator[Held]:
    """Take the data folder if one is needed, and connect, starting the embedded Postgres if asked.

    With `beside`, a folder that another Parley works in is no error: its Postgres is used.
    Raises `DataFolderInUse`, `DataFolderUnusable`, `EmbeddedPostgresError`, `DatabaseUrlInvalid`.
    """
    async with AsyncExitStack() as stack:
        neighbour = None
        if settings.database_url is None or settings.qdrant_url is None:
            neighbour = await _take_folder(settings.data_dir, stack, beside=beside)
        if settings.database_url is not None:
            url = settings.database_url.get_secret_value()
        else:
            postgres = EmbeddedPostgres(settings.data_dir / POSTGRES_FOLDER)
            if neighbour is None:
                stack.push_async_callback(asyncio.to_thread, postgres.stop)
                url = await asyncio.to_thread(postgres.start)
                await stack.enter_async_context(_kept_up(postgres))
            else:
                attached = await asyncio.to_thread(EmbeddedPostgres.attach, postgres.folder)
                if attached is None:
                    raise neighbour
                url = attached
        database = reads = _database(settings, url)
        stack.push_async_callback(database.close)
        if settings.database_read_url is not None:
            with _blaming("DATABASE_READ_URL"):
                reads = _database(settings, settings.database_read_url.get_secret_value())
            stack.push_async_callback(reads.close)
        yield Held(database, reads, neighbour)


@asynccontextmanager
async def _kept_up(postgres: EmbeddedPostgres) -> AsyncGenerator[None]:
    """Start the embedded Postgres again whenever it dies: nobody else would."""

    async def keep_up() -> None:
        while True:
            await asyncio.to_thread(postgres.wait)
            log.error("postgres.died", folder=str(postgres.folder))
            try:
                await asyncio.to_thread(postgres.start)
            except EmbeddedPostgresError as error:
                log.error("postgres.not_restarted", reason=str(error))
                await asyncio.sleep(RESTART_SECONDS)

    keeping = asyncio.create_task(keep_up(), name="embedded postgres")
    try:
        yield
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)


@contextmanager
def _blaming(setting: str) -> Generator[None]:
    """Let what goes wrong with a database name the setting that it comes from."""
    try:
        yield
    except DatabaseError as error:
        error.setting = setting
        raise


def _database(settings: Settings, url: str) -> Database:
    return Database(
        parse_url(url, settings.database_pooler),
        pool_size=settings.database_pool_size,
        max_overflow=settings.database_pool_overflow,
        patience=Patience(
            acquire=settings.database_acquire_timeout_seconds,
            statement=settings.database_statement_timeout_seconds,
            retry=settings.database_retry_seconds,
        ),
    )


async def _take_folder(
    path: Path, stack: AsyncExitStack, *, beside: bool
) -> DataFolderInUse | None:
    """Hold the data folder until the stack ends; where another command has it, wait for it.

    Gives the server that has it, where we may work beside one; raises otherwise.
    """
    folder = DataFolder(path, "command" if beside else "serve")
    while True:
        try:
            stack.enter_context(folder)
            return None
        except DataFolderInUse as error:
            if not beside:
                raise
            if error.serves:
                return error
            await asyncio.sleep(WAIT_SECONDS)


async def prepare_schema(settings: Settings, database: Database) -> None:
    """Migrate what is ours or what we were told to; else see that it was done.

    Raises `SchemaMismatch`.
    """
    if settings.database_url is None or settings.auto_migrate:
        await migrate(settings, database)
    else:
        await migration.check_schema(database)


async def migrate(settings: Settings, database: Database) -> None:
    """Bring the schema up to date: past a pooler, and for as long as it takes."""
    given = settings.database_direct_url
    with _blaming("DATABASE_URL" if given is None else "DATABASE_DIRECT_URL"):
        url = database.url.direct if given is None else parse_url(given.get_secret_value(), "none")
        direct = Database(url, pool_size=1, max_overflow=0, patience=Patience(statement=None))
        try:
            await migration.upgrade(direct)
        finally:
            await direct.close()


async def ingest_own_docs(services: Services) -> None:
    """Share Parley's own documentation, so that the first question has an answer.

    Only where there are no documents at all. The rest of a slow reading goes on by itself.
    """
    if not await has_no_documents(services.database):
        return
    intake, reading = services.intake.without_quotas(), list[asyncio.Task[None]]()
    for file in own_docs():
        source = FileSource(file.read_bytes(), file.name)
        added = await intake.add(operator(), source, title=None, shared=True, request_id="start")
        reading.append(services.ingestion.take_up(added.document.id))
    if reading:
        await asyncio.wait(reading, timeout=OWN_DOCS_SECONDS)


def own_docs() -> list[Path]:
    """Find Parley's documentation: packed with the distribution, or beside a checkout's code."""
    here = Path(__file__).parent
    packed = here / "own_docs"
    return sorted((packed if packed.is_dir() else here.parent / "docs").rglob("*.md"))
