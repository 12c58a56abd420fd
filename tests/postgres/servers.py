"""Postgres as it stands in production: a server that speaks TLS, and a pooler before one.

    with debian_postgres(folder) as server:
        server.present(authority.certificate("127.0.0.2"))

    with pgbouncer(postgres_url, server_connections=3) as pooler:
        database = Database(parse_url(pooler.url("chat"), "transaction"))

The embedded Postgres has no TLS, so Debian's is started for that: on a port and in a folder of
its own, as the user that the embedded one would run as. The cluster that the package makes is
left alone.
"""

import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from sqlalchemy import make_url

from db.embedded_account import ENVIRONMENT, Account, account_for
from db.embedded_data import find_programs
from tests.process.processes import free_port

PASSWORD = "secret"
NAME = "parley"
CAREFUL = "careful"
"A user who is let in by TLS alone."
PATIENCE_SECONDS = 30.0
"A server on a busy machine takes a second or two."
POLL_SECONDS = 0.01
OLDEST_MAJOR = 15
OUTSIDE = "127.0.0.2"
"This machine, by an address that Parley does not take for it: what holds for hosts far away."

PGBOUNCER = shutil.which("pgbouncer", path=os.defpath + ":/usr/sbin")


def _postgres_programs() -> Path | None:
    """Find the oldest of Debian's servers that Parley supports."""
    found = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    majors = {int(each.parts[-3]): each.parent for each in found}
    supported = [majors[major] for major in sorted(majors) if major >= OLDEST_MAJOR]
    return supported[0] if supported else None


PROGRAMS = _postgres_programs()

needs_debian_postgres = pytest.mark.skipif(
    PROGRAMS is None, reason="there is no Postgres with TLS (Debian: postgresql-15)"
)
needs_pgbouncer = pytest.mark.skipif(
    PGBOUNCER is None, reason="there is no PgBouncer (Debian: pgbouncer)"
)


# --- certificates ---------------------------------------------------------------------


@dataclass(frozen=True)
class Certificate:
    """What a server presents, and the key that it needs for that, in PEM."""

    chain: bytes
    key: bytes


class Authority:
    """Somebody who signs certificates. `root` is what clients trust them by."""

    def __init__(self, folder: Path, name: str) -> None:
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = _named(name)
        usage = x509.BasicConstraints(ca=True, path_length=0)
        builder = _unsigned(self._name, self._name, self._key, timedelta(days=1))
        signed = builder.add_extension(usage, critical=True).sign(self._key, hashes.SHA256())
        self.root = folder / f"{name}.pem"
        self.root.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def certificate(self, host: str, *, valid: timedelta = timedelta(days=1)) -> Certificate:
        """Sign for a host or an address, for so long from now; a negative time is over."""
        key = ec.generate_private_key(ec.SECP256R1())
        try:
            names: x509.GeneralName = x509.IPAddress(ip_address(host))
        except ValueError:
            names = x509.DNSName(host)
        builder = _unsigned(_named(host), self._name, key, valid)
        builder = builder.add_extension(x509.SubjectAlternativeName([names]), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return Certificate(
            signed.public_bytes(serialization.Encoding.PEM),
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ),
        )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _unsigned(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, valid: timedelta
) -> x509.CertificateBuilder:
    now = datetime.now(UTC)
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=2))
        .not_valid_after(now + valid)
    )


# --- Debian's Postgres ----------------------------------------------------------------


@dataclass(frozen=True)
class Server:
    """A Postgres that runs."""

    port: int
    folder: Path
    account: Account
    process: subprocess.Popen[str]

    def url(self, query: str = "", *, host: str = "127.0.0.1", user: str = NAME) -> str:
        return f"postgresql://{user}:{PASSWORD}@{host}:{self.port}/postgres{query}"

    def present(self, certificate: Certificate) -> None:
        """Show this certificate to everyone who comes from now on."""
        for name, content in (("server.crt", certificate.chain), ("server.key", certificate.key)):
            file = self.folder / name
            file.write_bytes(content)
            file.chmod(stat.S_IRUSR | stat.S_IWUSR)
            self.account.give(file)
        loaded = self.ask("SELECT pg_conf_load_time()")
        self.process.send_signal(signal.SIGHUP)
        wait_for(lambda: self.ask("SELECT pg_conf_load_time()") != loaded)

    def ask(self, statement: str) -> str:
        """Put a statement to the server, past Parley and past TLS; gives what psql prints."""
        return psql(self.url("?sslmode=disable"), statement)


@contextmanager
def debian_postgres(folder: Path, settings: Mapping[str, str] | None = None) -> Generator[Server]:
    """Run a server that speaks TLS in an empty folder. One of its users may not do without."""
    assert PROGRAMS
    data, port = folder / "data", free_port()
    account = account_for(folder, data, PROGRAMS / "postgres")
    assert account, f"nobody may run Postgres in {folder}"
    password = folder / "password"
    password.write_text(PASSWORD)
    data.mkdir(mode=0o700)
    account.give(data)
    initdb = [PROGRAMS / "initdb", "-D", data, "-U", NAME, "-E", "UTF8", "--locale=C", "--no-sync"]
    code, said = account.run(*initdb, "-A", "scram-sha-256", "--pwfile", password)
    assert code == 0, said
    (data / "pg_hba.conf").write_text(
        f"hostnossl all {CAREFUL} all reject\nhost all all all scram-sha-256\n"
    )
    certificate = Authority(folder, "first").certificate("nobody.example")
    (data / "server.crt").write_bytes(certificate.chain)
    (data / "server.key").write_bytes(certificate.key)
    (data / "server.key").chmod(0o600)
    account.give(data)
    given = {
        "port": str(port),
        "listen_addresses": f"127.0.0.1,{OUTSIDE}",
        "unix_socket_directories": "",
        "ssl": "on",
        "fsync": "off",
    } | dict(settings or {})
    options = [part for name, value in given.items() for part in ("-c", f"{name}={value}")]
    with (folder / "log").open("w") as log:
        process = account.popen(PROGRAMS / "postgres", "-D", data, *options, output=log.fileno())
    server = Server(port, data, account, process)
    try:
        wait_for(lambda: _answers(server.url("?sslmode=disable")), folder / "log")
        server.ask(f"CREATE ROLE {CAREFUL} LOGIN PASSWORD '{PASSWORD}'")
        yield server
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(PATIENCE_SECONDS)


@contextmanager
def open_folder() -> Generator[Path]:
    """Make a folder that other users may enter, in memory where the system has one."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with TemporaryDirectory(prefix="parley-servers-", dir=memory) as name:
        Path(name).chmod(0o755)
        yield Path(name)


# --- PgBouncer ------------------------------------------------------------------------


@dataclass(frozen=True)
class Pooler:
    """A PgBouncer in transaction mode, before every database of one server."""

    port: int
    user: str
    password: str

    def url(self, database: str) -> str:
        return f"postgresql://{self.user}:{self.password}@127.0.0.1:{self.port}/{database}"

    def show(self, what: str, database: str) -> dict[str, int]:
        """Give the numbers of a database's line of PgBouncer's own `SHOW POOLS` or `SHOW STATS`."""
        [head, *lines] = psql(self.url("pgbouncer"), f"SHOW {what}", "--csv").splitlines()
        names = head.split(",")
        rows = [dict(zip(names, line.split(","), strict=True)) for line in lines]
        [ours] = [row for row in rows if row["database"] == database]
        return {name: int(value) for name, value in ours.items() if value.isdigit()}


@contextmanager
def pgbouncer(postgres_url: str, *, server_connections: int) -> Generator[Pooler]:
    """Run a PgBouncer as its package sets it up, but for transaction mode and so many connections.

    What it refuses by default it refuses here: `ignore_startup_parameters` is empty.
    """
    assert PGBOUNCER
    url, port = make_url(postgres_url), free_port()
    assert url.username
    assert isinstance(url.password, str)
    with open_folder() as folder:
        (folder / "users").write_text(f'"{url.username}" "{url.password}"\n')
        (folder / "pgbouncer.ini").write_text(
            "[databases]\n"
            f"* = host={url.host} port={url.port}\n"
            "[pgbouncer]\n"
            f"listen_addr = 127.0.0.1\nlisten_port = {port}\nunix_socket_dir =\n"
            f"auth_type = scram-sha-256\nauth_file = {folder}/users\n"
            f"admin_users = {url.username}\n"
            f"pool_mode = transaction\ndefault_pool_size = {server_connections}\n"
            "max_client_conn = 1000\n"
        )
        account = account_for(folder, folder / "nothing", Path(PGBOUNCER))
        assert account, f"nobody may run PgBouncer in {folder}"
        with (folder / "log").open("w") as log:
            process = account.popen(PGBOUNCER, folder / "pgbouncer.ini", output=log.fileno())
        pooler = Pooler(port, url.username, url.password)
        try:
            wait_for(lambda: _answers(pooler.url("pgbouncer"), "SHOW VERSION"), folder / "log")
            yield pooler
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(PATIENCE_SECONDS)
            except subprocess.TimeoutExpired:  # it waits for clients that don't go
                process.kill()
                process.wait()


# --- asking them ----------------------------------------------------------------------


def psql(url: str, statement: str, *options: str) -> str:
    """Put a statement by simple query, the only kind that PgBouncer itself answers."""
    given = ["-X", "-q", "-v", "ON_ERROR_STOP=1", *(options or ("-At",)), "-c", statement, url]
    answer = subprocess.run(
        [find_programs() / "psql", *given],
        env=ENVIRONMENT | {"PGCONNECT_TIMEOUT": "5"},
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
    )
    assert answer.returncode == 0, answer.stderr
    return answer.stdout.strip()


def _answers(url: str, statement: str = "SELECT 1") -> bool:
    try:
        return bool(psql(url, statement))
    except AssertionError:
        return False


def wait_for(is_so: Callable[[], bool], log: Path | None = None) -> None:
    """Wait for a server, without an event loop; fail with its log."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not is_so():
        said = log.read_text() if log else ""
        assert time.monotonic() < deadline, f"it did not come about in time: {said}"
        time.sleep(POLL_SECONDS)
