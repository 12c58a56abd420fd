"""Chat sessions: found, made, renamed, cleared, deleted."""

from typing import NamedTuple

from db import audit, messages, sessions, users
from db.audit import Action, Entity
from db.engine import Database, Transaction
from db.ids import SessionId, new_id
from db.pages import Page
from db.sessions import MAX_KEY_LENGTH, SessionRow
from db.viewer import Viewer
from resolvers.cursors import SESSIONS, PageArguments, slice_of
from resolvers.errors import IdConflict, NotFound
from resolvers.inputs import (
    check_optional_text,
    check_text,
    is_storable,
    parse_id,
    parse_made_id,
)
from resolvers.replies import Replies


class SessionName(NamedTuple):
    """What a client calls a session: an id, a key of the client's own, or what may be either.

    The id is tried first. `visitors_id` comes next: it is that of the conversation which the name
    would stand for if it were the key of a visitor whom the viewer has claimed.
    """

    id: SessionId | None
    key: str | None
    visitors_id: SessionId | None = None

    @property
    def ids(self) -> list[SessionId]:
        """The ids to try, in their order."""
        return [each for each in (self.id, self.visitors_id) if each is not None]


class Made(NamedTuple):
    """A session, and whether it was made now (false: it was there already, just so)."""

    session: SessionRow
    is_new: bool


def session_name(text: str) -> SessionName:
    """Read what a client calls a session: a UUID is an id, and whatever else it pleases a key."""
    return SessionName(parse_id(text, SessionId), text)


async def find_session(viewer: Viewer, database: Database, name: SessionName) -> SessionRow:
    """Give the session of that id, else of that key. Raises `NotFound`."""
    by_id = await sessions.sessions_by_id(viewer, database, name.ids) if name.ids else {}
    found = next((by_id[each] for each in name.ids if each in by_id), None)
    if found is None and name.key is not None and is_storable(name.key):
        found = await sessions.session_by_key(viewer, database, name.key)
    if found is None:
        raise NotFound
    return found


async def sessions_page(
    viewer: Viewer, database: Database, asked: PageArguments
) -> Page[SessionRow]:
    """Give a page of the viewer's sessions, the one last used first. Raises `BadRequest`."""
    return await sessions.sessions_page(viewer, database, slice_of(asked, SESSIONS))


async def create_session(
    viewer: Viewer, database: Database, *, id: str | None, title: str | None, request_id: str
) -> SessionRow:
    """Make a session; with an id made by the client, again and again the same one.

    Raises `InvalidInput`, and `IdConflict` where that id already has another title.
    """
    made_id = parse_made_id(id, "id")
    name = SessionName(None if made_id is None else SessionId(made_id), None)
    return (await make_session(viewer, database, name, title=title, request_id=request_id)).session


async def make_session(
    viewer: Viewer, database: Database, name: SessionName, *, title: str | None, request_id: str
) -> Made:
    """Make a session of that id, else of that key; again and again the same one.

    Raises `InvalidInput`, and `IdConflict` where it is there already with another title.
    """
    check_optional_text(name.key, "sessionId", at_most=MAX_KEY_LENGTH)
    check_optional_text(title, "title")
    if name.visitors_id is not None:
        name = await _as_it_is_now(viewer, database, name)
    id = name.id or SessionId(new_id())
    key = name.key if name.id is None else None

    async def make(transaction: Transaction) -> SessionRow | None:
        await users.ensure_user(viewer, transaction)
        row = await sessions.make_session(viewer, transaction, id, title=title, client_key=key)
        if row is not None:
            await audit.record(
                viewer, transaction, Action.CREATE, Entity.SESSION, id, request_id=request_id
            )
        return row

    made = await database.transact(make)
    if made is not None:
        return Made(made, is_new=True)
    try:
        present = await find_session(viewer, database, SessionName(id, name.key))
    except NotFound:  # deleted meanwhile
        present = None
    if present is None or title not in (None, present.title):
        raise IdConflict("There is a session of this id already, with another title.")
    return Made(present, is_new=False)


async def _as_it_is_now(viewer: Viewer, database: Database, name: SessionName) -> SessionName:
    """Give the id under which a conversation that was a visitor's is there, if it is."""
    assert name.visitors_id is not None
    claimed = await sessions.session(viewer, database, name.visitors_id)
    return name if claimed is None else name._replace(id=claimed.id)


async def update_session(
    viewer: Viewer, database: Database, *, id: str, title: str, request_id: str
) -> SessionRow:
    """Rename a session. Raises `NotFound`, `InvalidInput`."""
    check_text(title, "title")
    session_id = _known(id)

    async def rename(transaction: Transaction) -> SessionRow:
        row = await sessions.retitle_session(viewer, transaction, session_id, title)
        if row is None:
            raise NotFound
        await audit.record(
            viewer,
            transaction,
            Action.UPDATE,
            Entity.SESSION,
            row.id,
            {"fields": ["title"]},
            request_id,
        )
        return row

    return await database.transact(rename)


async def delete_session(
    viewer: Viewer, database: Database, replies: Replies, *, id: str, request_id: str
) -> SessionId:
    """Delete a session and its history, stopping a reply under way. Raises `NotFound`."""
    session_id = _known(id)
    await replies.stop_in_session(viewer, session_id)

    async def delete(transaction: Transaction) -> None:
        row = await sessions.lock_session(viewer, transaction, session_id)
        if row is None:
            raise NotFound
        await sessions.delete_session(viewer, transaction, session_id)
        detail = {"message_count": row.message_count}
        await audit.record(
            viewer, transaction, Action.DELETE, Entity.SESSION, session_id, detail, request_id
        )

    await database.transact(delete)
    return session_id


async def clear_history(
    viewer: Viewer,
    database: Database,
    replies: Replies,
    *,
    id: str,
    chapter: str | None,
    request_id: str,
) -> tuple[SessionRow, int]:
    """Delete a session's messages, of one chapter if given. Raises `NotFound`."""
    session_id = _known(id)
    await replies.stop_in_session(viewer, session_id, chapter)

    async def clear(transaction: Transaction) -> tuple[SessionRow, int]:
        if await sessions.lock_session(viewer, transaction, session_id) is None:
            raise NotFound
        removed = 0
        if chapter is None or is_storable(chapter):
            removed = await messages.clear_messages(viewer, transaction, session_id, chapter)
        row = await sessions.shrink_session(viewer, transaction, session_id, removed=removed)
        detail = {"message_count": removed}
        await audit.record(
            viewer, transaction, Action.CLEAR, Entity.SESSION, session_id, detail, request_id
        )
        return row, removed

    return await database.transact(clear)


def _known(id: str) -> SessionId:
    session_id = parse_id(id, SessionId)
    if session_id is None:
        raise NotFound
    return session_id
