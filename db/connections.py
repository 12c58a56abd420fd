"""Connections to one Postgres: a pool of them, each lent to one statement or transaction at a time.

What is lent answers: one that was idle for long is asked first, and a new one is made where it
is dead. Connecting is tried again until a deadline; then the circuit opens, and everybody hears
at once that the database is away, until it answers again.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar, cast

import orjson
from sqlalchemy import AsyncAdaptedQueuePool, QueuePool
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
from sqlalchemy.pool import ConnectionPoolEntry
from tenacity import (
    AsyncRetrying,
    retry_if_exception,
    stop_after_delay,
    wait_random_exponential,
)

from db.circuit import Circuit
from db.errors import (
    CommitUnknown,
    DatabaseUnavailable,
    PoolExhausted,
    ServerFull,
    TransactionConflict,
)
from db.outages import outages_named
from db.urls import DatabaseUrl

ResultT = TypeVar("ResultT")

PING_AFTER_SECONDS = 5.0
"A connection that was idle for longer may be dead: Neon closes all of them when it suspends."
PING_SECONDS = 2.0
"One that lives answers in far less; a dead one may never, where a router has forgotten it."
RECYCLE_SECONDS = 1800
"Connections are not kept for longer: memory of a backend grows, and hosts move."


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    connect: float = 5.0
    acquire: float = 30.0
    statement: float | None = 30.0
    retry: float = 5.0


DEFAULT_PATIENCE = Patience()


class PoolState(NamedTuple):
    """How busy a pool of connections is.

    `size` of them are kept; `overflow` is how many more are open now, and at most
    `max_overflow` may be.
    """

    size: int
    in_use: int
    idle: int
    overflow: int
    max_overflow: int


def _keeping(wanted: Callable[[], int]) -> type[AsyncAdaptedQueuePool]:
    """Make a pool that keeps what comes back while fewer than `wanted` are idle.

    SQLAlchemy's own closes all beyond its size, though somebody waits for one: with a crowd, a
    new one was made for every fourth look-up, password and all.
    """

    class Keeping(AsyncAdaptedQueuePool):
        def _do_return_conn(self, record: ConnectionPoolEntry) -> None:
            if self.checkedin() < wanted():
                super()._do_return_conn(record)
                return
            try:
                record.close()
            finally:
                self._dec_overflow()

    return Keeping


class Connections:
    """At most so many connections of this process to one Postgres."""

    def __init__(
        self,
        url: DatabaseUrl,
        *,
        pool_size: int,
        max_overflow: int,
        patience: Patience,
    ) -> None:
        self.url = url
        self._size, self._max_overflow = pool_size, max_overflow
        self._waiting = 0
        self._patience = patience
        self._circuit = Circuit()
        self._dead_before = 0.0
        self.engine: AsyncEngine = create_async_engine(
            url.sqlalchemy,
            connect_args={
                "timeout": patience.connect,
                # Ours, not the server's: a pooler takes no settings, and it ends what waits for
                # an answer on a dead wire too.
                "command_timeout": patience.statement,
                **url.connect_args,
            },
            poolclass=_keeping(lambda: pool_size + self._waiting),
            pool_size=pool_size + max_overflow,
            max_overflow=0,
            pool_timeout=patience.acquire,
            pool_recycle=RECYCLE_SECONDS,
            # Statement errors quote their values, and values are what people said.
            hide_parameters=True,
            json_serializer=to_json,
            json_deserializer=orjson.loads,
        )
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")
        # Not the pool's own queue: who waits there hears nothing of a connection that fails.
        self._places = asyncio.Semaphore(pool_size + max_overflow)

    @asynccontextmanager
    async def lent(
        self, *, autocommit: bool = False, impatiently: bool = False
    ) -> AsyncGenerator[AsyncConnection]:
        """Borrow a connection. One that breaks off does not go back to the pool.

        Impatiently, connecting is tried once, whatever is known of the database by now.
        Raises `DatabaseUnavailable`, and what else of `db.errors` befalls its statements.
        """
        engine = self._autocommit if autocommit else self.engine
        connection = await (self._answering(engine) if impatiently else self._borrow(engine))
        try:
            with outages_named():
                yield connection
            connection.info[_USED_AT] = time.monotonic()
        except DatabaseUnavailable:
            await _throw_away(connection)
            raise
        finally:
            # Whoever is cancelled here gives it back all the same.
            await asyncio.shield(asyncio.create_task(self._give_back(connection)))

    @property
    def state(self) -> PoolState:
        """How busy the connections of this process are at the moment. Asks nobody."""
        pool = cast("QueuePool", self.engine.pool)
        return PoolState(
            size=self._size,
            in_use=pool.checkedout(),
            idle=pool.checkedin(),
            overflow=max(0, pool.checkedout() + pool.checkedin() - self._size),
            max_overflow=self._max_overflow,
        )

    async def close(self) -> None:
        await self.engine.dispose()

    async def again(
        self,
        work: Callable[[], Awaitable[ResultT]],
        is_worth_it: Callable[[BaseException], bool] | None = None,
    ) -> ResultT:
        """Do something, and again while it fails in a way that is worth it, for so long."""
        is_worth_it, began = is_worth_it or self.may_pass, time.monotonic()
        try:
            return await work()
        except (DatabaseUnavailable, TransactionConflict) as error:
            too_late = time.monotonic() - began > self._patience.retry
            if too_late or not is_worth_it(error):
                raise
        async for attempt in AsyncRetrying(
            retry=retry_if_exception(is_worth_it),
            wait=wait_random_exponential(multiplier=0.05, max=1.0),
            stop=stop_after_delay(self._patience.retry),
            reraise=True,
        ):
            with attempt:
                return await work()
        raise AssertionError("tenacity raises what was last")

    def may_pass(self, error: BaseException) -> bool:
        """Tell whether to try again: never where a commit may have taken place."""
        if self._circuit.is_open:
            return False
        if isinstance(error, DatabaseUnavailable):
            return error.may_pass and not isinstance(error, CommitUnknown | PoolExhausted)
        return collided(error)

    async def _give_back(self, connection: AsyncConnection) -> None:
        try:
            await connection.close()
        finally:
            self._places.release()

    async def _borrow(self, engine: AsyncEngine) -> AsyncConnection:
        """Take a connection that answers. Raises `DatabaseUnavailable`, at once if we know."""
        self._circuit.enter()
        try:
            if self._circuit.is_open:
                connection = await self._answering(engine)
            else:
                connection = await self.again(lambda: self._answering(engine))
        except (PoolExhausted, ServerFull):  # it answers those who have a connection
            raise
        except DatabaseUnavailable as error:
            self._circuit.opens(str(error))
            raise
        self._circuit.closes()
        return connection

    async def _answering(self, engine: AsyncEngine) -> AsyncConnection:
        """Take a connection, and see that it lives if it was idle for long. Its place is taken.

        Who has waited for others, that found out meanwhile that nobody answers, is turned away.
        """
        openings = self._circuit.openings
        self._waiting += 1
        try:
            async with asyncio.timeout(self._patience.acquire):
                await self._places.acquire()
        except TimeoutError:
            raise PoolExhausted("all connections are busy") from None
        finally:
            self._waiting -= 1
        try:
            while self._circuit.openings == openings:
                with outages_named(connecting=True):
                    connection = await engine.connect()
                try:
                    is_alive = await self._is_alive(connection)
                except BaseException:
                    await _throw_away(connection)
                    raise
                if is_alive:
                    connection.info[_USED_AT] = time.monotonic()
                    return connection
                await _throw_away(connection)
            raise DatabaseUnavailable(self._circuit.reason)
        except BaseException:
            self._places.release()
            raise

    async def _is_alive(self, connection: AsyncConnection) -> bool:
        """Ask a connection that was idle for long. A dead one tells of all that were idle then."""
        used_at = connection.info.get(_USED_AT)
        if used_at is None:  # it was made just now
            return True
        if used_at < self._dead_before:
            return False
        if time.monotonic() - used_at <= PING_AFTER_SECONDS:
            return True
        raw = await connection.get_raw_connection()
        try:
            with outages_named():
                await cast("Any", raw.driver_connection).execute("SELECT 1", timeout=PING_SECONDS)
        except DatabaseUnavailable:
            self._dead_before = time.monotonic()
            return False
        return True


_USED_AT = "parley.used_at"


async def _throw_away(connection: AsyncConnection) -> None:
    """Close a connection without a word: on a dead wire, a farewell takes its time-out."""
    if not connection.invalidated:
        raw = await connection.get_raw_connection()
        cast("Any", raw.driver_connection).terminate()
        await connection.invalidate()
    await connection.close()


def collided(error: BaseException) -> bool:
    """Tell whether what failed was rolled back because of others: it has surely not been done."""
    return isinstance(error, TransactionConflict)


def to_json(value: object) -> str:
    """Write JSON as the database is given it."""
    return orjson.dumps(value).decode()
