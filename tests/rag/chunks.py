"""Chunks to put into an index, and what a search finds of them."""

from uuid import uuid4

from db.ids import ChunkId, DocumentId, UserId
from db.viewer import Viewer
from rag.ports import IndexedChunk, VectorIndex

ALICE = Viewer(UserId(uuid4()))
BOB = Viewer(UserId(uuid4()))


def chunk(
    content: str,
    *,
    owner: Viewer | None = ALICE,
    document_id: DocumentId | None = None,
    title: str = "Untitled",
    heading: str | None = None,
    vector: list[float] | None = None,
) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=ChunkId(uuid4()),
        document_id=document_id or DocumentId(uuid4()),
        owner_id=owner.user_id if owner else None,
        title=title,
        source_url=None,
        heading=heading,
        page=None,
        content=content,
        vector=vector,
    )


async def found(index: VectorIndex, viewer: Viewer, query: str, limit: int = 10) -> set[ChunkId]:
    return {hit.chunk_id for hit in await index.search(viewer, query, None, limit=limit)}
