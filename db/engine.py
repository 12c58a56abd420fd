"""The way to the database: short reads in autocommit, writes in one transaction.

Nobody above holds a connection: a read borrows one for its statement, a unit of work for
its transaction. Nothing is sent while nothing is asked.

    rows          one statement. A read that breaks off is asked again
    transact      a unit of work, done again from its beginning where it did not commit
    transaction   the same for work that is repeated by other means, or need not be

What breaks off is tried again until a deadline; then the circuit opens, and everybody hears at
once that the database is away, until it answers again.
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol, TypeVar, cast

import orjson
from sqlalchemy import Connection, Executable, QueuePool, Row, Select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine
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
    DataRefused,
    PoolExhausted,
    ServerFull,
    TransactionConflict,
)
from db.outages import outages_named
from db.urls import DatabaseUrl

RowT = TypeVar("RowT", bound=NamedTuple)
ResultT = TypeVar("ResultT")

Values = Mapping[str, Any]
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]

PING_AFTER_SECONDS = 5.0
"A connection that was idle for longer may be dead: Neon closes all of them when it suspends."
PING_SECONDS = 2.0
"One that lives answers in far less; a dead one may never, where a router has forgotten it."
OUTCOME_SECONDS = 0.05
"How often a commit that is still under way is asked for."
RECYCLE_SECONDS = 1800
"Connections are not kept for longer: memory of a backend grows, and hosts move."


@dataclass(frozen=True, slots=True)
class Patience:
    """How long to wait for what, in seconds."""

    connect: float = 5.0
    acquire: float = 30.0
    statement: float | None = 30.0
    retry: float = 5.0


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


class Reader(Protocol):
    """Whatever can answer a statement: the database, or a transaction under way."""

    async def rows(self, statement: Executable, values: Values) -> Sequence[AnyRow]: ...


class Proof(NamedTuple):
    """How the outcome of a commit that broke off can be found out.

    `number` is Postgres' own of the transaction (`pg_current_xact_id`). The statement finds a
    row that nobody else can have written: after a crash, Postgres gives the number of what it
    has lost to the next transaction.
    """

    number: str
    statement: AnySelect
    values: Values


class Transaction:
    """A unit of work. It is committed by the `async with` that opened it, and by nobody else.

    `proof` is for whoever wants to know later whether it was; null: that can't be found out.
    """

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self.proof: Proof | None = None

    async def rows(self, statement: Executable, values: Values) -> Sequence[AnyRow]:
        result = await self._connection.execute(statement, values)
        return result.all() if result.returns_rows else ()


class Database:
    """One pool of connections to one Postgres."""

    def __init__(
        self,
        url: DatabaseUrl,
        *,
        pool_size: int = 5,
        max_overflow: int = 15,
        patience: Patience = Patience(),
    ) -> None:
        self.url = url
        self._max_overflow = max_overflow
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
            pool_size=pool_size,
            max_overflow=max_overflow,
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

    async def rows(self, statement: Executable, values: Values) -> Sequence[AnyRow]:
        """Run one statement outside any transaction and give all its rows.

        One that only reads is asked again when it breaks off; one that writes may have done so,
        and is asked again only where it collided.
        """

        async def ask() -> Sequence[AnyRow]:
            async with self._connected(self._borrow(self._autocommit)) as connection:
                result = await connection.execute(statement, values)
                return result.all() if result.returns_rows else ()

        return await self._again(ask, self._may_pass if _only_reads(statement) else _collided)

    async def transact(self, work: Callable[[Transaction], Awaitable[ResultT]]) -> ResultT:
        """Do a unit of work and commit it, once.

        It is begun again where it broke off before its commit, or collided with another. Where
        the commit broke off, its outcome is asked for: what is committed is not done again.
        Raises `CommitUnknown` where the outcome can't be found out.
        """

        async def attempt() -> ResultT:
            done: list[tuple[Transaction, ResultT]] = []
            try:
                async with self.transaction() as transaction:
                    done.append((transaction, await work(transaction)))
            except CommitUnknown:
                [(transaction, _)] = done
                if not await self._has_committed(transaction):
                    raise DatabaseUnavailable("the commit did not take place") from None
            return done[0][1]

        return await self._again(attempt)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """Open a unit of work: committed at the end, rolled back by an exception.

        Raises `CommitUnknown` where the connection broke off in the commit.
        """
        async with self._connected(self._borrow(self.engine)) as connection:
            begun = await connection.begin()
            try:
                yield Transaction(connection)
            except BaseException:
                with suppress(DBAPIError):  # what broke off is rolled back by that
                    await begun.rollback()
                raise
            try:
                with outages_named():
                    await begun.commit()
            except DatabaseUnavailable as error:
                raise CommitUnknown(str(error)) from error

    async def inspect(self, look: Callable[[Connection], ResultT], *, patiently: bool) -> ResultT:
        """Look at the schema. Impatiently, it tells how the database is at this very moment."""

        async def once() -> ResultT:
            borrowing = self._borrow(self.engine) if patiently else self._answering(self.engine)
            async with self._connected(borrowing) as connection:
                return await connection.run_sync(look)

        if patiently:
            return await self._again(once)
        try:
            return await once()
        except DatabaseUnavailable:
            return await once()  # that connection may have died long ago; this one is new

    @property
    def pool(self) -> PoolState:
        """How busy the connections of this process are at the moment. Asks nobody."""
        pool = cast("QueuePool", self.engine.pool)
        return PoolState(
            size=pool.size(),
            in_use=pool.checkedout(),
            idle=pool.checkedin(),
            overflow=max(0, pool.overflow()),  # it counts up from minus the size
            max_overflow=self._max_overflow,
        )

    async def close(self) -> None:
        await self.engine.dispose()

    @asynccontextmanager
    async def _connected(
        self, borrowing: Awaitable[AsyncConnection]
    ) -> AsyncGenerator[AsyncConnection]:
        """Give a connection back in the end; one that breaks off does not go back to the pool."""
        connection = await borrowing
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
                connection = await self._again(lambda: self._answering(engine))
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
        try:
            async with asyncio.timeout(self._patience.acquire):
                await self._places.acquire()
        except TimeoutError:
            raise PoolExhausted("all connections are busy") from None
        try:
            while self._circuit.openings == openings:
                with outages_named():
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

    async def _again(
        self,
        work: Callable[[], Awaitable[ResultT]],
        is_worth_it: Callable[[BaseException], bool] | None = None,
    ) -> ResultT:
        """Do something, and again while it fails in a way that is worth it, for so long."""
        is_worth_it, began = is_worth_it or self._may_pass, time.monotonic()
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

    def _may_pass(self, error: BaseException) -> bool:
        """Tell whether to try again: never where a commit may have taken place."""
        if self._circuit.is_open:
            return False
        if isinstance(error, DatabaseUnavailable):
            return error.may_pass and not isinstance(error, CommitUnknown | PoolExhausted)
        return _collided(error)

    async def _has_committed(self, transaction: Transaction) -> bool:
        """Ask what became of a transaction. Raises `CommitUnknown` where that can't be said."""
        proof = transaction.proof
        if proof is None:
            raise CommitUnknown("nobody asked for its number")
        deadline = time.monotonic() + self._patience.retry
        while time.monotonic() < deadline:
            try:
                rows = await self._again(lambda: self.rows(_OUTCOME, {"number": proof.number}))
                match rows[0][0]:
                    case "committed":
                        return bool(await self.rows(proof.statement, proof.values))
                    case "aborted":
                        return False
                    case _:
                        await asyncio.sleep(OUTCOME_SECONDS)
            except DataRefused:
                return False  # Postgres has crashed, and not come as far as this number again
            except DatabaseUnavailable as error:
                raise CommitUnknown(str(error)) from error
        raise CommitUnknown("it is still under way")


_USED_AT = "parley.used_at"
_OUTCOME = text("SELECT pg_xact_status(CAST(:number AS text)::xid8)")


async def _throw_away(connection: AsyncConnection) -> None:
    """Close a connection without a word: on a dead wire, a farewell takes its time-out."""
    if not connection.invalidated:
        raw = await connection.get_raw_connection()
        cast("Any", raw.driver_connection).terminate()
        await connection.invalidate()
    await connection.close()


def _collided(error: BaseException) -> bool:
    """Tell whether what failed was rolled back because of others: it has surely not been done."""
    return isinstance(error, TransactionConflict)


def _only_reads(statement: Executable) -> bool:
    return isinstance(statement, Select) and statement._for_update_arg is None


def to_json(value: object) -> str:
    """Write JSON as the database is given it."""
    return orjson.dumps(value).decode()


async def one(
    reader: Reader, row: type[RowT], statement: Executable, values: Values
) -> RowT | None:
    """Give the first row a statement finds, as `row`, or none."""
    found = await reader.rows(statement, values)
    return row._make(found[0]) if found else None


async def many(
    reader: Reader, row: type[RowT], statement: Executable, values: Values
) -> list[RowT]:
    """Give the rows a statement finds, as `row`, in its order."""
    return [row._make(each) for each in await reader.rows(statement, values)]
