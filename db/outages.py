"""Telling an outage from a mistake, in the words of `db.errors`."""

import ssl
from collections.abc import Generator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.errors import (
    DatabaseError,
    DatabaseUnavailable,
    DataRefused,
    PoolExhausted,
    ServerFull,
    TransactionConflict,
)

_LOST = (
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # such as: none of the hosts takes writes
    asyncpg.PostgresConnectionError,
    OSError,
)
_AWAY = (
    "08",  # connection exceptions
    "53",  # out of connections, memory, disk
    "57P",  # shutting down, starting up
    "25006",  # read-only, as after a failover
    "57014",  # a statement that took too long; this and the next are limits that a role may have
    "55P03",  # a lock that was not to be had in time
    "25P03",  # a transaction that was idle for too long
    "25P04",  # a transaction that took too long
)
_SET_WRONGLY = (
    "28000",  # not allowed to connect
    "28P01",  # wrong password
    "3D000",  # no such database
)
"They tell at a start what is set wrongly; waiting does not help."
_NO_RIGHT = "42501"
"To connect, while connecting."
_FULL = "53300"
_POOLER_FULL = ("no more connections allowed", "query_wait_timeout")
"What PgBouncer says, as a breach of the protocol (08P01), when it has no connection to give."
_CONFLICT = ("40001", "40P01")
"A serialization failure, a deadlock."
_SCHEMA_CHANGED = (asyncpg.InvalidCachedStatementError, asyncpg.OutdatedSchemaCacheError)
"A migration changed what a prepared statement gives. It is prepared anew the next time."


@contextmanager
def outages_named(*, connecting: bool = False) -> Generator[None]:
    """Translate a lost or refused connection into `DatabaseUnavailable`.

    A value that can't be held becomes `DataRefused`, a deadlock `TransactionConflict`; the rest
    is let through. While connecting, whatever the other side says is such a refusal: the proxies
    before a database have words of their own (Neon's says XX000 to everything).
    """
    try:
        yield
    except PoolTimeout as error:
        raise PoolExhausted("all connections are busy") from error
    except (DBAPIError, asyncpg.PostgresError, *_LOST) as error:
        named = _named(error)
        if named is None and connecting:
            cause = _cause_of(error)
            has_right = getattr(cause, "sqlstate", None) != _NO_RIGHT
            named = DatabaseUnavailable(type(cause).__name__, may_pass=has_right)
        if named is None:
            raise
        raise named from error


def _cause_of(error: BaseException) -> BaseException:
    """Look beneath SQLAlchemy's error, which takes many a lost connection for a plain mistake."""
    beneath = error.orig if isinstance(error, DBAPIError) else None
    return (beneath.__cause__ if beneath else None) or error


def _named(error: BaseException) -> DatabaseError | None:
    cause = _cause_of(error)
    state = getattr(cause, "sqlstate", None) or ""
    name = type(cause).__name__
    if state.startswith(_CONFLICT) or isinstance(cause, _SCHEMA_CHANGED):
        return TransactionConflict(name)
    if state.startswith(_SET_WRONGLY) or _is_refused_tls(cause):
        return DatabaseUnavailable(name, may_pass=False)
    if state == _FULL or (state == "08P01" and any(word in str(cause) for word in _POOLER_FULL)):
        return ServerFull(name)
    if isinstance(cause, asyncpg.DataError):
        return DataRefused(name)
    is_lost = isinstance(error, OperationalError | InterfaceError) or isinstance(cause, _LOST)
    if isinstance(error, DBAPIError):
        is_lost = is_lost or error.connection_invalidated
    return DatabaseUnavailable(name) if is_lost or state.startswith(_AWAY) else None


def _is_refused_tls(cause: BaseException | None) -> bool:
    """Tell whether one side does not take the other's TLS, or has none.

    asyncpg says the latter by a plain `ConnectionError`; those of the system are its subclasses.
    """
    return isinstance(cause, ssl.SSLCertVerificationError) or (
        type(cause) is ConnectionError and "SSL" in str(cause)
    )
