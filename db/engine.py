"""The way to the database: short reads in autocommit, writes in one transaction.

Nobody above holds a connection: a read borrows one for its statement, a unit of work for
its transaction. Nothing is sent while nothing is asked.
"""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, NamedTuple, Protocol, TypeVar

import orjson
from sqlalchemy import Executable, Row, Select
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from db.outages import outages_named
from db.urls import DatabaseUrl

RowT = TypeVar("RowT", bound=NamedTuple)

Values = Mapping[str, Any]
AnyRow = Row[*tuple[Any, ...]]
AnySelect = Select[*tuple[Any, ...]]


class Reader(Protocol):
    """Whatever can answer a statement: the database, or a transaction under way."""

    async def rows(self, statement: Executable, values: Values) -> Sequence[AnyRow]: ...


class Transaction:
    """A unit of work. It is committed by the `async with` that opened it, and by nobody else."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection

    async def rows(self, statement: Executable, values: Values) -> Sequence[AnyRow]:
        result = await self._connection.execute(statement, values)
        return result.all() if result.returns_rows else ()


class Database:
    """One pool of connections to one Postgres."""

    def __init__(self, url: DatabaseUrl, *, pool_size: int = 5, max_overflow: int = 15) -> None:
        self.url = url
        self.engine: AsyncEngine = create_async_engine(
            url.sqlalchemy,
            connect_args=url.connect_args,
            pool_size=pool_size,
            max_overflow=max_overflow,
            pool_timeout=30,
            # Statement errors quote their values, and values are what people said.
            hide_parameters=True,
            json_serializer=to_json,
            json_deserializer=orjson.loads,
        )
        self._autocommit = self.engine.execution_options(isolation_level="AUTOCOMMIT")

    async def rows(self, statement: Executable, values: Values) -> Sequence[AnyRow]:
        """Run one statement outside any transaction and give all its rows."""
        with outages_named():
            async with self._autocommit.connect() as connection:
                result = await connection.execute(statement, values)
                return result.all() if result.returns_rows else ()

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Transaction]:
        """Open a unit of work: committed at the end, rolled back by an exception."""
        with outages_named():
            async with self.engine.begin() as connection:
                yield Transaction(connection)

    async def close(self) -> None:
        await self.engine.dispose()


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
