"""Two servers on one Postgres, and ways to get between a server and its Postgres."""

import asyncio
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sqlalchemy import text

from db.engine import Database
from db.viewer import Viewer
from tests.process.processes import Server, until


class Pair:
    """Two replicas, each with a data folder of its own. One that ended can be started again."""

    def __init__(self, folder: Path, a: Mapping[str, str], b: Mapping[str, str]) -> None:
        self._folder = folder
        self._settings = {"a": a, "b": b}
        self.servers = {name: self._begin(name) for name in self._settings}

    @property
    def a(self) -> Server:
        return self.servers["a"]

    @property
    def b(self) -> Server:
        return self.servers["b"]

    async def ready(self) -> None:
        """Wait until both serve, after starting again what has ended."""
        for name, server in self.servers.items():
            if server.process.code is not None:
                await server.clean_up()
                self.servers[name] = self._begin(name)
        await asyncio.gather(*(server.ready() for server in self.servers.values()))

    async def clean_up(self) -> None:
        for server in self.servers.values():
            await server.clean_up()

    def _begin(self, name: str) -> Server:
        return Server(self._folder / name, self._settings[name])


@asynccontextmanager
async def paired(folder: Path, a: Mapping[str, str], b: Mapping[str, str]) -> AsyncGenerator[Pair]:
    pair = Pair(folder, a, b)
    try:
        await pair.ready()
        yield pair
    finally:
        await pair.clean_up()


# --- the way to Postgres --------------------------------------------------------------


class Road:
    """A port on this machine that leads to a Postgres, as long as the road is open.

    While it is closed nobody listens at the port, as where a server or network is down.
    """

    def __init__(self, url: str) -> None:
        self._url = url
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._travellers: set[asyncio.Task[None]] = set()

    @property
    def url(self) -> str:
        parts = urlsplit(self._url)
        credentials = parts.netloc.rpartition("@")[0]
        return parts._replace(netloc=f"{credentials}@127.0.0.1:{self._port}").geturl()

    async def open(self, url: str | None = None) -> None:
        """Let connections through, to another server than before where one is named."""
        self._url = url or self._url
        self._listener = await asyncio.start_server(self._travel, "127.0.0.1", self._port)
        self._port = self._listener.sockets[0].getsockname()[1]

    async def close(self) -> None:
        """Let nobody through any more, and cut all connections."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
        travellers = list(self._travellers)
        for task in travellers:
            task.cancel()
        await asyncio.gather(*travellers, return_exceptions=True)

    async def _travel(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._travellers.add(task)
        far: asyncio.StreamWriter | None = None
        try:
            parts = urlsplit(self._url)
            from_far, far = await asyncio.open_connection(parts.hostname, parts.port)
            lanes = [_carry(reader, far), _carry(from_far, writer)]
            tasks = [asyncio.create_task(lane) for lane in lanes]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for lane in tasks:
                    lane.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # what the server sees of either is that its connection is gone
        finally:
            self._travellers.discard(task)
            for side in (writer, far):
                if side is not None:
                    side.transport.abort()
                    with suppress(OSError):
                        await side.wait_closed()


async def _carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()


@asynccontextmanager
async def road_to(url: str) -> AsyncGenerator[Road]:
    road = Road(url)
    await road.open()
    try:
        yield road
    finally:
        await road.close()


# --- a look into Postgres -------------------------------------------------------------


class Rows:
    """What is stored, asked of Postgres itself; and its locks."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self, statement: str, **values: Any) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self._database.rows(text(statement), values)]

    async def of(self, viewer: Viewer) -> dict[str, int]:
        """Count the viewer's rows, by table."""
        owners = {"users": "id"} | dict.fromkeys(
            ("chat_sessions", "chat_messages", "audit_logs"), "user_id"
        )
        counts: dict[str, int] = {}
        for table, owner in owners.items():
            found = await self.all(
                f"SELECT count(*) FROM {table} WHERE {owner} = :viewer", viewer=viewer.user_id
            )
            counts[table] = found[0][0]
        return counts

    async def stored(self, message_id: str) -> tuple[str, bytes, int]:
        """Give a message's status, the bytes of its text, and the length that is noted."""
        [row] = await self.all(
            "SELECT status, convert_to(content, 'UTF8'), content_length"
            " FROM chat_messages WHERE id = CAST(:id AS uuid)",
            id=message_id,
        )
        return row[0], bytes(row[1]), row[2]

    @asynccontextmanager
    async def held(self, statement: str, **values: Any) -> AsyncGenerator[None]:
        """Hold the locks that a statement takes."""
        async with self._database.transaction() as transaction:
            await transaction.rows(text(statement), values)
            yield

    async def waiting(self, beginning: str, at_least: int = 1) -> list[int]:
        """Wait until so many statements that begin so wait for a lock; give their processes."""

        async def found() -> list[int]:
            rows = await self.all(
                "SELECT pid FROM pg_stat_activity WHERE datname = current_database()"
                " AND wait_event_type = 'Lock' AND query ILIKE :beginning",
                beginning=beginning + "%",
            )
            return [row[0] for row in rows]

        return await until(found, lambda pids: len(pids) >= at_least)

    async def gone(self, pids: list[int]) -> None:
        """Wait until Postgres has noticed that these connections are gone."""

        async def left() -> list[tuple[Any, ...]]:
            return await self.all(
                "SELECT pid FROM pg_stat_activity WHERE pid = ANY(:pids)", pids=pids
            )

        await until(left, lambda rows: not rows)

    async def terminate(self, pids: list[int]) -> None:
        await self.all(
            "SELECT pg_terminate_backend(pid) FROM unnest(CAST(:pids AS int[])) AS pid", pids=pids
        )
        await self.gone(pids)
