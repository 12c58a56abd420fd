"""A Postgres of the test's own, that can be restarted and killed."""

import asyncio
import subprocess
from contextlib import suppress
from pathlib import Path

import psutil

from db import migration
from db.embedded import EmbeddedPostgres
from db.engine import Database
from db.urls import parse_url
from tests.process.processes import postmaster


class OwnPostgres:
    """A server on a data folder, with its URL once it was started."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._server = EmbeddedPostgres(folder / "postgres")
        self.url = ""

    async def start(self) -> None:
        self.url = await asyncio.to_thread(self._server.start)

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


async def make_data(folder: Path) -> None:
    """Make the data of a migrated server."""
    server = OwnPostgres(folder)
    try:
        await server.start()
        database = Database(parse_url(server.url))
        await migration.upgrade(database)
        await database.close()
    finally:
        await server.stop()


def copy_data(made: Path, folder: Path) -> None:
    """Copy the data of a server that is stopped: far quicker than to make it."""
    # Python's own copy would give them to whoever runs the tests; Postgres wants to be the owner.
    subprocess.run(["cp", "-a", made / "postgres", folder], check=True)
