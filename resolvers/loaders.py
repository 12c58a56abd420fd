"""Dataloaders: each answers one question for many parents by one statement.

They are made for one operation and one viewer, and forgotten with it.
"""

from collections.abc import Awaitable, Callable, Hashable
from typing import NamedTuple, TypeVar

from aiodataloader import DataLoader

from db import documents, messages, sessions
from db.engine import Database
from db.ids import SessionId
from db.messages import MessageRow
from db.pages import EMPTY_PAGE, Page, Slice
from db.viewer import Viewer

KeyT = TypeVar("KeyT", bound=Hashable)
ValueT = TypeVar("ValueT")


class HistoryKey(NamedTuple):
    """Which messages of which session. Everything that changes the answer is part of the key."""

    session_id: SessionId
    wanted: Slice
    chapter: str | None


class CountKey(NamedTuple):
    """How many messages of which session, of one chapter if given."""

    session_id: SessionId
    chapter: str | None


class Loaders:
    """What one operation may look up, as its viewer."""

    def __init__(self, viewer: Viewer, database: Database) -> None:
        self._viewer = viewer
        self._database = database
        self.session_by_id = self._loader(sessions.sessions_by_id)
        self.message_by_id = self._loader(messages.messages_by_id)
        self.document_by_id = self._loader(documents.documents_by_id)
        self.last_message_by_session = self._loader(messages.last_messages)
        self.active_reply_by_session = self._loader(messages.active_replies)
        self.messages_by_session = DataLoader[HistoryKey, Page[MessageRow]](self._histories)
        self.message_count_by_session = DataLoader[CountKey, int](self._counts)

    def _loader(
        self, find: Callable[[Viewer, Database, list[KeyT]], Awaitable[dict[KeyT, ValueT]]]
    ) -> DataLoader[KeyT, ValueT | None]:
        """Make the loader of a `db` function that finds rows by keys."""

        async def batch(keys: list[KeyT]) -> list[ValueT | None]:
            found = await find(self._viewer, self._database, keys)
            return [found.get(key) for key in keys]

        return DataLoader(batch)

    async def _histories(self, keys: list[HistoryKey]) -> list[Page[MessageRow]]:
        """One statement per distinct slice, of which a query has as many as it has fields."""
        found: dict[HistoryKey, Page[MessageRow]] = {}
        for wanted, chapter in dict.fromkeys(key[1:] for key in keys):
            ids = [key.session_id for key in keys if key[1:] == (wanted, chapter)]
            pages = await messages.message_pages(self._viewer, self._database, ids, wanted, chapter)
            found |= {HistoryKey(id, wanted, chapter): page for id, page in pages.items()}
        return [found.get(key, EMPTY_PAGE) for key in keys]

    async def _counts(self, keys: list[CountKey]) -> list[int]:
        found: dict[CountKey, int] = {}
        for chapter in dict.fromkeys(key.chapter for key in keys):
            ids = [key.session_id for key in keys if key.chapter == chapter]
            counts = await messages.message_counts(self._viewer, self._database, ids, chapter)
            found |= {CountKey(id, chapter): count for id, count in counts.items()}
        return [found.get(key, 0) for key in keys]
