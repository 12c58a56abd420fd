"""Database URLs as people have them, as asyncpg wants them.

Neon's console, Docker guides and hosting panels all hand out libpq's form. asyncpg knows
neither `sslmode` through SQLAlchemy nor `channel_binding`, so both are taken out here.
"""

import re
import ssl
from dataclasses import dataclass, field
from typing import Any, Literal

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from db.errors import DatabaseUrlInvalid

Pooler = Literal["auto", "none", "transaction"]
"Whether a pooler in transaction mode stands before Postgres; `auto` looks at the host's name."

FORM = "postgresql://user:password@host:5432/database"

_DRIVERS = {"postgres", "postgresql", "postgresql+asyncpg"}
_SSL_MODES = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full", "no-verify")
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", None}
_SESSION_ATTRIBUTES = ("any", "primary", "standby", "read-write", "read-only", "prefer-standby")
_LOCAL_PLACES = ("/run/postgresql", "/var/run/postgresql", "/tmp", "localhost")
"Where a Postgres on this machine listens, if a URL names no host; the first that answers is taken."
_POOLER_MARK = "-pooler"
_DEFAULT_PORT = 5432
_PARTS = re.compile(
    r"(?P<before>[^:/?#]+://(?:[^/?#]*@)?)(?P<hosts>[^/?#]*)(?P<after>.*)", re.DOTALL
)


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A URL that was understood. `shown` is safe to print."""

    sqlalchemy: URL = field(repr=False)
    connect_args: dict[str, Any] = field(repr=False)
    shown: str
    is_pooled: bool = False

    @property
    def direct(self) -> "DatabaseUrl":
        """The server itself, behind Neon's pooler: the same host without `-pooler`."""
        host = self.sqlalchemy.host
        if not self.is_pooled or host is None or _without_pooler(host) == host:
            return self
        arguments = {**self.connect_args}
        del arguments["statement_cache_size"]
        if "host" in arguments:  # there are several
            arguments["host"] = [_without_pooler(each) for each in arguments["host"]]
        direct = self.sqlalchemy.set(host=_without_pooler(host))
        return DatabaseUrl(direct, arguments, direct.render_as_string(hide_password=True))


def parse_url(text: str, pooler: Pooler = "auto") -> DatabaseUrl:
    """Understand a Postgres URL. Raises `DatabaseUrlInvalid` with what is wrong."""
    hosts, url = _read(text.strip())
    if url.drivername not in _DRIVERS:
        raise DatabaseUrlInvalid(f"Parley speaks to Postgres only, not to {url.drivername!r}")
    if not url.database:
        raise DatabaseUrlInvalid("it names no database (the part after the last slash)")
    query = {name: _last(value) for name, value in url.query.items()}
    is_pooled = pooler == "transaction" or (
        pooler == "auto" and (_names_pooler(hosts) or query.get("pgbouncer") == "true")
    )
    query.pop("pgbouncer", None)
    query.pop("channel_binding", None)
    connect_args: dict[str, Any] = {"ssl": _tls(hosts, query)}
    if (seconds := query.pop("connect_timeout", None)) is not None:
        connect_args["timeout"] = _seconds(seconds)
    if (wanted := query.pop("target_session_attrs", None)) is not None:
        connect_args["target_session_attrs"] = _one_of(
            "target_session_attrs", wanted, _SESSION_ATTRIBUTES
        )
    if server_settings := _server_settings(query):
        if is_pooled and server_settings.keys() - {"application_name"}:
            raise DatabaseUrlInvalid("a pooler takes no options; set them for the role instead")
        connect_args["server_settings"] = server_settings
    if query:
        raise DatabaseUrlInvalid(f"the parameter {min(query)} is not supported")
    if url.host is None:
        # Said to asyncpg, which else would look at PGHOST: that may be far away, and without TLS.
        connect_args["host"], connect_args["port"] = list(_LOCAL_PLACES), hosts[0][1]
    if len(hosts) > 1:
        connect_args["host"] = [host for host, _ in hosts]
        connect_args["port"] = [port for _, port in hosts]
    if is_pooled:
        # A transaction-mode pooler hands each statement to any server connection, where a
        # prepared statement of another one is unknown.
        connect_args["statement_cache_size"] = 0
    return DatabaseUrl(
        sqlalchemy=url.set(drivername="postgresql+asyncpg", query={}),
        connect_args=connect_args,
        shown=url.render_as_string(hide_password=True),
        is_pooled=is_pooled,
    )


def _read(text: str) -> tuple[list[tuple[str, int]], URL]:
    """Read the hosts, of which libpq takes several, and the rest as SQLAlchemy has it."""
    invalid = DatabaseUrlInvalid(f"it is no URL; the form is {FORM}")
    parts = _PARTS.fullmatch(text)
    named = parts["hosts"].split(",") if parts else []
    if parts is None or not all(named[1:]):
        raise invalid
    try:
        urls = [make_url(parts["before"] + each + parts["after"]) for each in named]
    except (ArgumentError, ValueError) as error:
        raise invalid from error
    return [(_checked_host(url), _checked_port(url)) for url in urls], urls[0]


def _checked_host(url: URL) -> str:
    host = url.host or "localhost"
    if "@" in host:  # with the end of the password before it
        raise DatabaseUrlInvalid("an @ in its password has to be written as %40")
    try:
        host.encode("idna")
    except UnicodeError:
        raise DatabaseUrlInvalid(f"{host} is no name of a host") from None
    return host


def _checked_port(url: URL) -> int:
    port = _DEFAULT_PORT if url.port is None else url.port
    if not 0 < port < 65_536:
        raise DatabaseUrlInvalid(f"{port} is no port: they go from 1 to 65535")
    return port


def _without_pooler(host: str) -> str:
    return host.replace(_POOLER_MARK, "", 1)


def _names_pooler(hosts: list[tuple[str, int]]) -> bool:
    return any(_POOLER_MARK in host for host, _ in hosts)


def _last(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[-1]


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise DatabaseUrlInvalid(f"connect_timeout={text} is no number of seconds")
    return seconds or 60.0  # libpq's 0 is for ever, which nobody wants to wait


def _one_of(name: str, value: str, values: tuple[str, ...]) -> str:
    if value not in values:
        raise DatabaseUrlInvalid(f"{name}={value} is none of {', '.join(values)}")
    return value


def _server_settings(query: dict[str, str]) -> dict[str, str]:
    """Take out of a query what is meant for the server: a name, and `-c name=value` options.

    Neon's `endpoint=…`, for clients that can't name their host in TLS, is not needed.
    """
    settings: dict[str, str] = {}
    if (name := query.pop("application_name", None)) is not None:
        settings["application_name"] = name
    words = query.pop("options", "").replace("-c ", "-c").split()
    for word in words:
        name, equals, value = word.removeprefix("-c").removeprefix("--").partition("=")
        if word.startswith("endpoint="):
            continue
        if not word.startswith("-") or not equals:
            raise DatabaseUrlInvalid(f"options={word} is not of the form -c name=value")
        settings[name] = value
    return settings


def _tls(hosts: list[tuple[str, int]], query: dict[str, str]) -> Any:
    """Give asyncpg's `ssl` argument. A host that isn't local is verified unless told otherwise.

    libpq's `require` encrypts without asking whose certificate it is; here it asks. Who wants no
    more than libpq says `no-verify`.
    """
    mode = query.pop("sslmode", None)
    root_certificate = query.pop("sslrootcert", None)
    if mode is not None:
        _one_of("sslmode", mode, _SSL_MODES)
    local = all(host in _LOCAL_HOSTS for host, _ in hosts)
    if mode == "disable" or (mode in (None, "allow", "prefer") and local):
        return False
    if root_certificate == "system":
        root_certificate = None
    try:
        context = ssl.create_default_context(cafile=root_certificate)
    except (OSError, ssl.SSLError) as error:
        raise DatabaseUrlInvalid(f"sslrootcert={root_certificate} can't be read") from error
    if mode in ("verify-ca", "no-verify"):
        context.check_hostname = False
    if mode == "no-verify":
        context.verify_mode = ssl.CERT_NONE
    return context
