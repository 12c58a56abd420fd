"""Telling an outage from a mistake, in the words of `db.errors`."""

from collections.abc import Generator
from contextlib import contextmanager

import asyncpg
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeout

from db.errors import DatabaseUnavailable, DataRefused

_LOST = (asyncpg.InterfaceError, asyncpg.PostgresConnectionError, OSError)
_AWAY = (
    "08",  # connection exceptions
    "28000",  # not allowed to connect
    "28P01",  # wrong password
    "3D000",  # no such database
    "53",  # out of connections, memory, disk
    "57P",  # shutting down, starting up
    "25006",  # read-only, as after a failover
)
"SQLSTATEs, or their classes. Those of a refused connection tell at a start what is set wrongly."


@contextmanager
def outages_named() -> Generator[None]:
    """Translate a lost or refused connection into `DatabaseUnavailable`.

    A value that can't be held becomes `DataRefused`; the rest is let through.
    """
    try:
        yield
    except (OperationalError, InterfaceError, PoolTimeout, *_LOST) as error:
        raise DatabaseUnavailable(type(error).__name__) from error
    except asyncpg.PostgresError as error:
        if _state(error).startswith(_AWAY):
            raise DatabaseUnavailable(type(error).__name__) from error
        raise
    except DBAPIError as error:
        if _is_outage(error):
            raise DatabaseUnavailable(type(error).__name__) from error
        if error.orig is not None and isinstance(error.orig.__cause__, asyncpg.DataError):
            raise DataRefused(type(error.orig.__cause__).__name__) from error
        raise


def _is_outage(error: DBAPIError) -> bool:
    """Look beneath SQLAlchemy's error, which takes many a lost connection for a plain mistake."""
    cause = error.orig.__cause__ if error.orig else None
    is_lost = error.connection_invalidated or isinstance(cause, _LOST)
    return is_lost or _state(cause).startswith(_AWAY)


def _state(error: BaseException | None) -> str:
    return getattr(error, "sqlstate", None) or ""
