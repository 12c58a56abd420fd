"""A turn's row: begun, kept alive, ended. The reply row is the run.

`run_id` is the fence: only the process that holds it writes to the row, and only while the
row is STREAMING and its lease has not run out by the database's clock. Text is appended
where the stored length equals the offset it belongs at, so a repeated write changes nothing.
"""

from collections.abc import Sequence
from datetime import timedelta
from typing import Any, NamedTuple
from uuid import UUID

import structlog
from sqlalchemy import (
    Interval,
    Text,
    Update,
    bindparam,
    case,
    cast,
    func,
    literal,
    null,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import JSONB, insert

from db.engine import Database, Reader, Transaction, Values, one
from db.errors import DatabaseUnavailable
from db.ids import MessageId, RunId, SessionId, UserId
from db.messages import (
    COLUMNS,
    EXPIRED,
    IN_SESSION,
    INTERRUPTED_ERROR,
    OWN,
    MessageRow,
)
from db.models import ChatMessage, MessageRole, MessageStatus
from db.viewer import Viewer

log = structlog.get_logger(__name__)

STREAMING = ChatMessage.status == literal(MessageStatus.STREAMING.value)
LEASE = func.statement_timestamp() + bindparam("lease", type_=Interval())

_WRITE_QUESTION = insert(ChatMessage).on_conflict_do_nothing().returning(*COLUMNS)
_OPEN_REPLY = (
    insert(ChatMessage).values(lease_until=LEASE).on_conflict_do_nothing().returning(*COLUMNS)
)
_INTERRUPTED: dict[str, Any] = {
    "status": MessageStatus.INTERRUPTED.value,
    "error": INTERRUPTED_ERROR,
    "completed_at": func.statement_timestamp(),
    "run_id": null(),
    "lease_until": null(),
}
_SETTLE_IN_SESSION = update(ChatMessage).where(OWN, IN_SESSION, EXPIRED).values(_INTERRUPTED)
_SETTLE_REPLY = (
    update(ChatMessage)
    .where(OWN, ChatMessage.id == bindparam("message"), EXPIRED)
    .values(_INTERRUPTED)
)
_EXPIRED_ROWS = (
    select(ChatMessage.user_id, ChatMessage.id)
    .where(EXPIRED)
    .with_for_update(skip_locked=True, key_share=True)
    .cte("expired")
)
_SETTLE_ALL = (
    update(ChatMessage)
    .where(
        ChatMessage.user_id == _EXPIRED_ROWS.c.user_id,
        ChatMessage.id == _EXPIRED_ROWS.c.id,
    )
    .values(_INTERRUPTED)
)
_ASK_TO_STOP = (
    update(ChatMessage)
    .where(
        OWN,
        ChatMessage.id == bindparam("message"),
        STREAMING,
        ChatMessage.stop_requested_at.is_(None),
    )
    .values(stop_requested_at=func.statement_timestamp())
    .returning(ChatMessage.id)
)


_END = (
    update(ChatMessage)
    .where(
        ChatMessage.user_id == bindparam("viewer"),
        ChatMessage.id == bindparam("message"),
        ChatMessage.run_id == bindparam("run"),
        STREAMING,
    )
    .values(
        content=bindparam("new_content"),
        content_length=bindparam("new_length"),
        citations=bindparam("new_citations", type_=JSONB()),
        searches=bindparam("new_searches", type_=JSONB()),
        status=case(
            (EXPIRED, MessageStatus.INTERRUPTED.value), else_=bindparam("new_status", type_=Text())
        ),
        error=case(
            (EXPIRED, cast(literal(INTERRUPTED_ERROR, JSONB()), JSONB())),
            else_=bindparam("new_error", type_=JSONB(none_as_null=True)),
        ),
        model=bindparam("new_model"),
        token_count=bindparam("new_completion_tokens"),
        prompt_tokens=bindparam("new_prompt_tokens"),
        completion_tokens=bindparam("new_completion_tokens"),
        completed_at=func.statement_timestamp(),
        run_id=null(),
        lease_until=null(),
    )
    .returning(*COLUMNS)
)


class Ending(NamedTuple):
    """How a reply ended, and all of it. `length` counts UTF-16 code units."""

    status: MessageStatus
    content: str
    length: int
    citations: list[dict[str, Any]]
    searches: list[dict[str, Any]]
    model: str | None
    prompt_tokens: int | None
    completion_tokens: int | None
    error: dict[str, Any] | None


async def write_question(
    viewer: Viewer,
    transaction: Transaction,
    *,
    id: MessageId,
    session_id: SessionId,
    position: int,
    content: str,
    length: int,
    chapter: str | None,
    selected_text: str | None,
    document_ids: Sequence[UUID] | None,
) -> MessageRow | None:
    """Store a user message in a locked session. Null: the viewer already has one of that id."""
    values = {
        "user_id": viewer.user_id,
        "id": id,
        "session_id": session_id,
        "position": position,
        "role": MessageRole.USER.value,
        "content": content,
        "content_length": length,
        "chapter": chapter,
        "selected_text": selected_text,
        "document_ids": None if document_ids is None else [str(each) for each in document_ids],
        "status": MessageStatus.COMPLETE.value,
    }
    return await one(transaction, MessageRow, _WRITE_QUESTION, values)


async def open_reply(
    viewer: Viewer,
    transaction: Transaction,
    *,
    id: MessageId,
    run_id: RunId,
    question: MessageRow,
    lease: timedelta,
) -> MessageRow | None:
    """Open the reply to a question in its locked session. Null: another is being written there."""
    values = {
        "user_id": viewer.user_id,
        "id": id,
        "session_id": question.session_id,
        "position": question.position + 1,
        "role": MessageRole.ASSISTANT.value,
        "content": "",
        "content_length": 0,
        "chapter": question.chapter,
        "status": MessageStatus.STREAMING.value,
        "reply_to": question.id,
        "run_id": run_id,
        "lease": lease,
    }
    return await one(transaction, MessageRow, _OPEN_REPLY, values)


async def settle_session(viewer: Viewer, transaction: Transaction, id: SessionId) -> None:
    """Settle for good what its server left unfinished in a locked session."""
    await transaction.rows(_SETTLE_IN_SESSION, {"viewer": viewer.user_id, "session": id})


async def settle_reply(database: Database, user_id: UserId, id: MessageId) -> None:
    """Settle a reply for good if its lease ran out."""
    await _settle(database, _SETTLE_REPLY, {"viewer": user_id, "message": id})


async def settle_expired(database: Database) -> None:
    """Settle for good every reply whose lease ran out, whosever it is: a starting server's duty."""
    await _settle(database, _SETTLE_ALL, {})


async def _settle(database: Database, statement: Update, values: Values) -> None:
    """Settle what can be settled now.

    While nothing can be written, as on a server that has become a standby, replies are read as
    what they are all the same.
    """

    async def settle(transaction: Transaction) -> None:
        await transaction.rows(statement, values)

    try:
        await database.transact(settle, idempotent=True)
    except DatabaseUnavailable as outage:
        log.warning("reply.not_settled", reason=str(outage))


async def end_reply(
    reader: Reader, user_id: UserId, id: MessageId, run_id: RunId, ending: Ending
) -> MessageRow | None:
    """Store how a reply ended, in one statement. INTERRUPTED where its lease had run out.

    Null: the row is no longer this run's (it was settled by another, deleted or moved).
    """
    values = {
        "viewer": user_id,
        "message": id,
        "run": run_id,
        "new_status": ending.status.value,
        "new_content": ending.content,
        "new_length": ending.length,
        "new_citations": ending.citations,
        "new_searches": ending.searches,
        "new_model": ending.model,
        "new_prompt_tokens": ending.prompt_tokens,
        "new_completion_tokens": ending.completion_tokens,
        "new_error": ending.error,
    }
    return await one(reader, MessageRow, _END, values)


async def ask_to_stop(viewer: Viewer, transaction: Transaction, id: MessageId) -> bool:
    """Leave word for whoever writes a reply, in a locked session, to stop.

    False: it has ended, or word was left before.
    """
    values = {"viewer": viewer.user_id, "message": id}
    return bool(await transaction.rows(_ASK_TO_STOP, values))
