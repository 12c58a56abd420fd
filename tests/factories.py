"""Rows for tests, put in without the product's help; what is not said is ordinary.

They are written for reading: a counter or a position that the product keeps is kept here too.
"""

import hashlib
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import insert, update
from sqlalchemy.dialects.postgresql import insert as upsert

from db.engine import Database
from db.ids import ChunkId, DocumentId, MessageId, RunId, SessionId, new_id
from db.models import (
    ChatMessage,
    ChatSession,
    Document,
    DocumentChunk,
    DocumentContent,
    IngestionStatus,
    MessageRole,
    MessageStatus,
    User,
)
from db.utf16 import utf16_length
from db.viewer import Viewer
from graphql_api.auth import anonymous_viewer

LEASE = timedelta(seconds=30)
EXPIRED = timedelta(seconds=-1)
"As a lease: it ran out a second ago."


def make_viewer() -> Viewer:
    """Someone who has written nothing yet."""
    return anonymous_viewer(str(uuid4()))


async def make_user(database: Database, owner: Viewer) -> None:
    """Make the viewer's row, if it is not there yet."""
    row = {"id": owner.user_id, "is_anonymous": owner.is_anonymous}
    await database.rows(upsert(User).on_conflict_do_nothing(), row)


async def make_session(
    database: Database,
    *,
    owner: Viewer,
    id: UUID | None = None,
    title: str | None = "A conversation",
    updated_at: datetime | None = None,
) -> SessionId:
    """Make a session without messages."""
    await make_user(database, owner)
    session_id = SessionId(id or new_id())
    row: dict[str, Any] = {"user_id": owner.user_id, "id": session_id, "title": title}
    row["updated_at"] = updated_at or datetime.now(UTC)
    await database.rows(insert(ChatSession), row)
    return session_id


async def make_message(
    database: Database,
    *,
    owner: Viewer,
    session: UUID,
    id: UUID | None = None,
    content: str = "What is a lease?",
    chapter: str | None = None,
    reply_to: UUID | None = None,
    status: MessageStatus = MessageStatus.COMPLETE,
    citations: Sequence[dict[str, Any]] = (),
    run_id: RunId | None = None,
    lease: timedelta = LEASE,
) -> MessageId:
    """Append a message to a session: with `reply_to` a reply, without it a question.

    `run_id` (one of its own by default) and `lease` are for a STREAMING one.
    """
    grown = (
        update(ChatSession)
        .where(ChatSession.user_id == owner.user_id, ChatSession.id == session)
        .values(
            message_count=ChatSession.message_count + 1,
            last_position=ChatSession.last_position + 1,
        )
        .returning(ChatSession.last_position)
    )
    [[position]] = await database.rows(grown, {})
    message_id = MessageId(id or new_id())
    streaming = status is MessageStatus.STREAMING
    row: dict[str, Any] = {
        "user_id": owner.user_id,
        "id": message_id,
        "session_id": session,
        "position": position,
        "role": MessageRole.ASSISTANT if reply_to else MessageRole.USER,
        "content": content,
        "content_length": utf16_length(content),
        "chapter": chapter,
        "reply_to": reply_to,
        "status": status,
        "citations": list(citations),
        "run_id": (run_id or RunId(new_id())) if streaming else None,
        "lease_until": datetime.now(UTC) + lease if streaming else None,
    }
    await database.rows(insert(ChatMessage), row)
    return message_id


async def make_turn(
    database: Database,
    *,
    owner: Viewer,
    session: UUID,
    question: str = "What is a lease?",
    reply: str = "A promise with an end.",
    citations: Sequence[dict[str, Any]] = (),
) -> tuple[MessageId, MessageId]:
    """Append a question and its whole reply; gives their ids."""
    asked = await make_message(database, owner=owner, session=session, content=question)
    replied = await make_message(
        database, owner=owner, session=session, content=reply, reply_to=asked, citations=citations
    )
    return asked, replied


async def make_streaming_reply(
    database: Database,
    *,
    owner: Viewer,
    session: UUID,
    content: str = "",
    run_id: RunId | None = None,
    lease: timedelta = LEASE,
) -> MessageId:
    """Append a question and a reply that some other process writes."""
    asked = await make_message(database, owner=owner, session=session)
    return await make_message(
        database,
        owner=owner,
        session=session,
        content=content,
        reply_to=asked,
        status=MessageStatus.STREAMING,
        run_id=run_id,
        lease=lease,
    )


def citation(document: UUID, marker: int = 1) -> dict[str, Any]:
    """A passage as a stored reply holds it."""
    return {
        "marker": marker,
        "document_id": str(document),
        "title": "Leases",
        "source_url": None,
        "snippet": "A lease is a promise with an end.",
        "score": 1.0,
    }


async def make_document(
    database: Database,
    *,
    owner: Viewer | None,
    id: UUID | None = None,
    title: str = "Leases",
    content: str | None = None,
    mime_type: str = "text/markdown",
    status: IngestionStatus = IngestionStatus.READY,
    chunks: Sequence[str] = (),
    attempts: int = 0,
    lease: timedelta = LEASE,
) -> DocumentId:
    """Make a document that is in Postgres and in no index; `owner` null shares it.

    Without `content` it has some of its own. `lease` is for a PROCESSING one.
    """
    if owner is not None:
        await make_user(database, owner)
    document_id = DocumentId(id or new_id())
    data = (content or f"# {title}\n\nDocument {document_id}.").encode()
    processing = status is IngestionStatus.PROCESSING
    row: dict[str, Any] = {
        "id": document_id,
        "owner_id": owner and owner.user_id,
        "title": title,
        "mime_type": mime_type,
        "checksum": hashlib.sha256(data).hexdigest(),
        "byte_size": len(data),
        "ingestion_status": status,
        "error": "It is damaged." if status is IngestionStatus.FAILED else None,
        "chunk_count": len(chunks),
        "attempts": attempts,
        "run_id": new_id() if processing else None,
        "lease_until": datetime.now(UTC) + lease if processing else None,
    }
    await database.rows(insert(Document), row)
    await database.rows(insert(DocumentContent), {"document_id": document_id, "data": data})
    for ordinal, chunk in enumerate(chunks):
        passage = {"document_id": document_id, "ordinal": ordinal, "content": chunk}
        await database.rows(insert(DocumentChunk), {**passage, "id": ChunkId(new_id())})
    return document_id
