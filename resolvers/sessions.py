"""Chat sessions: made, renamed, cleared, deleted."""

from db import audit, messages, sessions, users
from db.engine import Database
from db.ids import SessionId, new_id
from db.pages import Page
from db.sessions import SessionRow
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
    made_id = SessionId(parse_made_id(id, "id") or new_id())
    check_optional_text(title, "title")
    async with database.transaction() as transaction:
        await users.ensure_user(viewer, transaction)
        row = await sessions.make_session(viewer, transaction, made_id, title=title)
        if row is not None:
            await audit.record(
                viewer, transaction, "create", "session", made_id, request_id=request_id
            )
            return row
    present = await sessions.session(viewer, database, made_id)
    if present is None or title not in (None, present.title):
        raise IdConflict("There is a session of this id already, with another title.")
    return present


async def update_session(
    viewer: Viewer, database: Database, *, id: str, title: str, request_id: str
) -> SessionRow:
    """Rename a session. Raises `NotFound`, `InvalidInput`."""
    check_text(title, "title")
    session_id = _known(id)
    async with database.transaction() as transaction:
        row = await sessions.retitle_session(viewer, transaction, session_id, title)
        if row is None:
            raise NotFound
        await audit.record(
            viewer, transaction, "update", "session", row.id, {"fields": ["title"]}, request_id
        )
    return row


async def delete_session(
    viewer: Viewer, database: Database, replies: Replies, *, id: str, request_id: str
) -> SessionId:
    """Delete a session and its history, stopping a reply under way. Raises `NotFound`."""
    session_id = _known(id)
    await replies.stop_in_session(viewer, session_id)
    async with database.transaction() as transaction:
        row = await sessions.lock_session(viewer, transaction, session_id)
        if row is None:
            raise NotFound
        await sessions.delete_session(viewer, transaction, session_id)
        detail = {"message_count": row.message_count}
        await audit.record(viewer, transaction, "delete", "session", session_id, detail, request_id)
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
    async with database.transaction() as transaction:
        if await sessions.lock_session(viewer, transaction, session_id) is None:
            raise NotFound
        removed = 0
        if chapter is None or is_storable(chapter):
            removed = await messages.clear_messages(viewer, transaction, session_id, chapter)
        row = await sessions.shrink_session(viewer, transaction, session_id, removed=removed)
        detail = {"message_count": removed}
        await audit.record(viewer, transaction, "clear", "session", session_id, detail, request_id)
    return row, removed


def _known(id: str) -> SessionId:
    session_id = parse_id(id, SessionId)
    if session_id is None:
        raise NotFound
    return session_id
