"""Real `parley` processes: servers that can be killed, and commands that run to their end.

    async with served(tmp_path / "data", REPLY_LEASE_SECONDS="2") as server:
        await server.person().ask("{ sessions { totalCount } }")
        await server.kill()

    ended = await run("ingest", "notes", cwd=tmp_path, DATA_DIR="data")
    assert (ended.code, ended.err) == (0, "")

None of them sees the settings of whoever runs the tests: the environment is made here, and
the working folder, where a `.env` would be read, is the test's own.

Importing Parley takes seconds of processor time. So a process is forked off one that has done
it, and goes on with `main()` as the installed script does; `script=True` starts that script.
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
from multiprocessing.context import ForkServerContext
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


def _fork_server() -> ForkServerContext:
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


_FORKS = _fork_server()


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


def postgres_url(data_dir: Path) -> str | None:
    """Give the URL of the Postgres that runs on a data folder, if one answers."""
    return EmbeddedPostgres.attach(data_dir / "postgres")


def stop_postgres(data_dir: Path) -> None:
    """Leave no Postgres behind, whatever the test did to its Parley."""
    if (data_dir / "postgres").is_dir():
        EmbeddedPostgres(data_dir / "postgres").stop()


# --- processes ------------------------------------------------------------------------


class Ended(NamedTuple):
    """How a process ended. A negative code is the signal that ended it."""

    code: int
    out: str
    err: str


class Command:
    """A `parley` command that runs, in a session of its own."""

    def __init__(
        self, *arguments: str, cwd: Path, settings: Mapping[str, str], script: bool = False
    ) -> None:
        files = Path(tempfile.mkdtemp(prefix=f"parley-{arguments[0]}-", dir=cwd))
        self._out, self._err = files / "out", files / "err"
        self._out.touch()
        self._err.touch()
        environ = {name: os.environ[name] for name in ("PATH", "TMPDIR") if name in os.environ}
        environ |= {"HOME": str(cwd), "LC_ALL": "C.UTF-8"} | dict(settings)
        begin = self._begin_script if script else self._begin_fork
        self.pid, self._code = begin(arguments, cwd, environ)

    def _begin_fork(
        self, arguments: tuple[str, ...], cwd: Path, environ: dict[str, str]
    ) -> tuple[int, Callable[[], int | None]]:
        process = _FORKS.Process(
            target=_be_parley, args=(arguments, cwd, environ, self._out, self._err)
        )
        process.start()
        assert process.pid
        return process.pid, lambda: process.exitcode

    def _begin_script(
        self, arguments: tuple[str, ...], cwd: Path, environ: dict[str, str]
    ) -> tuple[int, Callable[[], int | None]]:
        with self._out.open("ab") as out, self._err.open("ab") as err:
            process = subprocess.Popen(
                [SCRIPT, *arguments],
                cwd=cwd,
                env=environ,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
                preexec_fn=_hear_ctrl_c,
            )
        return process.pid, process.poll

    @property
    def code(self) -> int | None:
        """The exit code; null while it runs."""
        return self._code()

    def out(self) -> str:
        return self._out.read_text()

    def err(self) -> str:
        return self._err.read_text()

    def press_ctrl_c(self) -> None:
        """Do what a terminal does: signal the whole process group."""
        os.killpg(self.pid, signal.SIGINT)

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def ended(self, seconds: float = END_SECONDS) -> Ended:
        """Wait for its end. After so many seconds it is killed, and the test fails."""
        try:
            code = await until(self._poll, lambda code: code is not None, seconds)
        except AssertionError:
            await self.clean_up()
            said = f"{self.out()}\n{self.err()}"
            raise AssertionError(f"it had not ended after {seconds:g} s:\n{said}") from None
        assert code is not None
        return Ended(code, self.out(), self.err())

    async def clean_up(self) -> None:
        if self.code is None:
            self.send(signal.SIGKILL)
            await until(self._poll, lambda code: code is not None)

    async def _poll(self) -> int | None:
        return self.code


async def run(*arguments: str, cwd: Path, **settings: str) -> Ended:
    """Run a `parley` command to its end."""
    return await Command(*arguments, cwd=cwd, settings=settings).ended()


def _be_parley(
    arguments: tuple[str, ...], cwd: Path, environ: dict[str, str], out: Path, err: Path
) -> None:
    """Become what a shell would have started."""
    os.setsid()
    os.chdir(cwd)
    os.environ.clear()
    os.environ.update(environ)
    for path, descriptor in ((out, 1), (err, 2)):
        file = os.open(path, os.O_WRONLY | os.O_APPEND)
        os.dup2(file, descriptor)
        os.close(file)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    sys.argv = ["parley", *arguments]
    cli.main()


def _hear_ctrl_c() -> None:
    # A shell's background job ignores it, and so would its children.
    signal.signal(signal.SIGINT, signal.SIG_DFL)


# --- servers --------------------------------------------------------------------------


class Server:
    """A `parley serve` on a port of its own. `interrupt` and the like end it and wait for that."""

    def __init__(
        self, data_dir: Path, settings: Mapping[str, str], *, script: bool = False
    ) -> None:
        self.data_dir = data_dir
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.http = httpx2.AsyncClient(base_url=self.url, timeout=60)
        given = {"DATA_DIR": str(data_dir), "PORT": str(self.port), **settings}
        self.process = Command("serve", cwd=data_dir.parent, settings=given, script=script)

    @property
    def pid(self) -> int:
        return self.process.pid

    def log(self) -> str:
        return self.process.err()

    def events(self) -> dict[str, dict[str, Any]]:
        """Give what it logged, by event. The log is JSON where no terminal is."""
        logged = [json.loads(line) for line in self.log().splitlines()]
        return {event["event"]: event for event in logged}

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
        assert self.process.code is None, f"it ended with {self.process.code}: {self.log()}"

    async def _ended_or_healthy(self) -> bool:
        return self.process.code is not None or await self.is_healthy()

    async def interrupt(self) -> Ended:
        self.process.press_ctrl_c()
        return await self.process.ended()

    async def terminate(self) -> Ended:
        self.process.send(signal.SIGTERM)
        return await self.process.ended()

    async def kill(self) -> Ended:
        self.process.send(signal.SIGKILL)
        return await self.process.ended()

    async def clean_up(self) -> None:
        """Leave nothing behind, neither the process nor its Postgres."""
        await self.http.aclose()
        await self.process.clean_up()
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
    """A data folder with nothing else set, and the server that runs on it at the moment.

    The first one is started by the installed script.
    """

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.server = Server(data_dir, {}, script=True)

    async def start_again(self) -> None:
        """Start the next server. The last one has ended, in whatever way."""
        assert self.server.process.code is not None
        await self.server.http.aclose()
        self.server = Server(self.data_dir, {})
        await self.server.ready()
