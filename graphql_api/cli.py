"""The command line: `parley serve | migrate | ingest | schema`."""

import asyncio
import signal
import sys
from collections.abc import Awaitable, Callable, Coroutine
from types import FrameType
from typing import Any

import click
import psutil
from rich.console import Console

from db import migration
from db.embedded import EmbeddedPostgresError
from db.engine import Database
from db.errors import (
    DatabaseError,
    DatabaseUnavailable,
    DatabaseUrlInvalid,
    MigrationRefused,
)
from db.users import users_by_email
from db.viewer import Viewer
from graphql_api.app import open_services
from graphql_api.auth import anonymous_viewer, known_viewer, operator, subject_viewer
from graphql_api.data_folder import DataFolderInUse, DataFolderUnusable, knock
from graphql_api.ingest import ReaderGone, Summary, ingest
from graphql_api.instance import migrate, open_database, prepare_schema
from graphql_api.logs import configure_logs
from graphql_api.schema import printed_schema
from graphql_api.serve import PortUnusable, serve
from graphql_api.settings import Settings, SettingsInvalid, load_settings
from rag.fetching import Fetcher
from rag.ports import EmbedderUnavailable, IndexUnavailable, PortError
from resolvers.errors import Unauthenticated
from resolvers.intake import Intake
from resolvers.quotas import NoQuotas

EXPECTED = (
    DataFolderInUse,
    DataFolderUnusable,
    DatabaseError,
    EmbeddedPostgresError,
    PortError,
    PortUnusable,
    ReaderGone,
    SettingsInvalid,
    Unauthenticated,
)
"What can be wrong with a set-up. Each has a message of one line; a traceback would hide it."


def main() -> None:
    """Run the command line; what is wrong with the set-up is said in one line, with exit code 1."""
    configure_logs()
    # What stands open is closed in order, Postgres too, whichever way we are told to stop.
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        commands()
    except EXPECTED as error:
        click.echo(f"parley: {_one_line(error)}", err=True)
        sys.exit(1)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="parley")
def commands() -> None:
    """Parley: a GraphQL chat backend that loses nothing.

    Settings come from the environment or a .env file; the README lists them.
    """


@commands.command("serve")
def serve_command() -> None:
    """Serve the API until Ctrl-C.

    Without DATABASE_URL, an embedded Postgres is started under DATA_DIR and migrated.
    """
    settings = load_settings()
    if settings.is_production:
        configure_logs(as_json=True)
    _run(serve(settings))


@commands.command("migrate")
def migrate_command() -> None:
    """Bring the database's schema to this release's."""
    _run(_migrate(load_settings()))


@commands.command("ingest")
@click.argument("places", metavar="PATH_OR_URL...", nargs=-1, required=True)
@click.option("--anonymous-key", metavar="KEY", help="Only for the visitor with this X-Session-ID.")
@click.option(
    "--subject",
    metavar="S",
    help="Only for the user whom tokens call S (of AUTH_REALM, by default AUTH_ISSUER).",
)
@click.option(
    "--email", metavar="E", help="Only for the user with this address, who has used Parley before."
)
def ingest_command(
    places: tuple[str, ...], anonymous_key: str | None, subject: str | None, email: str | None
) -> None:
    """Add documents and wait until they can be searched.

    Markdown, plain text, HTML, PDF and DOCX; folders are walked. Shared by all users unless
    an owner is named. What is there already is left alone. Exit code 1 when any failed.
    """
    settings = load_settings()
    named = [each for each in (anonymous_key, subject, email) if each is not None]
    if len(named) > 1:
        raise click.UsageError("Give one of --anonymous-key, --subject and --email, not more.")

    viewer = _owner(settings, anonymous_key, subject)

    async def owner(database: Database) -> Viewer:
        return viewer if email is None else await _user_with(email, database)

    console = Console()
    summary = _run(_ingest(settings, places, owner, shared=not named, console=console))
    summary.print(console)
    sys.exit(1 if summary.failed else 0)


@commands.command("schema")
def schema_command() -> None:
    """Print the GraphQL schema."""
    click.echo(printed_schema(), nl=False)


async def _migrate(settings: Settings) -> None:
    async with open_database(settings, beside=True) as held:
        before = await migration.current_revision(held.database)
        await migrate(settings, held.database)
        after = await migration.current_revision(held.database)
    if before == after:
        click.echo(f"The schema is up to date (at {after}).")
    else:
        click.echo(f"The schema went from {before or 'nothing'} to {after}.")


async def _ingest(
    settings: Settings,
    places: tuple[str, ...],
    owner: Callable[[Database], Awaitable[Viewer]],
    *,
    shared: bool,
    console: Console,
) -> Summary:
    async with open_database(settings, beside=True) as held:
        await prepare_schema(settings, held.database)
        viewer = await owner(held.database)
        if held.neighbour is None:
            async with open_services(settings, held.database) as services:
                await services.ingestion.take_up_unfinished()
                return await ingest(
                    places, viewer, services.intake, held.database, shared=shared, console=console
                )
        holder = held.neighbour.holder
        if holder is None:
            raise held.neighbour
        console.print(f"A server (process {holder}) is running here: it does the reading.")
        fetcher = Fetcher(
            max_bytes=settings.max_upload_bytes, timeout_seconds=settings.fetch_timeout_seconds
        )
        intake = Intake(
            held.database,
            fetcher,
            lambda _: knock(holder),
            NoQuotas(),
            max_bytes=settings.max_upload_bytes,
        )
        try:
            return await ingest(
                places,
                viewer,
                intake,
                held.database,
                shared=shared,
                console=console,
                is_attended=lambda: psutil.pid_exists(holder),
            )
        finally:
            await fetcher.close()


def _owner(settings: Settings, anonymous_key: str | None, subject: str | None) -> Viewer:
    if anonymous_key is not None:
        return anonymous_viewer(anonymous_key)
    if subject is not None:
        if settings.realm is None:
            raise SettingsInvalid("AUTH_REALM: it (or AUTH_ISSUER) says whose subject that is")
        return subject_viewer(settings.realm, subject)
    return operator()


async def _user_with(email: str, database: Database) -> Viewer:
    """Find the one user with an address. Raises `click.UsageError` for none, or several."""
    match await users_by_email(database, email):
        case [user]:
            return known_viewer(user)
        case []:
            raise click.UsageError(f"No user has the address {email}.")
        case several:
            raise click.UsageError(f"{len(several)} users have the address {email}.")


def _run(work: Coroutine[Any, Any, Any]) -> Any:
    try:
        return asyncio.run(work)
    except KeyboardInterrupt:
        sys.exit(130)


def _interrupt(_: int, __: FrameType | None) -> None:
    signal.raise_signal(signal.SIGINT)


def _one_line(error: BaseException) -> str:
    if isinstance(error, DatabaseUnavailable):
        cause = error.__cause__
        origin = getattr(cause, "orig", None) or cause
        said = str(origin).splitlines()[0] if str(origin or "") else error
        return f"{error.setting}: can't connect: {said}"
    if isinstance(error, DatabaseUrlInvalid | MigrationRefused):
        return f"{error.setting}: {error}"
    if isinstance(error, EmbedderUnavailable):
        return f"OPENAI_BASE_URL: {error}"
    if isinstance(error, IndexUnavailable):
        return f"QDRANT_URL: {error}"
    text = str(error) or type(error).__name__
    return " ".join(text.split())
