"""A reply's text as it comes, kept once, for any number of followers.

A follower holds no more than how far it has read. It is woken when there is more; one that
is slow finds what has gathered joined into one piece when it comes back, and slows nobody.
"""

import asyncio
from bisect import bisect_right
from collections.abc import AsyncGenerator

from db.messages import MessageRow
from db.utf16 import index_at, utf16_length
from resolvers.events import Delta, Ended, Searched, StreamEvent

PIECES_AT_ONCE = 8
"A follower further behind than this gets the rest in one piece instead of one by one."


class ReplyStream:
    """What a reply says so far, and its end. `length` counts UTF-16 code units."""

    def __init__(self) -> None:
        self.length = 0
        self.searches: list[Searched] = []
        self.ended: asyncio.Future[MessageRow] = asyncio.get_running_loop().create_future()
        self._pieces: list[str] = []
        self._starts: list[int] = []
        self._changed = asyncio.Event()
        self._followers = 0
        self._all_told = asyncio.Event()
        self._all_told.set()

    async def told(self) -> None:
        """Wait until nobody follows any more: after the end, until all were told of it."""
        await self._all_told.wait()

    def add(self, text: str) -> None:
        self._pieces.append(text)
        self._starts.append(self.length)
        self.length += utf16_length(text)
        self._wake()

    def search(self, searched: Searched) -> None:
        self.searches.append(searched)
        self._wake()

    def end(self, row: MessageRow) -> None:
        self.ended.set_result(row)
        self._wake()

    def fail(self, failure: BaseException) -> None:
        """End without a row: followers and waiters see the failure."""
        self.ended.set_exception(failure)
        self.ended.exception()  # there may be nobody to see it
        self._wake()

    def text_from(self, offset: int) -> str:
        """Give everything from an offset on; inside a surrogate pair, from the pair's beginning."""
        number = max(0, bisect_right(self._starts, offset) - 1)
        rest = "".join(self._pieces[number:])
        return rest[index_at(rest, offset - self._starts[number]) :] if rest else ""

    async def follow(self, offset: int) -> AsyncGenerator[StreamEvent]:
        """Tell what has happened and what happens, up to the end; text from an offset on.

        What was searched is told to whoever comes later, too.
        """
        searches_told = 0
        self._followers += 1
        self._all_told.clear()
        try:
            while True:
                changed = self._changed
                while searches_told < len(self.searches):
                    searches_told += 1
                    yield self.searches[searches_told - 1]
                while offset < self.length:
                    delta = self._next(offset)
                    offset = delta.offset + utf16_length(delta.text)
                    yield delta
                if self.ended.done() and searches_told == len(self.searches):
                    yield Ended(self.ended.result())
                    return
                await changed.wait()
        finally:
            self._followers -= 1
            if not self._followers:
                self._all_told.set()

    def _next(self, offset: int) -> Delta:
        """Give the piece at an offset, or all that is left where that is many pieces."""
        number = bisect_right(self._starts, offset) - 1
        many = len(self._pieces) - number > PIECES_AT_ONCE
        start = self._starts[number]
        text = "".join(self._pieces[number:]) if many else self._pieces[number]
        if offset > start:
            index = index_at(text, offset - start)
            start += utf16_length(text[:index])
            text = text[index:]
        return Delta(start, text)

    def _wake(self) -> None:
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()
