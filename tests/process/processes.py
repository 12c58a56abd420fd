"""Real `parley` processes: servers that can be killed, and commands that run to their end.

    async with served(tmp_path / "data", REPLY_LEASE_SECONDS="2") as server:
        sent = await server.person().ask(...)
        await server.kill()

    ended = await run("ingest", "notes", cwd=tmp_path, DATA_DIR="data")
    assert (ended.code, ended.err) == (0, "")

None of them sees the settings of whoever runs the tests: the environment is made here, and
the working folder, where a `.env` would be read, is the test's own.

A server is the installed script, as anyone starts it. A command is forked off a process that
has imported Parley already: importing takes seconds of processor time, again and again.
"""

import asyncio
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx2
import psutil

from db.embedded import EmbeddedPostgres
from graphql_api import cli
from tests.people import Person

T = TypeVar("T")

SCRIPT = Path(sys.executable).with_name("parley")
READY_SECONDS = 90.0
"Seconds of importing on a busy machine, and the recovery of Postgres after a crash."
END_SECONDS = 60.0
POLL_SECONDS = 0.02


def environment(folder: Path, settings: Mapping[str, str]) -> dict[str, str]:
    """Make an environment of the given settings and nothing else of Parley's."""
    kept = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
    return kept | {"HOME": str(folder), "LC_ALL": "C.UTF-8"} | dict(settings)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


async def until(
    find: Callable[[], Awaitable[T]], found: Callable[[T], object], seconds: float = 30
) -> T:
    """Ask again and again until the answer is the one that is waited for, and give it."""
    deadline = time.monotonic() + seconds
    while not found(answer := await find()):
        assert time.monotonic() < deadline, f"after {seconds:g} s it still is {answer!r:.500}"
        await asyncio.sleep(POLL_SECONDS)
    return answer


# --- Postgres -------------------------------------------------------------------------


def postmaster(data_dir: Path) -> psutil.Process | None:
    """Give the Postgres that runs on a data folder, if one does."""
    pgdata = str((data_dir / "postgres" / "pgdata").resolve())
    for process in psutil.process_iter(["name", "cmdline", "status"]):
        facts = process.info
        if facts["name"] == "postgres" and facts["status"] != psutil.STATUS_ZOMBIE:
            if pgdata in (facts["cmdline"] or ()):
                return process
    return None


def stop_postgres(data_dir: Path) -> None:
    """Leave no Postgres behind, whatever the test did to its Parley."""
    if (data_dir / "postgres").is_dir():
        EmbeddedPostgres(data_dir / "postgres").stop()


# --- servers --------------------------------------------------------------------------


class Server:
    """A `parley serve` of its own process group. `kill` and the like end it and wait for that."""

    def __init__(self, data_dir: Path, settings: Mapping[str, str]) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        folder = data_dir.parent
        self._files = Path(tempfile.mkdtemp(prefix="server-", dir=folder))
        with (self._files / "out").open("wb") as out, (self._files / "err").open("wb") as err:
            self._process = subprocess.Popen(
                [SCRIPT, "serve"],
                cwd=folder,
                env=environment(
                    folder, {"DATA_DIR": str(data_dir), "PORT": str(self.port), **settings}
                ),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                # A shell's background job ignores Ctrl-C, and so would its children.
                preexec_fn=_hear_ctrl_c,
            )
        self.pid = self._process.pid
        self.http = httpx2.AsyncClient(base_url=self.url, timeout=60)

    def out(self) -> str:
        return (self._files / "out").read_text()

    def log(self) -> str:
        return (self._files / "err").read_text()

    def events(self) -> list[dict[str, Any]]:
        """Give the log, which is JSON where no terminal is."""
        return [json.loads(line) for line in self.log().splitlines()]

    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def person(self, key: str | None = None) -> Person:
        return Person(self.http) if key is None else Person(self.http, key)

    async def is_healthy(self) -> bool:
        try:
            return (await self.http.get("/health")).status_code == 200
        except httpx2.TransportError:
            return False

    async def ready(self) -> None:
        """Wait until it answers; fail with its log if it ends instead."""
        await until(self._ended_or_healthy, bool, READY_SECONDS)
        assert not self.has_ended(), f"it ended with {self._process.returncode}: {self.log()}"

    async def _ended_or_healthy(self) -> bool:
        return self.has_ended() or await self.is_healthy()

    async def ended(self, seconds: float = END_SECONDS) -> int:
        """Wait for its end and give the exit code; negative: the signal that ended it."""
        await until(self._poll, lambda code: code is not None, seconds)
        return self._process.returncode

    async def _poll(self) -> int | None:
        return self._process.poll()

    def press_ctrl_c(self) -> None:
        """Do what a terminal does: signal the whole process group."""
        os.killpg(self.pid, signal.SIGINT)

    async def interrupt(self) -> int:
        self.press_ctrl_c()
        return await self.ended()

    async def terminate(self) -> int:
        self._process.terminate()
        return await self.ended()

    async def kill(self) -> int:
        self._process.kill()
        return await self.ended()

    async def clean_up(self) -> None:
        """Leave nothing behind, neither the process nor its Postgres."""
        await self.http.aclose()
        if not self.has_ended():
            await self.kill()
        await asyncio.to_thread(stop_postgres, self.data_dir)


@asynccontextmanager
async def started(data_dir: Path, **settings: str) -> AsyncGenerator[Server]:
    """Start a server, and don't wait until it is ready."""
    server = Server(data_dir, settings)
    try:
        yield server
    finally:
        await server.clean_up()


@asynccontextmanager
async def served(data_dir: Path, **settings: str) -> AsyncGenerator[Server]:
    """Start a server and wait until it answers."""
    async with started(data_dir, **settings) as server:
        await server.ready()
        yield server


class Home:
    """A data folder, and the server that runs on it at the moment."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.server = Server(data_dir, {})

    async def start_again(self) -> None:
        """Start the next server. The last one has ended, in whatever way."""
        assert self.server.has_ended()
        await self.server.http.aclose()
        self.server = Server(self.data_dir, {})
        await self.server.ready()


# --- commands -------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a command went."""

    code: int
    out: str
    err: str


class Command:
    """A `parley` command that runs."""

    def __init__(self, *arguments: str, cwd: Path, settings: Mapping[str, str]) -> None:
        self._files = Path(tempfile.mkdtemp(prefix="command-", dir=cwd))
        self._process = _FORKS.Process(
            target=_be_parley, args=(arguments, cwd, environment(cwd, settings), self._files)
        )
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid
        return self._process.pid

    def out(self) -> str:
        # Not there yet: the process has only just been forked.
        return (self._files / "out").read_text() if (self._files / "out").exists() else ""

    async def ended(self, seconds: float = END_SECONDS) -> Ended:
        """Wait for its end. After so many seconds it is killed, and the test fails."""
        await asyncio.to_thread(self._process.join, seconds)
        is_late = self._process.exitcode is None
        if is_late:
            self._process.kill()
            await asyncio.to_thread(self._process.join)
        code = self._process.exitcode
        self._process.close()
        ended = Ended(code or 0, self.out(), (self._files / "err").read_text())
        assert not is_late, f"it had not ended after {seconds:g} s: {ended}"
        return ended


async def run(
    *arguments: str, cwd: Path, seconds: float = END_SECONDS, **settings: str
) -> Ended:
    """Run a `parley` command to its end."""
    return await Command(*arguments, cwd=cwd, settings=settings).ended(seconds)


def _fork_server() -> multiprocessing.context.ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


_FORKS = _fork_server()


def _be_parley(
    arguments: tuple[str, ...], cwd: Path, environ: dict[str, str], files: Path
) -> None:
    """Become what a shell would have started."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    for name, descriptor in (("out", 1), ("err", 2)):
        file = os.open(files / name, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        os.dup2(file, descriptor)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["parley", *arguments]
    cli.main()


def _hear_ctrl_c() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
