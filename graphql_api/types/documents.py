"""Documents and citations."""

from datetime import datetime
from enum import Enum
from typing import Any, Self, cast
from uuid import UUID

import strawberry

from db.documents import DocumentRow
from db.ids import DocumentId
from graphql_api.context import Info
from graphql_api.types.node import Node
from rag import citations


@strawberry.enum(description="How far a document is on its way to being searchable.")
class IngestionStatus(Enum):
    PENDING = strawberry.enum_value("PENDING", description="It waits to be read.")
    PROCESSING = strawberry.enum_value("PROCESSING", description="It is being read.")
    READY = strawberry.enum_value("READY", description="It can be searched.")
    FAILED = strawberry.enum_value("FAILED", description="It can't be read; `error` says why.")


@strawberry.enum(description="Who may read a document.")
class Visibility(Enum):
    PRIVATE = strawberry.enum_value("PRIVATE", description="Only its owner.")
    SHARED = strawberry.enum_value("SHARED", description="Everyone who asks.")


@strawberry.type(description="A document that the agent can search.")
class Document(Node):
    title: str = strawberry.field(description="Its own title, unless it was given another.")
    source_url: str | None = strawberry.field(description="Where it was fetched from.")
    original_filename: str | None = strawberry.field(description="The name of the uploaded file.")
    mime_type: str = strawberry.field(description="What kind of file it is.")
    checksum: str = strawberry.field(description="SHA-256 of its bytes, in hex.")
    byte_size: int = strawberry.field(description="How many bytes it has.")
    error: str | None = strawberry.field(description="Why it could not be read, for people.")
    chunk_count: int = strawberry.field(description="Into how many passages it was split.")
    created_at: datetime = strawberry.field(description="When it was added.")
    updated_at: datetime = strawberry.field(description="When it was last changed.")

    @strawberry.field(description="Who may read it.")
    @staticmethod
    def visibility(root: strawberry.Parent[DocumentRow]) -> Visibility:
        return Visibility.SHARED if root.owner_id is None else Visibility.PRIVATE

    @strawberry.field(description="How far it is on its way to being searchable.")
    @staticmethod
    def status(root: strawberry.Parent[DocumentRow]) -> IngestionStatus:
        return IngestionStatus[root.ingestion_status]

    @classmethod
    def is_type_of(cls, obj: object, _: object) -> bool:
        return isinstance(obj, DocumentRow)

    @classmethod
    def of(cls, row: DocumentRow) -> Self:
        """Let a row stand in for the type."""
        return cast("Self", row)


@strawberry.type(description="A snapshot of a passage as it was read: it outlives its document.")
class Citation:
    marker: int = strawberry.field(
        description="The n of `[n]` in the reply's text; in `searchDocuments` the rank, from 1."
    )
    document_id: strawberry.ID = strawberry.field(description="The document's id.")
    title: str = strawberry.field(description="The document's title.")
    source_url: str | None = strawberry.field(description="Where the document was fetched from.")
    snippet: str = strawberry.field(description="The passage's text, or the beginning of it.")
    score: float = strawberry.field(
        description="How well it matched; higher is better, and only within one search."
    )

    @strawberry.field(description="The document, if it is still there to be read.")
    @staticmethod
    async def document(root: strawberry.Parent[citations.Citation], info: Info) -> Document | None:
        row = await info.context.loaders.document_by_id.load(root.document_id)
        return row and Document.of(row)

    @classmethod
    def of(cls, citation: citations.Citation) -> Self:
        """Let the agent's citation stand in for the type."""
        return cast("Self", citation)

    @classmethod
    def of_stored(cls, snapshot: dict[str, Any]) -> Self:
        """Read a citation as a message holds it."""
        fields = dict(snapshot)
        document_id = DocumentId(UUID(fields.pop("document_id")))
        return cls.of(citations.Citation(document_id=document_id, **fields))
