"""Migrations, run from code: what `parley migrate` and a starting server do.

Alembic's own command line works too (`alembic -x url=… upgrade head`).
"""

from collections.abc import Callable, Generator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import NamedTuple

import structlog
from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from alembic.util import CommandError
from sqlalchemy import Connection, text
from sqlalchemy.exc import DBAPIError
from tenacity import (
    AsyncRetrying,
    retry_if_exception_type,
    stop_after_delay,
    wait_random_exponential,
)

import migrations
from db.engine import Database
from db.errors import DatabaseUnavailable, MigrationRefused, SchemaMismatch
from db.outages import outages_named

log = structlog.get_logger(__name__)

_LOCK_NOT_AVAILABLE = "55P03"
_WRONG_PLACE = ("42", "2BP01")
"A right that is missing, a table that is there already or is another: not what we made."
_LOCK_KEY = 0x70617274
"Any number will do, as long as nothing else on the same database takes it."

LOCK_TIMEOUT = "5s"
"A migration that waits for a lock makes every query behind it wait too; better to try again."
LOCK_PATIENCE_SECONDS = 120
"How long a migration tries to get a lock that queries hold; each try waits for `LOCK_TIMEOUT`."


class _LockTaken(DatabaseUnavailable):
    """Somebody held a table for longer than a migration waits."""


@contextmanager
def _refusals_named() -> Generator[None]:
    """Translate what the database, or Alembic, has against a migration."""
    try:
        yield
    except CommandError as error:
        raise MigrationRefused(
            f"the table alembic_version is not Parley's ({error}): it needs a database, or a"
            " schema, of its own"
        ) from error
    except DBAPIError as error:
        state = getattr(error.orig, "sqlstate", None) or ""
        if state == _LOCK_NOT_AVAILABLE:
            raise _LockTaken("a table that a migration changes is held") from error
        if state.startswith(_WRONG_PLACE):
            said = str(getattr(error.orig, "__cause__", error)).splitlines()[0]
            raise MigrationRefused(f"the migration was refused: {said}") from error
        raise


class SchemaState(NamedTuple):
    """Which migration the schema stands at (null: none), and which this release needs."""

    current: str | None
    expected: str | None

    @property
    def is_behind(self) -> bool:
        """A newer release's schema is not: while that is rolled out, this one's processes go on."""
        return self.current != self.expected and not _is_newer(self.current)


def alembic_config() -> Config:
    """Point Alembic at the migrations, wherever the project is installed."""
    config = Config()
    config.set_main_option("script_location", str(Path(migrations.__file__).parent))
    return config


async def upgrade(database: Database) -> None:
    """Bring the schema to this release's. Processes that start at once do it one by one."""

    def run(connection: Connection) -> None:
        connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": _LOCK_KEY})
        if _is_newer(MigrationContext.configure(connection).get_current_revision()):
            return  # a process of the last release was started again
        config = alembic_config()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")

    async for attempt in AsyncRetrying(
        retry=retry_if_exception_type(_LockTaken),
        wait=wait_random_exponential(max=10),
        stop=stop_after_delay(LOCK_PATIENCE_SECONDS),
        reraise=True,
    ):
        with attempt, outages_named(), _refusals_named():
            async with database.engine.begin() as connection:
                await connection.run_sync(run)


async def current_revision(database: Database, *, patiently: bool = True) -> str | None:
    """Say which migration the schema stands at; null for an empty database."""
    read: Callable[[Connection], str | None] = lambda connection: (  # noqa: E731
        MigrationContext.configure(connection).get_current_revision()
    )
    return await database.inspect(read, patiently=patiently)


async def schema_state(database: Database) -> SchemaState:
    """Compare the schema with what this release needs, as things are now; change nothing."""
    return SchemaState(await current_revision(database, patiently=False), newest_revision())


@cache
def newest_revision() -> str | None:
    """Say which migration this release needs. The first call reads them all from disk."""
    return ScriptDirectory.from_config(alembic_config()).get_current_head()


async def check_schema(database: Database) -> None:
    """Raise `SchemaMismatch` where the schema lacks what this release needs.

    On a newer release's schema the last release's processes go on, and start: its first step
    takes nothing from them (`migrations/README.md`).
    """
    current, newest = await current_revision(database), newest_revision()
    if current == newest:
        return
    if _is_newer(current):
        log.warning("schema.newer", current=current, expected=newest)
        return
    raise SchemaMismatch(
        f"the database's schema is behind (at {current or 'nothing'}, needed is {newest}):"
        " run `parley migrate`, or set AUTO_MIGRATE=true"
    )


def _is_newer(revision: str | None) -> bool:
    """Tell whether a migration is of a release after this one: they are numbered in order."""
    newest = newest_revision()
    if revision is None or newest is None or not revision.isdecimal():
        return False
    # Four digits: other numbers are another project's.
    return len(revision) == len(newest) and int(revision) > int(newest)
