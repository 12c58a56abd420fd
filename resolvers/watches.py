"""The replies of other processes that somebody here follows.

They are read from their rows, at the pace of their writes: one statement per tick for all
of them together, and none when nobody follows. A reply whose server died is settled here,
so that its followers hear of its end.
"""

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from contextvars import Context
from typing import Any

import structlog

from db import messages, runs, turns
from db.engine import Database
from db.errors import DatabaseUnavailable
from db.ids import MessageId, RunId, UserId
from db.messages import MessageRow
from db.models import MessageStatus
from resolvers.events import Searched
from resolvers.streams import ReplyStream

log = structlog.get_logger(__name__)

TICK_SECONDS = 0.25


class Watch:
    """A reply as read from its row so far, and how many follow it here."""

    def __init__(self, user_id: UserId, reply: MessageRow) -> None:
        self.key = user_id, reply.id
        self.place: tuple[UserId, MessageId] = self.key  # another, once a claim has moved the row
        self.reply = reply
        self.run_id: RunId | None = None
        self.stream = ReplyStream()
        self.followers = 0
        self.chars = 0
        self.take(reply.content, reply.searches)

    def take(self, text: str, searches: list[dict[str, Any]] | None) -> None:
        for search in (searches or ())[len(self.stream.searches) :]:
            self.stream.search(Searched(**search))
        if text:
            self.stream.add(text)
            self.chars += len(text)


class Watches:
    """All replies of other processes that are followed here, and the one ticker that reads them."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._watches: dict[tuple[UserId, MessageId], Watch] = {}
        self._ticker: asyncio.Task[None] | None = None

    @asynccontextmanager
    async def watch(self, user_id: UserId, reply: MessageRow) -> AsyncGenerator[ReplyStream]:
        """Follow a reply that is being written elsewhere, for as long as the block runs."""
        watch = self._watches.setdefault((user_id, reply.id), Watch(user_id, reply))
        watch.followers += 1
        if self._ticker is None or self._ticker.done():
            # In a context of its own: it outlives the request that it begins with.
            self._ticker = asyncio.create_task(self._tick(), name="watch ticker", context=Context())
        try:
            yield watch.stream
        finally:
            watch.followers -= 1
            if not watch.followers:
                self._drop(watch)

    async def close(self) -> None:
        if self._ticker is not None:
            self._ticker.cancel()
            await asyncio.gather(self._ticker, return_exceptions=True)

    def _drop(self, watch: Watch) -> None:
        """Read a watch no more; one that has taken its place since is another."""
        if self._watches.get(watch.key) is watch:
            del self._watches[watch.key]

    async def _tick(self) -> None:
        while self._watches:
            await asyncio.sleep(TICK_SECONDS)
            try:
                await self._read()
            except DatabaseUnavailable as outage:
                log.warning("watch.delayed", count=len(self._watches), reason=str(outage))
            except Exception:
                log.exception("watch.failed", count=len(self._watches))

    async def _read(self) -> None:
        watches = list(self._watches.values())
        if not watches:
            return
        asked = [(*watch.place, watch.chars, len(watch.stream.searches)) for watch in watches]
        found = await runs.progress(self._database, asked)
        for number, watch in enumerate(watches):
            row = found.get(number)
            if row is not None and row.status == MessageStatus.STREAMING:
                watch.run_id = row.run_id
                watch.take(row.text, row.searches)
            elif row is not None or not await self._has_moved(watch):
                await self._end(watch)

    async def _has_moved(self, watch: Watch) -> bool:
        """Look where a row that is gone went: a claim moves it under another user.

        Its run leads there only while it goes on, and under whatever id.
        """
        made_at = watch.reply.created_at
        found = await runs.place_after_claim(self._database, *watch.place, made_at)
        if found is None and watch.run_id is not None:
            moved = await runs.find_runs(self._database, [watch.run_id])
            found = runs.PlaceRow(moved[0].user_id, moved[0].id) if moved else None
        if found is not None:
            watch.place = found.user_id, found.id
        return found is not None

    async def _end(self, watch: Watch) -> None:
        """Tell the followers how it ended; where its server died, settle that first."""
        await turns.settle_reply(self._database, *watch.place)
        row = await messages.message_of(self._database, *watch.place)
        self._drop(watch)
        if row is None:  # deleted: what there was
            text = watch.stream.text_from(0)
            status = MessageStatus.STOPPED.value
            row = watch.reply._replace(content=text, status=status)
        watch.take(row.content[watch.chars :], row.searches)
        watch.stream.end(row)
