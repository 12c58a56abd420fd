"""A server that has no connection left, no disk left, or takes no writes: try again later."""

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Generator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from secrets import token_urlsafe
from typing import Any
from uuid import uuid4

import httpx2
import pytest
from sqlalchemy import text

from db import migration
from db.connections import Patience
from db.embedded_account import account_for
from db.embedded_data import find_programs
from db.engine import Database
from db.errors import DatabaseUnavailable, ServerFull
from db.models import MessageStatus
from db.urls import parse_url
from graphql_api.settings import Settings
from resolvers.events import Ended
from tests.factories import make_session, make_streaming_reply, make_viewer
from tests.openai_server import OpenAIServer, says
from tests.operations import SEND, being_written, send, session, until
from tests.people import Parley, Person, open_parley
from tests.postgres.servers import Server, debian_postgres, needs_debian_postgres, open_folder

RETRY_SECONDS = 0.3
MAX_CONNECTIONS = 8
RESERVED = 3
"Postgres keeps these for superusers; who is none has to do with the rest."
SMALL_DISK = "32m"
SESSIONS = "{ sessions { totalCount edges { node { messageCount } } } }"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """Somebody asks until it is back, as fast as the machine can."""
    return settings.model_copy(update={"rate_limit": "off"})


@asynccontextmanager
async def opened(
    url: str, *, retry: float = RETRY_SECONDS, **pool: int
) -> AsyncGenerator[Database]:
    database = Database(parse_url(url), patience=Patience(retry=retry), **pool)
    try:
        yield database
    finally:
        await database.close()


async def tell(url: str, *statements: str) -> None:
    async with opened(url, pool_size=1, max_overflow=0) as administrator:
        for statement in statements:
            await administrator.rows(text(statement), {})


async def post(person: Person, query: str, **variables: Any) -> httpx2.Response:
    body = {"query": query, "variables": variables}
    return await person.http.post("/graphql", json=body, headers=person.headers)


async def is_put_off(person: Person, query: str, **variables: Any) -> bool:
    """Tell whether an operation is refused as one to try again; fail if it is otherwise."""
    answer = await post(person, query, **variables)
    errors = answer.json().get("errors")
    if answer.status_code == 200:
        assert not errors, errors
        return False
    assert answer.status_code == 503
    assert int(answer.headers["Retry-After"]) > 0
    assert [each["extensions"]["code"] for each in errors] == ["UNAVAILABLE"]
    return True


def a_message() -> dict[str, str]:
    return {"content": "What is a lease?", "messageId": str(uuid4())}


# --- no connection left ---------------------------------------------------------------


@pytest.fixture(scope="module")
def small_server() -> Generator[Server]:
    with open_folder() as folder:
        limits = {
            "max_connections": str(MAX_CONNECTIONS),
            "superuser_reserved_connections": str(RESERVED),
        }
        with debian_postgres(folder, limits) as server:
            yield server


@pytest.fixture
async def ordinary_url(small_server: Server) -> AsyncGenerator[str]:
    """A migrated database of somebody who is no superuser, on a server for a few."""
    name = f"ordinary_{uuid4().hex}"
    administrator = small_server.url()
    await tell(
        administrator,
        f"CREATE ROLE {name} LOGIN PASSWORD 'secret'",
        f"CREATE DATABASE {name} OWNER {name}",
    )
    url = f"postgresql://{name}:secret@127.0.0.1:{small_server.port}/{name}"
    async with opened(url, pool_size=1, max_overflow=0) as database:
        await migration.upgrade(database)
    yield url
    await tell(administrator, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


async def let_go(database: Database) -> None:
    """Close all its connections, once the start is through: what it uses would be left open."""
    await until(lambda: not any(task.get_name() == "fill index" for task in asyncio.all_tasks()))
    await until(lambda: database.pool.in_use == 0)
    await database.engine.dispose()


@asynccontextmanager
async def all_taken(url: str) -> AsyncGenerator[None]:
    """Take every connection that is left."""
    async with AsyncExitStack() as stack:
        greedy = await stack.enter_async_context(opened(url, pool_size=MAX_CONNECTIONS))
        with pytest.raises(DatabaseUnavailable):  # noqa: PT012 - one of them is too many
            for _ in range(MAX_CONNECTIONS):
                await stack.enter_async_context(greedy.transaction())
        yield


@needs_debian_postgres
async def test_where_others_took_all_connections_we_are_put_off_and_come_back(
    ordinary_url: str, settings: Settings
):
    async with opened(ordinary_url) as database, open_parley(settings, database) as parley:
        alice, input = parley.person(), a_message()
        await let_go(database)
        async with all_taken(ordinary_url):
            assert await is_put_off(alice, SESSIONS)
            assert await is_put_off(alice, SEND, input=input)
        await recovers(alice, input)


@needs_debian_postgres
async def test_where_no_more_is_to_be_had_we_go_on_with_those_we_have(
    ordinary_url: str, settings: Settings
):
    """Others hold all but one, which is ours: twenty people share it, and nobody is put off."""
    async with (
        opened(ordinary_url, retry=5.0) as database,
        open_parley(settings, database) as parley,
    ):
        await let_go(database)
        await database.rows(text("SELECT 1"), {})
        async with all_taken(ordinary_url):
            people = [parley.person() for _ in range(20)]
            put_off = await asyncio.gather(*(is_put_off(each, SESSIONS) for each in people))
    assert not any(put_off)


@needs_debian_postgres
async def test_who_gets_no_connection_does_not_take_the_database_for_away(ordinary_url: str):
    async with opened(ordinary_url) as database, database.transaction() as ours:
        async with all_taken(ordinary_url):
            with pytest.raises(ServerFull):
                await database.rows(text("SELECT 1"), {})
            await ours.rows(text("SELECT 1"), {})
            with pytest.raises(ServerFull):
                await database.rows(text("SELECT 1"), {})


async def recovers(person: Person, input: dict[str, str]) -> None:
    """Send what was put off until it is taken; it is there once, whoever refused it meanwhile."""
    async with asyncio.timeout(10):
        while await is_put_off(person, SEND, input=input):
            pass
    read = await person.ask(SESSIONS)
    assert [each["node"]["messageCount"] for each in read["sessions"]["edges"]] == [2]


# --- no disk left ---------------------------------------------------------------------


@pytest.fixture
def small_disk() -> Generator[Path]:
    """A disk that is soon full: a file system in memory, which only root may mount."""
    with open_folder() as folder:
        disk = folder / "disk"
        disk.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(disk)]
        if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("a small disk can't be mounted here")
        try:
            yield disk
        finally:
            subprocess.run(["umount", "--lazy", str(disk)], check=True)


@pytest.fixture
async def cramped(
    small_disk: Path, postgres_url: str, database_url: str
) -> AsyncGenerator[tuple[Path, str]]:
    """The test's database, moved to the small disk, and a file to fill that with."""
    data, name = small_disk / "data", database_url.rpartition("/")[2]
    data.mkdir()
    account = account_for(small_disk, data / "nothing", find_programs() / "postgres")
    assert account
    account.give(data)
    space = f"small_{uuid4().hex}"
    await tell(
        postgres_url,
        f"CREATE TABLESPACE {space} LOCATION '{data}'",
        f"ALTER DATABASE {name} SET TABLESPACE {space}",
    )
    yield small_disk / "ballast", database_url
    await tell(
        postgres_url,
        f"ALTER DATABASE {name} SET TABLESPACE pg_default",
        f"DROP TABLESPACE {space}",
    )


def fill(ballast: Path) -> None:
    with ballast.open("wb") as file, pytest.raises(OSError, match="No space left"):  # noqa: PT012
        while True:
            os.write(file.fileno(), b"\0" * 4096)


async def test_on_a_full_disk_sends_are_put_off_and_reads_go_on(
    cramped: tuple[Path, str], settings: Settings
):
    ballast, url = cramped
    async with opened(url) as database, open_parley(settings, database) as parley:
        alice, bob, input = parley.person(), parley.person(), a_message()
        input["content"] = token_urlsafe(20_000)  # more than fits where there is room still
        sent = await send(bob)
        fill(ballast)
        assert await is_put_off(alice, SEND, input=input)
        assert (await session(bob, sent["session"]["id"]))["messageCount"] == 2
        ballast.unlink()
        await recovers(alice, input)


# --- no writes taken ------------------------------------------------------------------


async def read_only(url: str, setting: str) -> None:
    server, _, name = url.rpartition("/")
    switch = f"ALTER DATABASE {name} SET default_transaction_read_only = {setting}"
    await tell(f"{server}/postgres", switch)


async def fail_over(database: Database) -> None:
    """End its connections, as a failover does: the next ones lead to the new place."""
    await tell(
        database.url.sqlalchemy.render_as_string(hide_password=False),
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE datname = current_database() AND pid <> pg_backend_pid()",
    )


@pytest.fixture
async def served(database_url: str, settings: Settings) -> AsyncGenerator[Parley]:
    async with opened(database_url) as database, open_parley(settings, database) as parley:
        yield parley


async def test_where_no_writes_are_taken_sends_are_put_off_and_reads_go_on(
    database_url: str, served: Parley
):
    alice, bob, input = served.person(), served.person(), a_message()
    sent = await send(bob)
    await read_only(database_url, "on")
    await fail_over(served.database)
    assert await is_put_off(alice, SEND, input=input)
    assert (await session(bob, sent["session"]["id"]))["messageCount"] == 2
    assert await is_put_off(alice, SEND, input=input)
    await read_only(database_url, "off")
    await recovers(alice, input)


@pytest.mark.parametrize(
    "operation",
    [
        'createSession(input: {title: "A"})',
        'updateProfile(input: {name: "A"})',
        'addDocument(input: {source: {text: "A lease is a promise."}})',
    ],
)
async def test_where_no_writes_are_taken_other_mutations_are_put_off(
    database_url: str, served: Parley, operation: str
):
    await read_only(database_url, "on")
    await fail_over(served.database)
    assert await is_put_off(served.person(), f"mutation {{ {operation} {{ __typename }} }}")


async def test_a_reply_under_way_outlasts_a_spell_without_writes(
    database_url: str, settings: Settings, model: OpenAIServer
):
    settings = settings.model_copy(update={"openai_base_url": model.url})
    rest = asyncio.Event()
    model.script(says("One", rest, ", two"))
    async with opened(database_url) as database, open_parley(settings, database) as parley:
        sending = asyncio.create_task(send(parley.person()))
        await being_written(parley, "One")
        await read_only(database_url, "on")
        await fail_over(database)
        rest.set()
        await being_written(parley, "One, two")
        await read_only(database_url, "off")
        reply = (await sending)["reply"]
    assert (reply["status"], reply["content"]) == ("COMPLETE", "One, two")


async def test_where_no_writes_are_taken_one_can_start_and_read(
    database_url: str, settings: Settings, database: Database
):
    """As the processes are that were restarted during a failover."""
    alice = make_viewer()
    session_id = await make_session(database, owner=alice)
    reply = await make_streaming_reply(
        database, owner=alice, session=session_id, lease=timedelta(seconds=-1)
    )
    await read_only(database_url, "on")
    async with opened(database_url) as database, open_parley(settings, database) as parley:
        events = parley.services.replies.follow(alice, str(reply), 0)
        *_, ended = [event async for event in events]
        assert isinstance(ended, Ended)
        assert ended.reply.status == MessageStatus.INTERRUPTED
    await read_only(database_url, "off")
