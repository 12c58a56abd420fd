"""The way to the database: short reads in autocommit, writes in one transaction.

Nobody above holds a connection: a read borrows one for its statement, a unit of work for
its transaction. Nothing is sent while nothing is asked.

    rows          one statement. A read that breaks off is asked again
    transact      a unit of work, done again from its beginning where it did not commit
    transaction   the same for work that is repeated by other means, or need not be
"""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, NamedTuple, Protocol, TypeVar

from sqlalchemy import Connection, Executable, Row, Select, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine

from db.connections import DEFAULT_PATIENCE, Connections, Patience, PoolState, collided
from db.errors import CommitUnknown, DatabaseUnavailable, DataRefused
from db.outages import outages_named
from db.urls import DatabaseUrl

RowT = TypeVar("RowT", bound=NamedTuple)
ResultT = TypeVar("ResultT")

Values = Mapping[str, Any]
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]

OUTCOME_SECONDS = 0.05
"How often a commit that is still under way is asked for."


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
        patience: Patience = DEFAULT_PATIENCE,
    ) -> None:
        self.url = url
        self._patience = patience
        self._connections = Connections(
            url, pool_size=pool_size, max_overflow=max_overflow, patience=patience
        )

    async def rows(self, statement: Executable, values: Values) -> Sequence[AnyRow]:
        """Run one statement outside any transaction and give all its rows.

        One that only reads is asked again when it breaks off; one that writes may have done so,
        and is asked again only where it collided.
        """

        async def ask() -> Sequence[AnyRow]:
            async with self._connections.lent(autocommit=True) as connection:
                result = await connection.execute(statement, values)
                return result.all() if result.returns_rows else ()

        return await self._connections.again(ask, None if _only_reads(statement) else collided)

    async def transact(
        self, work: Callable[[Transaction], Awaitable[ResultT]], *, idempotent: bool = False
    ) -> ResultT:
        """Do a unit of work and commit it, once.

        It is begun again where it broke off before its commit, or collided with another. Where
        the commit broke off, its outcome is asked for: what is committed is not done again,
        unless it is `idempotent`. Raises `CommitUnknown` where the outcome can't be found out.
        """

        async def attempt() -> ResultT:
            done: list[tuple[Transaction, ResultT]] = []
            try:
                async with self.transaction() as transaction:
                    done.append((transaction, await work(transaction)))
            except CommitUnknown:
                [(transaction, _)] = done
                if idempotent or not await self._has_committed(transaction):
                    raise DatabaseUnavailable("the commit did not take place") from None
            return done[0][1]

        return await self._connections.again(attempt)

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """Open a unit of work: committed at the end, rolled back by an exception.

        Raises `CommitUnknown` where the connection broke off in the commit.
        """
        async with self._connections.lent() as connection:
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
            async with self._connections.lent(impatiently=not patiently) as connection:
                return await connection.run_sync(look)

        if patiently:
            return await self._connections.again(once)
        try:
            return await once()
        except DatabaseUnavailable:
            return await once()  # that connection may have died long ago; this one is new

    @property
    def engine(self) -> AsyncEngine:
        """What is beneath, for migrations."""
        return self._connections.engine

    @property
    def pool(self) -> PoolState:
        """How busy the connections of this process are at the moment. Asks nobody."""
        return self._connections.state

    async def close(self) -> None:
        await self._connections.close()

    async def _has_committed(self, transaction: Transaction) -> bool:
        """Ask what became of a transaction. Raises `CommitUnknown` where that can't be said."""
        proof = transaction.proof
        if proof is None:
            raise CommitUnknown("nobody asked for its number")
        deadline = time.monotonic() + self._patience.retry
        while time.monotonic() < deadline:
            try:
                rows = await self._connections.again(
                    lambda: self.rows(_OUTCOME, {"number": proof.number})
                )
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


_OUTCOME = text("SELECT pg_xact_status(CAST(:number AS text)::xid8)")


def _only_reads(statement: Executable) -> bool:
    return isinstance(statement, Select) and statement._for_update_arg is None


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
