"""What the server itself says of who is connected to it."""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from sqlalchemy import text

from db.engine import Database
from db.urls import parse_url

OTHERS = """FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND application_name NOT LIKE 'pg_%'"""
PATIENCE_SECONDS = 60.0
"Far longer than anything takes, with others on the machine too."
POLL_SECONDS = 0.01
WATCH_SECONDS = 0.05
"Looking on takes time from those who are looked at."


class Watcher:
    """Looks at a database from a connection of its own, which it leaves out of account."""

    def __init__(self, url: str) -> None:
        self._database = Database(parse_url(url), pool_size=1, max_overflow=0)
        self.most = 0
        "The most connections that were seen at once."

    async def connections(self, state: str | None = None) -> int:
        """Count the server connections of all others: in this state, if one is named."""
        found = await self.count(f"{OTHERS} AND state = coalesce(:state, state)", state=state)
        self.most = max(self.most, found)
        return found

    async def count(self, what: str, **values: object) -> int:
        """Count rows, of whatever is named from `FROM` on."""
        return (await self._database.rows(text(f"SELECT count(*) {what}"), values))[0][0]

    async def until(self, connections: int, state: str | None = None) -> None:
        """Wait until there are so many: a server notices a moment later that someone has gone."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.connections(state) != connections:  # noqa: ASYNC110
                await asyncio.sleep(POLL_SECONDS)

    async def until_rows(self, rows: int, what: str, **values: object) -> None:
        """Wait until there are so many rows of what is named from `FROM` on."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.count(what, **values) != rows:  # noqa: ASYNC110
                await asyncio.sleep(WATCH_SECONDS)

    async def settle(self, kept: int) -> None:
        """Wait until at most so many are left, and all of them are idle."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            while await self.connections() > kept or await self.connections("idle") < (  # noqa: ASYNC110
                await self.connections()
            ):
                await asyncio.sleep(POLL_SECONDS)

    async def tell(self, *statements: str) -> None:
        for statement in statements:
            await self._database.rows(text(statement), {})

    async def watch(self) -> None:
        """Note how many there are, again and again."""
        while True:
            await self.connections()
            await asyncio.sleep(WATCH_SECONDS)

    async def close(self) -> None:
        await self._database.close()


@asynccontextmanager
async def watching(url: str) -> AsyncGenerator[Watcher]:
    """Watch a database for as long as the block runs."""
    watcher = Watcher(url)
    task = asyncio.create_task(watcher.watch())
    try:
        yield watcher
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await watcher.close()
