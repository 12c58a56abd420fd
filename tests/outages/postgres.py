"""A Postgres of the test's own, that can be restarted and killed."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import psutil

from db import migration
from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.urls import parse_url
from tests.process.processes import postmaster


class OwnPostgres:
    """A migrated server. It listens at another port after each start."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = EmbeddedPostgres(folder / "postgres")

    async def start(self) -> str:
        """Start it, and give its URL."""
        return await asyncio.to_thread(self._server.start)

    async def stop(self) -> None:
        """Shut it down fast: connections are cut, and what is committed is written."""
        await asyncio.to_thread(self._server.stop)

    def kill(self) -> None:
        """Kill it with all its processes: nothing is written any more."""
        server = postmaster(self._folder)
        assert server is not None
        for process in [server, *server.children()]:
            with suppress(psutil.NoSuchProcess):
                process.kill()


@asynccontextmanager
async def own_postgres(folder: Path) -> AsyncGenerator[tuple[OwnPostgres, str]]:
    """Start a server, and give its URL too."""
    postgres = OwnPostgres(folder)
    try:
        url = await postgres.start()
        database = Database(parse_url(url))
        await migration.upgrade(database)
        await database.close()
        yield postgres, url
    finally:
        await postgres.stop()
