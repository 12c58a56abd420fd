"""TLS to a real Postgres: who is believed, and that nobody is talked to in the clear instead."""

import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import text

from db.connections import Patience
from db.engine import Database
from db.errors import DatabaseUnavailable
from db.urls import parse_url
from tests.postgres.servers import (
    CAREFUL,
    OUTSIDE,
    Authority,
    Server,
    debian_postgres,
    needs_debian_postgres,
    open_folder,
)
from tests.process.processes import run

pytestmark = needs_debian_postgres

OURS = text("SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
PATIENCE = Patience(retry=2.0)


@pytest.fixture(scope="module")
def folder() -> Generator[Path]:
    with open_folder() as folder:
        yield folder


@pytest.fixture(scope="module")
def authority(folder: Path) -> Authority:
    return Authority(folder, "ours")


@pytest.fixture(scope="module")
def server(folder: Path) -> Generator[Server]:
    (folder / "server").mkdir()
    with debian_postgres(folder / "server") as server:
        yield server


@pytest.fixture(scope="module")
def trusted(server: Server, authority: Authority) -> Server:
    """The server, with a certificate that is good for `OUTSIDE`."""
    server.present(authority.certificate(OUTSIDE))
    return server


@asynccontextmanager
async def connected(url: str) -> AsyncGenerator[Database]:
    database = Database(parse_url(url), patience=PATIENCE)
    try:
        yield database
    finally:
        await database.close()


async def is_encrypted(url: str) -> bool:
    async with connected(url) as database:
        [[ssl, version]] = await database.rows(OURS, {})
    assert not ssl or version in ("TLSv1.2", "TLSv1.3")
    return ssl


async def refusal(url: str) -> str:
    """Connect where that is refused, at once, and give why."""
    async with connected(url) as database:
        began = time.monotonic()
        with pytest.raises(DatabaseUnavailable) as refused:
            await database.rows(OURS, {})
    assert not refused.value.may_pass
    assert time.monotonic() - began < PATIENCE.retry
    return f"{refused.value.__cause__}"


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require", "prefer", "allow", None])
async def test_a_certificate_of_a_trusted_authority_is_taken(
    trusted: Server, authority: Authority, mode: str | None
):
    query = f"?sslrootcert={authority.root}" + (f"&sslmode={mode}" if mode else "")
    assert await is_encrypted(trusted.url(query, host=OUTSIDE))


@pytest.mark.parametrize("mode", ["verify-full", "verify-ca", "require"])
async def test_a_certificate_of_another_authority_is_refused(
    trusted: Server, folder: Path, mode: str
):
    query = f"?sslmode={mode}&sslrootcert={Authority(folder, 'another').root}"
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(trusted.url(query, host=OUTSIDE))


@pytest.mark.parametrize("query", ["", "?sslmode=require", "?sslmode=prefer", "?sslmode=allow"])
async def test_an_authority_that_nobody_named_is_refused(trusted: Server, query: str):
    """Libpq's `require` would take it."""
    assert "CERTIFICATE_VERIFY_FAILED" in await refusal(trusted.url(query, host=OUTSIDE))


@pytest.mark.parametrize("mode", ["verify-full", "require"])
async def test_a_certificate_of_another_host_is_refused(
    trusted: Server, authority: Authority, mode: str
):
    """It is for one address of this machine, and we come by another."""
    query = f"?sslmode={mode}&sslrootcert={authority.root}"
    assert "IP address mismatch" in await refusal(trusted.url(query))


async def test_verify_ca_takes_a_certificate_of_another_host(trusted: Server, authority: Authority):
    assert await is_encrypted(trusted.url(f"?sslmode=verify-ca&sslrootcert={authority.root}"))


async def test_no_verify_takes_any_certificate(trusted: Server):
    assert await is_encrypted(trusted.url("?sslmode=no-verify"))


async def test_a_local_server_is_talked_to_in_the_clear_by_default(trusted: Server):
    assert not await is_encrypted(trusted.url())


async def test_disable_at_a_server_that_insists_on_tls_says_so(trusted: Server):
    assert "no encryption" in await refusal(trusted.url("?sslmode=disable", user=CAREFUL))


@pytest.mark.parametrize("mode", ["require", "verify-full", "no-verify"])
async def test_a_server_without_tls_is_refused_where_it_is_asked_for(database_url: str, mode: str):
    """The embedded one has none. Nothing falls back to plain text."""
    assert "SSL" in await refusal(f"{database_url}?sslmode={mode}")


@pytest.mark.parametrize(
    ("certificate", "root", "hint"),
    [
        ("good", "ours", None),
        ("good", "another", "unable to get local issuer certificate"),
        ("expired", "ours", "certificate has expired"),
        ("of another host", "ours", "IP address mismatch"),
    ],
)
async def test_a_command_says_what_is_wrong_with_a_certificate(
    server: Server,
    folder: Path,
    authority: Authority,
    tmp_path: Path,
    certificate: str,
    root: str,
    hint: str | None,
):
    host = "127.0.0.3" if certificate == "of another host" else OUTSIDE
    valid = timedelta(days=-1 if certificate == "expired" else 1)
    server.present(authority.certificate(host, valid=valid))
    trusts = authority if root == "ours" else Authority(folder, root)
    url = server.url(f"?sslmode=verify-full&sslrootcert={trusts.root}", host=OUTSIDE)
    ended = await run("migrate", cwd=tmp_path, DATABASE_URL=url)
    if hint is None:
        assert ended.code == 0, ended
        return
    assert ended.code == 1
    [line] = ended.err.splitlines()
    assert line.startswith("parley: DATABASE_URL: ")
    assert hint in line
