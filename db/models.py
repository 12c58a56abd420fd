"""The tables.

Owned tables have the primary key `(user_id, id)`, and foreign keys carry `user_id` along:
a row can't be named without naming its owner, and a message can't hang in a stranger's
session. No key is ever updated.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any
from uuid import UUID

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    ForeignKeyConstraint,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Text,
    Uuid,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from db.ids import ChunkId, DocumentId, MessageId, RunId, SessionId, UserId


class MessageRole(StrEnum):
    """Who speaks."""

    USER = "USER"
    ASSISTANT = "ASSISTANT"
    SYSTEM = "SYSTEM"


class MessageStatus(StrEnum):
    """How far a message is. STREAMING is the only one that changes; see `db.messages`."""

    STREAMING = "STREAMING"
    COMPLETE = "COMPLETE"
    STOPPED = "STOPPED"
    FAILED = "FAILED"
    INTERRUPTED = "INTERRUPTED"


class IngestionStatus(StrEnum):
    """How far a document is on its way to being searchable."""

    PENDING = "PENDING"
    PROCESSING = "PROCESSING"
    READY = "READY"
    FAILED = "FAILED"


def _one_of(column: str, values: type[StrEnum]) -> str:
    return f"{column} IN ({', '.join(repr(value.value) for value in values)})"


CreatedAt = Annotated[datetime, mapped_column(server_default=func.now())]
UpdatedAt = Annotated[datetime, mapped_column(server_default=func.now())]


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "pk_%(table_name)s",
            "fk": "fk_%(table_name)s_%(referred_table_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "ck": "ck_%(table_name)s_%(constraint_name)s",
        }
    )
    type_annotation_map = {  # noqa: RUF012 - SQLAlchemy reads it from the class
        str: Text(),
        datetime: DateTime(timezone=True),
        dict[str, Any]: JSONB(none_as_null=True),
        list[dict[str, Any]]: JSONB(none_as_null=True),
        list[str]: JSONB(none_as_null=True),
        **dict.fromkeys((UserId, SessionId, MessageId, DocumentId, ChunkId, RunId), Uuid()),
    }


class User(Base):
    """Someone who has written something; `id` is made of realm and subject, or of a key.

    `email_claim` and `name_claim` are what their token last said, which a new claim is compared
    with: what they set themselves stands until their issuer says something new.
    `claimed_by` is the user that an anonymous visitor turned out to be.
    """

    __tablename__ = "users"
    __table_args__ = (
        CheckConstraint("is_anonymous = (subject IS NULL)", name="anonymous_has_no_subject"),
        Index("ix_users_lower_email", text("lower(email)")),
        Index("ix_users_claimed_by", "claimed_by", postgresql_where=text("claimed_by IS NOT NULL")),
    )

    id: Mapped[UserId] = mapped_column(primary_key=True)
    realm: Mapped[str | None]
    subject: Mapped[str | None]
    email: Mapped[str | None]
    name: Mapped[str | None]
    email_claim: Mapped[str | None]
    name_claim: Mapped[str | None]
    is_anonymous: Mapped[bool]
    claimed_by: Mapped[UserId | None] = mapped_column(ForeignKey("users.id", ondelete="SET NULL"))
    claimed_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]


class ChatSession(Base):
    """A conversation. `last_position` only grows, so a position is never given twice."""

    __tablename__ = "chat_sessions"
    __table_args__ = (
        Index("uq_chat_sessions_user_id_session_id", "user_id", "session_id", unique=True),
        Index("ix_chat_sessions_user_id_updated_at_id", "user_id", "updated_at", "id"),
        CheckConstraint("message_count >= 0", name="message_count_not_negative"),
    )

    user_id: Mapped[UserId] = mapped_column(
        ForeignKey("users.id", ondelete="CASCADE"), primary_key=True
    )
    id: Mapped[SessionId] = mapped_column(primary_key=True)
    session_id: Mapped[str | None]
    title: Mapped[str | None]
    message_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    last_position: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]


class ChatMessage(Base):
    """A turn. A reply that is being written is its own log, lock, lease and mailbox.

    `content_length` counts UTF-16 code units. `selected_text` and `document_ids` are what a
    user message was sent with: a retry is the same message only if they are the same.
    `lease_until` has no index: one would keep its renewals from being heap-only updates.
    """

    __tablename__ = "chat_messages"
    __table_args__ = (
        ForeignKeyConstraint(
            ["user_id", "session_id"],
            ["chat_sessions.user_id", "chat_sessions.id"],
            name="fk_chat_messages_chat_sessions",
            ondelete="CASCADE",
        ),
        ForeignKeyConstraint(
            ["user_id", "reply_to"],
            ["chat_messages.user_id", "chat_messages.id"],
            name="fk_chat_messages_reply_to",
            ondelete="SET NULL (reply_to)",
        ),
        CheckConstraint(_one_of("role", MessageRole), name="role"),
        CheckConstraint(_one_of("status", MessageStatus), name="status"),
        CheckConstraint(
            "status <> 'STREAMING' OR (run_id IS NOT NULL AND lease_until IS NOT NULL)",
            name="streaming_has_a_run",
        ),
        Index(
            "uq_chat_messages_user_id_session_id_position",
            "user_id",
            "session_id",
            "position",
            unique=True,
        ),
        Index(
            "uq_chat_messages_one_streaming_reply",
            "user_id",
            "session_id",
            unique=True,
            postgresql_where=text("status = 'STREAMING'"),
        ),
        Index("ix_chat_messages_user_id_reply_to", "user_id", "reply_to"),
        Index("ix_chat_messages_run_id", "run_id", postgresql_where=text("status = 'STREAMING'")),
    )

    user_id: Mapped[UserId] = mapped_column(primary_key=True)
    id: Mapped[MessageId] = mapped_column(primary_key=True)
    session_id: Mapped[SessionId]
    position: Mapped[int]
    role: Mapped[str]
    content: Mapped[str]
    content_length: Mapped[int]
    chapter: Mapped[str | None]
    selected_text: Mapped[str | None]
    document_ids: Mapped[list[str] | None]
    status: Mapped[str]
    reply_to: Mapped[MessageId | None]
    citations: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    searches: Mapped[list[dict[str, Any]]] = mapped_column(server_default=text("'[]'"))
    model: Mapped[str | None]
    token_count: Mapped[int | None]
    prompt_tokens: Mapped[int | None]
    completion_tokens: Mapped[int | None]
    error: Mapped[dict[str, Any] | None]
    run_id: Mapped[RunId | None]
    lease_until: Mapped[datetime | None]
    stop_requested_at: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    completed_at: Mapped[datetime | None]


class Document(Base):
    """A document, and the job of ingesting it. `owner_id` null is shared by all."""

    __tablename__ = "documents"
    __table_args__ = (
        Index(
            "uq_documents_owner_id_checksum",
            "owner_id",
            "checksum",
            unique=True,
            postgresql_nulls_not_distinct=True,
        ),
        Index("ix_documents_owner_id_id", "owner_id", "id"),
        Index(
            "ix_documents_unfinished",
            "id",
            postgresql_where=text("ingestion_status IN ('PENDING', 'PROCESSING')"),
        ),
        CheckConstraint(_one_of("ingestion_status", IngestionStatus), name="ingestion_status"),
    )

    id: Mapped[DocumentId] = mapped_column(primary_key=True)
    owner_id: Mapped[UserId | None] = mapped_column(ForeignKey("users.id", ondelete="CASCADE"))
    title: Mapped[str]
    source_url: Mapped[str | None]
    original_filename: Mapped[str | None]
    mime_type: Mapped[str]
    checksum: Mapped[str]
    byte_size: Mapped[int] = mapped_column(BigInteger)
    ingestion_status: Mapped[str] = mapped_column(server_default=text("'PENDING'"))
    error: Mapped[str | None]
    chunk_count: Mapped[int] = mapped_column(server_default=text("0"))
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    run_id: Mapped[RunId | None]
    lease_until: Mapped[datetime | None]
    created_at: Mapped[CreatedAt]
    updated_at: Mapped[UpdatedAt]


class DocumentContent(Base):
    """A document's bytes, apart from its row, so that reading a list never drags them along."""

    __tablename__ = "document_contents"

    document_id: Mapped[DocumentId] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    data: Mapped[bytes] = mapped_column(LargeBinary)


class DocumentChunk(Base):
    """A passage. Its `id` is its point's id in the vector store.

    The embedding itself lives in the vector store alone; what made it and when stands here.
    """

    __tablename__ = "document_chunks"
    __table_args__ = (Index("uq_document_chunks_id", "id", unique=True),)

    document_id: Mapped[DocumentId] = mapped_column(
        ForeignKey("documents.id", ondelete="CASCADE"), primary_key=True
    )
    ordinal: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[ChunkId]
    content: Mapped[str]
    heading: Mapped[str | None]
    page: Mapped[int | None]
    embedding_model: Mapped[str | None]
    embedding_dimension: Mapped[int | None]
    embedded_at: Mapped[datetime | None]


class AuditLog(Base):
    """What was changed, by whom, when. Written in the transaction it records; never updated.

    It has no foreign key: it outlives what it speaks of.
    """

    __tablename__ = "audit_logs"

    user_id: Mapped[UserId] = mapped_column(primary_key=True)
    id: Mapped[UUID] = mapped_column(primary_key=True)
    action: Mapped[str]
    entity: Mapped[str]
    entity_id: Mapped[UUID]
    detail: Mapped[dict[str, Any]] = mapped_column(server_default=text("'{}'"))
    request_id: Mapped[str | None]
    created_at: Mapped[CreatedAt]
