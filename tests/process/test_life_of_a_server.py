"""The server on a folder of its own: its first start, its ends, and what is there afterwards."""

import asyncio
import signal
from collections.abc import Awaitable, Callable
from pathlib import Path

import psutil
import pytest
from sqlalchemy import text

from db.engine import Database
from db.urls import parse_url
from tests.process.conversation import EVERYTHING, SEARCH, documents, search, send
from tests.process.processes import (
    Home,
    Server,
    free_port,
    postgres_url,
    postmaster,
    run,
    served,
    started,
    stop_postgres,
    until,
)

pytestmark = pytest.mark.asyncio(loop_scope="session")

POSTGRES_SECONDS = 5.0
"What a second start may spend on Postgres: it takes 0.1 s, and 1 s after a crash."
IDLE_SECONDS = 5.0
STALL_SECONDS = 1.0


async def test_parleys_own_documents_are_shared_and_ready(server: Server):
    found = await documents(server.person())
    assert {"README.md"} <= found.keys()
    assert {found["README.md"][name] for name in ("status", "visibility")} == {"READY", "SHARED"}


async def test_a_first_question_is_answered_with_citations(server: Server):
    reply = (await send(server.person(), "What is Parley?"))["reply"]
    assert reply["status"] == "COMPLETE"
    assert [cited["marker"] for cited in reply["citations"]][:1] == [1]
    assert "[1]" in reply["content"]
    assert {cited["document"]["visibility"] for cited in reply["citations"]} == {"SHARED"}


async def test_a_quota_does_not_hold_for_its_own_documents(tmp_path: Path):
    async with served(tmp_path / "data", ADD_DOCUMENT_QUOTA="1/day") as server:
        found = await documents(server.person())
        assert len(found) > 1
        assert {each["status"] for each in found.values()} == {"READY"}


async def test_it_says_where_it_listens(server: Server):
    [line] = server.process.out().splitlines()
    assert f"{server.url}/graphql" in line


# --- its ends -------------------------------------------------------------------------


async def ctrl_c(home: Home) -> None:
    ended = await home.server.interrupt()
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err
    assert postmaster(home.data_dir) is None


async def sigterm(home: Home) -> None:
    ended = await home.server.terminate()
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err
    assert postmaster(home.data_dir) is None


async def kill_9(home: Home) -> None:
    assert (await home.server.kill()).code == -signal.SIGKILL
    assert postmaster(home.data_dir)


async def kill_9_of_postgres(home: Home) -> None:
    postgres = postmaster(home.data_dir)
    assert postgres
    postgres.kill()
    ended = await home.server.interrupt()
    assert ended.code == 0, ended
    assert "Traceback" not in ended.err


async def kill_9_of_both(home: Home) -> None:
    await home.server.kill()
    postgres = postmaster(home.data_dir)
    assert postgres
    postgres.kill()


@pytest.mark.parametrize("end", [ctrl_c, sigterm, kill_9, kill_9_of_postgres, kill_9_of_both])
async def test_everything_is_still_there_after(
    end: Callable[[Home], Awaitable[None]], home: Home, server: Server
):
    key = (person := server.person()).key
    await send(person, "What is Parley?")
    before = await person.ask(EVERYTHING)
    found_before = await person.ask(SEARCH, text="Parley")

    await end(home)
    await home.start_again()

    person = home.server.person(key)
    assert await person.ask(EVERYTHING) == before
    assert await person.ask(SEARCH, text="Parley") == found_before != {"searchDocuments": []}
    events = home.server.events()
    assert "postgres.initialised" not in events
    if end is kill_9:
        assert "postgres.adopted" in events
    else:
        assert events["postgres.started"]["seconds"] < POSTGRES_SECONDS


async def test_postgres_does_not_hear_the_terminals_ctrl_c(home: Home, server: Server):
    postgres = postmaster(home.data_dir)
    assert postgres
    with open(f"/proc/{postgres.pid}/stat") as file:  # noqa: ASYNC230 - not a real file
        group, session = (int(word) for word in file.read().rpartition(")")[2].split()[2:4])
    assert server.pid not in (group, session)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM])
async def test_a_start_that_is_broken_off_leaves_no_postgres(end: signal.Signals, tmp_path: Path):
    async with started(tmp_path / "data") as server:

        async def running() -> psutil.Process | None:
            return postmaster(server.data_dir)

        await until(running, bool)
        server.process.send(end)
        ended = await server.process.ended()
        assert "Traceback" not in ended.err
        assert postmaster(server.data_dir) is None


async def test_a_postgres_that_is_killed_is_started_again(home: Home, server: Server):
    person = server.person()
    before = await send(person, "Is anybody there?")
    killed = postmaster(home.data_dir)
    assert killed
    killed.kill()
    after = await send(person, "And now?", sessionId=before["session"]["id"])
    assert after["session"]["messageCount"] == 4
    again = postmaster(home.data_dir)
    assert again
    assert again.pid != killed.pid
    await ctrl_c(home)


# --- two on one folder ----------------------------------------------------------------


@pytest.mark.parametrize("port", ["another", "the same"])
async def test_a_second_server_on_the_folder_refuses_and_names_the_first(port: str, server: Server):
    ended = await run(
        "serve",
        cwd=server.data_dir.parent,
        DATA_DIR=str(server.data_dir),
        PORT=str(server.port if port == "the same" else free_port()),
    )
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith("parley: ")
    assert f"process {server.pid}" in line
    assert "DATA_DIR" in line
    assert await search(server.person(), "Parley")


async def test_of_two_starts_at_the_same_moment_one_serves(tmp_path: Path):
    async with started(tmp_path / "data") as one, started(tmp_path / "data") as other:

        async def refused() -> list[Server]:
            return [each for each in (one, other) if each.process.code is not None]

        [loser] = await until(refused, bool)
        winner = other if loser is one else one
        ended = await loser.process.ended()
        assert ended.code == 1
        [line] = ended.err.splitlines()
        assert line.startswith("parley: another Parley")
        await winner.ready()
        assert (await winner.terminate()).code == 0


# --- silence --------------------------------------------------------------------------


async def test_an_idle_server_sends_no_sql(server: Server):
    await send(server.person(), "What is Parley?")  # there are connections, and a run has ended
    url = postgres_url(server.data_dir)
    assert url
    ours = Database(parse_url(url), pool_size=1)

    async def others() -> object:
        statement = text(
            "SELECT pid, query_start, state_change, query FROM pg_stat_activity"
            " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid() ORDER BY pid"
        )
        return await ours.rows(statement, {})

    try:
        before = await others()
        await asyncio.sleep(IDLE_SECONDS)  # the silence itself is what is looked at
        assert before
        assert await others() == before
    finally:
        await ours.close()


async def test_a_server_that_stood_still_says_so(server: Server):
    server.process.send(signal.SIGSTOP)
    await asyncio.sleep(STALL_SECONDS)  # for so long it stands still
    server.process.send(signal.SIGCONT)

    async def stalled() -> bool:
        return "loop.stalled" in server.log()

    await until(stalled, bool)


async def test_migrate_beside_a_server_uses_its_postgres(server: Server):
    ended = await run("migrate", cwd=server.data_dir.parent, DATA_DIR=str(server.data_dir))
    assert ended.code == 0, ended
    assert "up to date" in ended.out
    assert await server.is_healthy()


async def test_migrate_alone_makes_a_folder_and_stops_its_postgres(tmp_path: Path):
    try:
        ended = await run("migrate", cwd=tmp_path, DATA_DIR="data")
        assert ended.code == 0, ended
        assert "from nothing to" in ended.out
        assert postmaster(tmp_path / "data") is None
    finally:
        stop_postgres(tmp_path / "data")
