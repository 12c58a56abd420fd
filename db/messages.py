"""Chat messages, read and deleted as their owner.

A reply whose lease ran out has lost its server. Every read says so by one expression
(`STATUS`) and writes nothing, so that reads work on replicas; `db.turns` settles it for good.
"""

from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    bindparam,
    case,
    cast,
    column,
    delete,
    func,
    literal,
    select,
    true,
)
from sqlalchemy.dialects.postgresql import ARRAY, JSONB

from db.engine import AnySelect, Database, Reader, Transaction, many, one
from db.ids import MessageId, SessionId, UserId
from db.models import ChatMessage, MessageStatus
from db.pages import Page, Slice, keyset, page
from db.viewer import Viewer

INTERRUPTED_ERROR = {
    "code": "INTERRUPTED",
    "message": "The server that was writing this reply went away.",
    "retryable": True,
}


class MessageRow(NamedTuple):
    """A message, as it is read: `status` and `error` are already derived from the lease.

    `content_length` counts UTF-16 code units. `citations` and `searches` are as they were
    stored by the turn: snapshots, in the agent's words.
    """

    id: MessageId
    session_id: SessionId
    position: int
    role: str
    content: str
    content_length: int
    chapter: str | None
    selected_text: str | None
    document_ids: list[str] | None
    status: str
    reply_to: MessageId | None
    citations: list[dict[str, Any]]
    searches: list[dict[str, Any]]
    model: str | None
    token_count: int | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error: dict[str, Any] | None
    created_at: datetime
    completed_at: datetime | None


EXPIRED: ColumnElement[bool] = (ChatMessage.status == literal(MessageStatus.STREAMING.value)) & (
    ChatMessage.lease_until <= func.statement_timestamp()
)
STATUS: ColumnElement[str] = case(
    (EXPIRED, literal(MessageStatus.INTERRUPTED.value)), else_=ChatMessage.status
).label("status")
ERROR: ColumnElement[Any] = case(
    (EXPIRED, cast(literal(INTERRUPTED_ERROR, JSONB()), JSONB())), else_=ChatMessage.error
).label("error")

COLUMNS: list[ColumnElement[Any]] = [
    {"status": STATUS, "error": ERROR}.get(name, ChatMessage.__table__.c[name])
    for name in MessageRow._fields
]
OWN = ChatMessage.user_id == bindparam("viewer")
IN_SESSION = ChatMessage.session_id == bindparam("session")
_IN_CHAPTER = ChatMessage.chapter == bindparam("chapter")
_POSITION = (ChatMessage.position.expression,)

_OF_VIEWER = select(*COLUMNS).where(OWN)
_BY_IDS = _OF_VIEWER.where(
    ChatMessage.id == func.any(bindparam("messages", type_=ARRAY(ChatMessage.id.type)))
)
_REPLIES = _OF_VIEWER.where(
    ChatMessage.reply_to == func.any(bindparam("messages", type_=ARRAY(ChatMessage.id.type)))
)
_ACTIVE = _OF_VIEWER.where(
    ChatMessage.session_id == func.any(bindparam("sessions", type_=ARRAY(ChatMessage.id.type))),
    ChatMessage.status == literal(MessageStatus.STREAMING.value),
    ~EXPIRED,
)
_HISTORY = (
    _OF_VIEWER.where(
        IN_SESSION,
        ChatMessage.position < bindparam("position"),
        ChatMessage.content != "",
    )
    .order_by(ChatMessage.position.desc())
    .limit(bindparam("at_most"))
)
_DELETE = (
    delete(ChatMessage)
    .where(OWN, ChatMessage.id == bindparam("message"))
    .returning(ChatMessage.session_id)
)
_CLEAR = delete(ChatMessage).where(OWN, IN_SESSION)


def _asked_sessions() -> Any:
    """Give the bound array of session ids as a relation `asked(id)`."""
    ids = func.unnest(bindparam("sessions", type_=ARRAY(ChatMessage.id.type)))
    return ids.table_valued(column("id", ChatMessage.id.type)).render_derived(name="asked")


@cache
def _page_in_sessions(wanted_shape: Slice, in_chapter: bool) -> AnySelect:
    """Make the statement that finds one slice in each of many sessions."""
    asked = _asked_sessions()
    statement = _OF_VIEWER.where(ChatMessage.session_id == asked.c.id)
    if in_chapter:
        statement = statement.where(_IN_CHAPTER)
    found = keyset(statement, _POSITION, wanted_shape, descending=False).lateral("found")
    return select(*found.c).select_from(asked.join(found, true()))


async def messages_by_id(
    viewer: Viewer, reader: Reader, ids: list[MessageId]
) -> dict[MessageId, MessageRow]:
    """Give those of the messages that are the viewer's."""
    found = await many(reader, MessageRow, _BY_IDS, {"viewer": viewer.user_id, "messages": ids})
    return {row.id: row for row in found}


async def message(viewer: Viewer, reader: Reader, id: MessageId) -> MessageRow | None:
    """Give one message of the viewer's."""
    return (await messages_by_id(viewer, reader, [id])).get(id)


async def message_of(reader: Reader, user_id: UserId, id: MessageId) -> MessageRow | None:
    """Give a message to the server that writes or follows it on its owner's behalf."""
    return await one(reader, MessageRow, _BY_IDS, {"viewer": user_id, "messages": [id]})


async def reply_to(viewer: Viewer, reader: Reader, id: MessageId) -> MessageRow | None:
    """Give the reply that answers a user message of the viewer's."""
    return await one(reader, MessageRow, _REPLIES, {"viewer": viewer.user_id, "messages": [id]})


async def message_pages(
    viewer: Viewer, database: Database, ids: list[SessionId], wanted: Slice, chapter: str | None
) -> dict[SessionId, Page[MessageRow]]:
    """Give the same slice of each session's history, in reading order. Key: `position`.

    A session that is not the viewer's has an empty page.
    """
    shape = Slice(0, wanted.after and (None,), wanted.before and (None,), from_end=wanted.from_end)
    values = {"viewer": viewer.user_id, "sessions": ids, **wanted.values}
    if chapter is not None:
        values["chapter"] = chapter
    found = await many(database, MessageRow, _page_in_sessions(shape, chapter is not None), values)
    rows: dict[SessionId, list[MessageRow]] = {id: [] for id in ids}
    for row in found:
        rows[row.session_id].append(row)
    for each in rows.values():
        each.sort(key=lambda row: row.position, reverse=wanted.from_end)
    return {id: page(each, wanted) for id, each in rows.items()}


async def last_messages(
    viewer: Viewer, database: Database, ids: list[SessionId]
) -> dict[SessionId, MessageRow]:
    """Give each session's last message."""
    pages = await message_pages(viewer, database, ids, Slice(1, from_end=True), chapter=None)
    return {id: each.rows[0] for id, each in pages.items() if each.rows}


async def active_replies(
    viewer: Viewer, reader: Reader, ids: list[SessionId]
) -> dict[SessionId, MessageRow]:
    """Give the reply now being written in each session, where one is."""
    found = await many(reader, MessageRow, _ACTIVE, {"viewer": viewer.user_id, "sessions": ids})
    return {row.session_id: row for row in found}


@cache
def _counts(in_chapter: bool) -> AnySelect:
    wanted = ChatMessage.session_id == func.any(
        bindparam("sessions", type_=ARRAY(ChatMessage.id.type))
    )
    statement: AnySelect = select(ChatMessage.session_id, func.count()).where(OWN, wanted)
    if in_chapter:
        statement = statement.where(_IN_CHAPTER)
    return statement.group_by(ChatMessage.session_id)


async def message_counts(
    viewer: Viewer, reader: Reader, ids: list[SessionId], chapter: str | None
) -> dict[SessionId, int]:
    """Count each session's messages, of one chapter if given. A session with none is left out."""
    values: dict[str, Any] = {"viewer": viewer.user_id, "sessions": ids}
    if chapter is not None:
        values["chapter"] = chapter
    rows = await reader.rows(_counts(chapter is not None), values)
    return {row[0]: row[1] for row in rows}


async def history_before(
    viewer: Viewer, reader: Reader, id: SessionId, position: int, *, at_most: int
) -> list[MessageRow]:
    """Give the last messages with text before a position, oldest first."""
    values = {
        "viewer": viewer.user_id,
        "session": id,
        "position": position,
        "at_most": at_most,
    }
    return (await many(reader, MessageRow, _HISTORY, values))[::-1]


async def delete_message(viewer: Viewer, transaction: Transaction, id: MessageId) -> bool:
    """Delete a message of a locked session; false where it is gone already."""
    values = {"viewer": viewer.user_id, "message": id}
    return bool(await transaction.rows(_DELETE, values))


async def clear_messages(
    viewer: Viewer, transaction: Transaction, id: SessionId, chapter: str | None
) -> int:
    """Delete a locked session's messages, of one chapter if given, and say how many."""
    statement = (_CLEAR if chapter is None else _CLEAR.where(_IN_CHAPTER)).returning(ChatMessage.id)
    values: dict[str, Any] = {"viewer": viewer.user_id, "session": id}
    if chapter is not None:
        values["chapter"] = chapter
    return len(await transaction.rows(statement, values))
