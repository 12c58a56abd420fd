"""Chat sessions, read and written as their owner.

Whoever changes a session's messages locks its row first, by the UPDATE that also proves
that it is theirs; replies are locked after it, never before (else two writers deadlock).
"""

from datetime import datetime
from typing import NamedTuple

from sqlalchemy import bindparam, delete, func, select, update
from sqlalchemy.dialects.postgresql import ARRAY, insert

from db.engine import Database, Reader, Transaction, many, one
from db.ids import SessionId
from db.models import ChatSession
from db.pages import Page, Slice, keyset, page
from db.viewer import Viewer

MAX_KEY_LENGTH = 500
"Characters of what a client calls a session."


class SessionRow(NamedTuple):
    """A session, as it is read."""

    id: SessionId
    session_id: str | None
    title: str | None
    message_count: int
    last_position: int
    created_at: datetime
    updated_at: datetime


_COLUMNS = [ChatSession.__table__.c[name] for name in SessionRow._fields]
_OWN = ChatSession.user_id == bindparam("viewer")
_NAMED = ChatSession.id == bindparam("session")
_KEYED = ChatSession.session_id == bindparam("client_key")

_OF_VIEWER = select(*_COLUMNS).where(_OWN)
_BY_IDS = _OF_VIEWER.where(
    ChatSession.id == func.any(bindparam("sessions", type_=ARRAY(ChatSession.id.type)))
)
_BY_KEY = _OF_VIEWER.where(_KEYED)
_COUNT = select(func.count()).select_from(ChatSession).where(_OWN)
_MAKE = insert(ChatSession).on_conflict_do_nothing().returning(*_COLUMNS)
_RETITLE = (
    update(ChatSession)
    .where(_OWN, _NAMED)
    .values(title=bindparam("new_title"), updated_at=func.now())
    .returning(*_COLUMNS)
)
_GROW = (
    update(ChatSession)
    .where(_OWN)
    .values(
        title=func.coalesce(
            ChatSession.title, bindparam("new_title", type_=ChatSession.title.type)
        ),
        message_count=ChatSession.message_count + bindparam("added"),
        last_position=ChatSession.last_position + bindparam("added"),
        updated_at=func.clock_timestamp(),
    )
    .returning(*_COLUMNS)
)
_CLAIM = _GROW.where(_NAMED)
_CLAIM_KEYED = _GROW.where(_KEYED)
_LOCK = select(*_COLUMNS).where(_OWN, _NAMED).with_for_update(key_share=True)
_SHRINK = (
    update(ChatSession)
    .where(_OWN, _NAMED)
    .values(message_count=ChatSession.message_count - bindparam("removed"))
    .returning(*_COLUMNS)
)
_DELETE = delete(ChatSession).where(_OWN, _NAMED)


async def sessions_by_id(
    viewer: Viewer, reader: Reader, ids: list[SessionId]
) -> dict[SessionId, SessionRow]:
    """Give those of the sessions that are the viewer's."""
    found = await many(reader, SessionRow, _BY_IDS, {"viewer": viewer.user_id, "sessions": ids})
    return {row.id: row for row in found}


async def session(viewer: Viewer, reader: Reader, id: SessionId) -> SessionRow | None:
    """Give one session of the viewer's."""
    return (await sessions_by_id(viewer, reader, [id])).get(id)


async def session_by_key(viewer: Viewer, reader: Reader, key: str) -> SessionRow | None:
    """Give the viewer's session that their client calls by this key."""
    return await one(reader, SessionRow, _BY_KEY, {"viewer": viewer.user_id, "client_key": key})


async def sessions_page(viewer: Viewer, database: Database, wanted: Slice) -> Page[SessionRow]:
    """Give a page of the viewer's sessions, the one last used first. Key: `updated_at`, `id`."""
    order = (ChatSession.updated_at.expression, ChatSession.id.expression)
    statement = keyset(_OF_VIEWER, order, wanted, descending=True)
    found = await many(database, SessionRow, statement, {"viewer": viewer.user_id, **wanted.values})
    return page(found, wanted)


async def session_count(viewer: Viewer, reader: Reader) -> int:
    """Count the viewer's sessions."""
    return (await reader.rows(_COUNT, {"viewer": viewer.user_id}))[0][0]


async def make_session(
    viewer: Viewer,
    transaction: Transaction,
    id: SessionId,
    *,
    title: str | None = None,
    client_key: str | None = None,
    opening_messages: int = 0,
) -> SessionRow | None:
    """Make a session, its row locked; null where the viewer already has one of that id or key."""
    return await one(
        transaction,
        SessionRow,
        _MAKE,
        {
            "user_id": viewer.user_id,
            "id": id,
            "session_id": client_key,
            "title": title,
            "message_count": opening_messages,
            "last_position": opening_messages,
        },
    )


async def claim_session(
    viewer: Viewer, transaction: Transaction, id: SessionId, *, adding: int, title: str
) -> SessionRow | None:
    """Lock a session for `adding` more messages, the last of them at `last_position`.

    It becomes the one last used, and takes `title` if it has none. Null: not the viewer's.
    """
    values = {"viewer": viewer.user_id, "session": id, "added": adding, "new_title": title}
    return await one(transaction, SessionRow, _CLAIM, values)


async def claim_keyed_session(
    viewer: Viewer, transaction: Transaction, key: str, *, adding: int, title: str
) -> SessionRow | None:
    """`claim_session`, for the session that the viewer's client calls by this key."""
    values = {"viewer": viewer.user_id, "client_key": key, "added": adding, "new_title": title}
    return await one(transaction, SessionRow, _CLAIM_KEYED, values)


async def lock_session(
    viewer: Viewer, transaction: Transaction, id: SessionId
) -> SessionRow | None:
    """Lock a session without changing it. Null: not the viewer's."""
    return await one(transaction, SessionRow, _LOCK, {"viewer": viewer.user_id, "session": id})


async def shrink_session(
    viewer: Viewer, transaction: Transaction, id: SessionId, *, removed: int
) -> SessionRow:
    """Take removed messages off a locked session's count."""
    values = {"viewer": viewer.user_id, "session": id, "removed": removed}
    changed = await one(transaction, SessionRow, _SHRINK, values)
    assert changed is not None, "the session was locked"
    return changed


async def retitle_session(
    viewer: Viewer, transaction: Transaction, id: SessionId, title: str
) -> SessionRow | None:
    """Give a session another title. Null: not the viewer's."""
    values = {"viewer": viewer.user_id, "session": id, "new_title": title}
    return await one(transaction, SessionRow, _RETITLE, values)


async def delete_session(viewer: Viewer, transaction: Transaction, id: SessionId) -> None:
    """Delete a locked session and all its messages."""
    await transaction.rows(_DELETE, {"viewer": viewer.user_id, "session": id})
