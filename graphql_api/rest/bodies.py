"""What REST takes and gives, as OpenAPI tells it."""

from datetime import datetime
from typing import Any, Literal, Self
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from db.documents import DocumentRow
from db.messages import MessageRow
from db.sessions import SessionRow
from resolvers.citations import citations_of

MessageStatus = Literal["STREAMING", "COMPLETE", "STOPPED", "FAILED", "INTERRUPTED"]
IngestionStatus = Literal["PENDING", "PROCESSING", "READY", "FAILED"]
Visibility = Literal["PRIVATE", "SHARED"]

SESSION_ID = "Names the conversation: its UUID, or any string of the client's own."


class ChatBody(BaseModel):
    """A message to the agent."""

    message: str = Field(description="What to say.")
    session_id: str | None = Field(
        default=None,
        description=f"{SESSION_ID} One that is not there yet is made. Left out: the visitor's one"
        " lasting conversation; with a bearer token, a new one.",
    )
    chapter: str | None = Field(default=None, description="The chapter that the reader is in.")
    selected_text: str | None = Field(
        default=None,
        description="Text that the reader had selected; the agent is told to answer about it.",
    )
    document_ids: list[str] | None = Field(
        default=None, description="Only these documents are searched."
    )
    if_busy: Literal["REJECT", "INTERRUPT"] = Field(
        default="REJECT",
        description="When another reply is being written in this conversation: refuse, or stop"
        " that one first.",
    )


class Citation(BaseModel):
    """A snapshot of a passage as the agent read it: it outlives its document."""

    marker: int = Field(description="The n of `[n]` in the text.")
    document_id: UUID = Field(description="The document's id.")
    title: str = Field(description="The document's title.")
    source_url: str | None = Field(description="Where the document was fetched from.")
    snippet: str = Field(description="The passage's text, or the beginning of it.")
    score: float = Field(description="How well it matched; higher is better within one search.")


class ChatAnswer(BaseModel):
    """A reply that has ended. The ids are null where nothing was stored."""

    response: str = Field(description="The reply, in Markdown.")
    session_id: str | None = Field(description="What the client calls this conversation.")
    message_id: UUID | None = Field(description="The reply's id.")
    user_message_id: UUID | None = Field(description="The id of the message that it answers.")
    status: MessageStatus = Field(description="How it ended.")
    citations: list[Citation] = Field(description="The passages that it cites, by marker.")
    persisted: bool = Field(description="False: the database was away, and nothing is kept.")


class HistoryMessage(BaseModel):
    """One turn of a conversation."""

    id: UUID = Field(description="The message's id.")
    role: Literal["user", "assistant", "system"] = Field(description="Who speaks.")
    content: str = Field(description="The text, as far as it is stored.")
    chapter: str | None = Field(description="The chapter that it was asked about.")
    citations: list[Citation] = Field(description="The passages that it cites, by marker.")
    status: MessageStatus = Field(description="How far it is. STREAMING: it is being written.")
    created_at: datetime = Field(description="When it was sent, or begun.")

    @classmethod
    def of(cls, row: MessageRow) -> Self:
        shown = {"citations": citations_of(row), "role": row.role.lower()}
        return cls.model_validate(row._asdict() | shown)


class History(BaseModel):
    """Messages in reading order, the newest of the conversation or those before a cursor."""

    session_id: str = Field(description="What the client calls this conversation.")
    messages: list[HistoryMessage] = Field(description="In reading order.")
    previous_cursor: str | None = Field(
        description="For `before`: gives the messages before these. Null: these are the first."
    )


class Cleared(BaseModel):
    """How many messages are gone."""

    deleted: int = Field(description="How many there were.")


class SessionBody(BaseModel):
    """A new conversation."""

    session_id: str | None = Field(default=None, description=f"{SESSION_ID} Left out: one is made.")
    title: str | None = Field(default=None, description="Left out: taken from the first question.")


class TitleBody(BaseModel):
    """Another title."""

    title: str = Field(description="The new title.")


class Session(BaseModel):
    """A conversation."""

    id: UUID = Field(description="Its id, the same in GraphQL.")
    session_id: str = Field(description="What the client calls it: its own key, else the id.")
    title: str | None = Field(description="Its title.")
    message_count: int = Field(description="How many messages it has.")
    created_at: datetime = Field(description="When it was begun.")
    updated_at: datetime = Field(description="When it was last used or renamed.")

    @classmethod
    def of(cls, row: SessionRow, called: str) -> Self:
        return cls.model_validate({**row._asdict(), "session_id": called})


class Sessions(BaseModel):
    """A page of conversations, the one last used first."""

    sessions: list[Session] = Field(description="The one last used first.")
    next_cursor: str | None = Field(description="For `cursor`: gives the next page. Null: no more.")


class DocumentBody(BaseModel):
    """A document to add: from a web address, or a text."""

    url: str | None = Field(default=None, description="A public web address to fetch it from.")
    text: str | None = Field(default=None, description="The text itself, or Markdown.")
    title: str | None = Field(default=None, description="Left out: its own title.")
    visibility: Visibility = Field(default="PRIVATE", description="SHARED is for administrators.")


class Document(BaseModel):
    """A document that the agent can search."""

    id: UUID = Field(description="Its id, the same in GraphQL.")
    title: str = Field(description="Its own title, unless it was given another.")
    source_url: str | None = Field(description="Where it was fetched from.")
    original_filename: str | None = Field(description="The name of the uploaded file.")
    mime_type: str = Field(description="What kind of file it is.")
    checksum: str = Field(description="SHA-256 of its bytes, in hex.")
    byte_size: int = Field(description="How many bytes it has.")
    visibility: Visibility = Field(description="Who may read it.")
    status: IngestionStatus = Field(description="How far it is on its way to being searchable.")
    error: str | None = Field(description="Why it could not be read, for people.")
    chunk_count: int = Field(description="Into how many passages it was split.")
    created_at: datetime = Field(description="When it was added.")
    updated_at: datetime = Field(description="When it was last changed.")

    @classmethod
    def of(cls, row: DocumentRow) -> Self:
        visibility = "SHARED" if row.owner_id is None else "PRIVATE"
        shown = {"visibility": visibility, "status": row.ingestion_status}
        return cls.model_validate(row._asdict() | shown)


class Documents(BaseModel):
    """A page of documents, newest first."""

    documents: list[Document] = Field(description="Newest first.")
    next_cursor: str | None = Field(description="For `cursor`: gives the next page. Null: no more.")


class Health(BaseModel):
    """The process answers."""

    status: Literal["ok"]


class Schema(BaseModel):
    """Migrations of the database."""

    current: str | None = Field(description="The one that it stands at; null: none, or not known.")
    expected: str | None = Field(description="The one that this release needs.")


class Pool(BaseModel):
    """The connections of this process."""

    size: int = Field(description="How many are kept.")
    in_use: int = Field(description="How many are busy.")
    idle: int = Field(description="How many are open and free.")
    overflow: int = Field(description="How many are open beyond those kept.")
    max_overflow: int = Field(description="How many may be.")


class DatabaseHealth(BaseModel):
    """How this process gets on with its database."""

    model_config = ConfigDict(serialize_by_alias=True)

    status: Literal["ok", "down", "behind"] = Field(
        description="`behind`: it answers, but its schema lacks what this release needs."
    )
    reason: str | None = Field(description="The kind of failure, where it is down.")
    latency_ms: float | None = Field(description="How long the question took.")
    # `schema` is a method of pydantic's.
    migration: Schema = Field(alias="schema", description="Where its schema stands.")
    pool: Pool = Field(description="The connections of this process, before the question.")


class Problem(BaseModel):
    """A failure (RFC 9457). Some have members of their own besides these."""

    model_config = ConfigDict(extra="allow")

    title: str = Field(description="What the status means.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What went wrong, for people.")
    code: str = Field(description="What went wrong, for programs.")
    field: str | None = Field(default=None, description="The value that can't be taken.")
    request_id: str = Field(description="Names this request in the server's log.")

    def shown(self) -> dict[str, Any]:
        """Give it as it is sent: without a field where none is to blame."""
        return self.model_dump(mode="json", exclude={"field"} if self.field is None else None)
