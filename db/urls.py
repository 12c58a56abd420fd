"""Database URLs as people have them, as asyncpg wants them.

Neon's console, Docker guides and hosting panels all hand out libpq's form. asyncpg knows
neither `sslmode` through SQLAlchemy nor `channel_binding`, so both are taken out here.
"""

import ssl
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import URL, make_url
from sqlalchemy.exc import ArgumentError

from db.errors import DatabaseUrlInvalid

_DRIVERS = {"postgres", "postgresql", "postgresql+asyncpg"}
_SSL_MODES = {"disable", "allow", "prefer", "require", "verify-ca", "verify-full"}
_LOCAL_HOSTS = {"localhost", "127.0.0.1", "::1", None}


@dataclass(frozen=True, slots=True)
class DatabaseUrl:
    """A URL that was understood. `shown` is safe to print."""

    sqlalchemy: URL = field(repr=False)
    connect_args: dict[str, Any] = field(repr=False)
    shown: str


def parse_url(text: str) -> DatabaseUrl:
    """Understand a Postgres URL. Raises `DatabaseUrlInvalid` with what is wrong."""
    try:
        url = make_url(text.strip())
    except (ArgumentError, ValueError) as error:
        raise DatabaseUrlInvalid(
            "it is no URL; the form is postgresql://user:password@host:5432/database"
        ) from error
    if url.drivername not in _DRIVERS:
        raise DatabaseUrlInvalid(f"Parley speaks to Postgres only, not to {url.drivername!r}")
    if not url.database:
        raise DatabaseUrlInvalid("it names no database (the part after the last slash)")
    query = {name: _last(value) for name, value in url.query.items()}
    mode = query.pop("sslmode", None)
    if mode is not None and mode not in _SSL_MODES:
        raise DatabaseUrlInvalid(f"sslmode={mode} is none of {', '.join(sorted(_SSL_MODES))}")
    root_certificate = query.pop("sslrootcert", None)
    query.pop("channel_binding", None)
    connect_args: dict[str, Any] = {"ssl": _tls(url.host, mode, root_certificate)}
    if (seconds := query.pop("connect_timeout", None)) is not None:
        connect_args["timeout"] = _seconds(seconds)
    if server_settings := _server_settings(query):
        connect_args["server_settings"] = server_settings
    has_pooler = "-pooler" in (url.host or "") or query.pop("pgbouncer", "false") == "true"
    if query:
        raise DatabaseUrlInvalid(f"the parameter {min(query)} is not supported")
    if has_pooler:
        # A transaction-mode pooler hands each statement to any server connection, where a
        # prepared statement of another one is unknown.
        connect_args["statement_cache_size"] = 0
    return DatabaseUrl(
        sqlalchemy=url.set(drivername="postgresql+asyncpg", query={}),
        connect_args=connect_args,
        shown=url.render_as_string(hide_password=True),
    )


def _last(value: str | tuple[str, ...]) -> str:
    return value if isinstance(value, str) else value[-1]


def _seconds(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise DatabaseUrlInvalid(f"connect_timeout={text} is no number of seconds") from None


def _server_settings(query: dict[str, str]) -> dict[str, str]:
    """Take out of a query what is meant for the server: a name, and `-c name=value` options."""
    settings: dict[str, str] = {}
    if (name := query.pop("application_name", None)) is not None:
        settings["application_name"] = name
    words = query.pop("options", "").replace("-c ", "-c").split()
    for word in words:
        name, equals, value = word.removeprefix("-c").removeprefix("--").partition("=")
        if not word.startswith("-") or not equals:
            raise DatabaseUrlInvalid(f"options={word} is not of the form -c name=value")
        settings[name] = value
    return settings


def _tls(host: str | None, mode: str | None, root_certificate: str | None) -> Any:
    """Give asyncpg's `ssl` argument. A host that isn't local is verified unless told otherwise."""
    local = host in _LOCAL_HOSTS
    if mode == "disable" or (mode in (None, "allow", "prefer") and local):
        return False
    try:
        context = ssl.create_default_context(cafile=root_certificate)
    except (OSError, ssl.SSLError) as error:
        raise DatabaseUrlInvalid(f"sslrootcert={root_certificate} can't be read") from error
    if mode == "verify-ca":
        context.check_hostname = False
    return context
