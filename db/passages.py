"""Passages: chunks of documents, read again as the viewer who searched for them.

A vector store only says which chunks to look at. What is shown is what Postgres lets the
viewer read at that moment.
"""

from typing import NamedTuple

from sqlalchemy import bindparam, func, literal, or_, select
from sqlalchemy.dialects.postgresql import ARRAY

from db.engine import Reader, many
from db.ids import ChunkId, DocumentId
from db.models import Document, DocumentChunk, IngestionStatus
from db.viewer import Viewer


class PassageRow(NamedTuple):
    """A chunk with what is shown of its document."""

    id: ChunkId
    document_id: DocumentId
    title: str
    source_url: str | None
    heading: str | None
    page: int | None
    content: str


_BY_IDS = (
    select(
        DocumentChunk.id,
        DocumentChunk.document_id,
        Document.title,
        Document.source_url,
        DocumentChunk.heading,
        DocumentChunk.page,
        DocumentChunk.content,
    )
    .join(Document, Document.id == DocumentChunk.document_id)
    .where(
        DocumentChunk.id == func.any(bindparam("chunks", type_=ARRAY(DocumentChunk.id.type))),
        or_(Document.owner_id == bindparam("viewer"), Document.owner_id.is_(None)),
        Document.ingestion_status == literal(IngestionStatus.READY.value),
    )
)


async def passages_by_id(
    viewer: Viewer, reader: Reader, ids: list[ChunkId]
) -> dict[ChunkId, PassageRow]:
    """Give those of the chunks whose documents the viewer may read."""
    found = await many(reader, PassageRow, _BY_IDS, {"viewer": viewer.user_id, "chunks": ids})
    return {row.id: row for row in found}
