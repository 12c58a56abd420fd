"""How a chunk is kept in a vector store: the format that both adapters share.

A point's id is its chunk's. Its vectors are `text` (BM25, see `rag.bm25`) and, with an
embedder, `dense` (cosine). Its payload is `Payload`.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, TypedDict, TypeVar
from uuid import UUID

from db.ids import ChunkId, DocumentId, UserId
from rag.ports import Holding, IndexedChunk, Passage

FORMAT: Final = 2
"Goes up when points of before can't be searched with queries of now (tokens, payload)."

TEXT: Final = "text"
DENSE: Final = "dense"

EVERYONE: Final = "shared"
"The owner of chunks that all may find."

FILTERED_FIELDS: Final = ("owner", "document_id", "stamp")
"Payload fields with a keyword index: what searches filter by, and what `holdings` counts."

RRF_K: Final = 60
# Cormack, Clarke, Büttcher 2009. Always said: the defaults of engine and client differ.

_CANDIDATES_MIN = 50
# Fewer starve the fusion: what both rankings have in 20th place beats a first of one alone.

Item = TypeVar("Item")


class Owned(TypedDict):
    """The part of a payload that says whose it is: all that `set_owner` rewrites.

    `owner` is a user's id or `shared`. `stamp` is `document_id:owner`, one value whose exact
    facet counts every document's chunks by owner in one request.
    """

    owner: str
    stamp: str


class Payload(Owned):
    """What stands beside a point's vectors."""

    document_id: str
    title: str
    source_url: str | None
    heading: str | None
    page: int | None
    content: str


def owner_key(owner_id: UserId | None) -> str:
    """Name an owner as payloads do."""
    return EVERYONE if owner_id is None else str(owner_id)


def readable_owners(user_id: UserId) -> list[str]:
    """List the owners whose chunks a user may find."""
    return [owner_key(user_id), EVERYONE]


def owned(document_id: DocumentId, owner_id: UserId | None) -> Owned:
    owner = owner_key(owner_id)
    return {"owner": owner, "stamp": f"{document_id}:{owner}"}


def payload(chunk: IndexedChunk) -> Payload:
    return {
        **owned(chunk.document_id, chunk.owner_id),
        "document_id": str(chunk.document_id),
        "title": chunk.title,
        "source_url": chunk.source_url,
        "heading": chunk.heading,
        "page": chunk.page,
        "content": chunk.content,
    }


def shared_passages(
    found: Iterable[tuple[ChunkId, float, Mapping[str, Any] | None]],
) -> list[Passage]:
    """Read passages off the payloads of points (id, score, payload), those that all may read."""
    return [
        Passage(
            chunk_id=chunk_id,
            document_id=DocumentId(UUID(held["document_id"])),
            title=held["title"],
            source_url=held.get("source_url"),
            heading=held.get("heading"),
            page=held.get("page"),
            content=held["content"],
            score=score,
        )
        for chunk_id, score, held in found
        # The search was filtered so already; what nobody reads again is looked at twice.
        if held is not None and held["owner"] == EVERYONE
    ]


def indexed_text(chunk: IndexedChunk) -> str:
    """Join what is searched: titles and headings carry words that the content takes for granted.

    The title stands in it twice, which is how BM25F (Robertson, Zaragoza, Taylor 2004) gives a
    field a weight of two.
    """
    return "\n".join(filter(None, (chunk.title, chunk.title, chunk.heading, chunk.content)))


def candidates(limit: int) -> int:
    """Say how many chunks each ranking gives to the fusion."""
    return max(_CANDIDATES_MIN, 3 * limit)


def holdings(stamps: Iterable[tuple[str, int]]) -> dict[DocumentId, Holding]:
    """Read the facet of `stamp`, in which the embedded engine lists what is gone with a count of 0.

    A document whose `set_owner` was cut off has two stamps. One of them is given, with its
    own count, which is less than the document's chunks: so the caller sees that it lacks some.
    """
    held: dict[DocumentId, Holding] = {}
    for stamp, count in stamps:
        if count == 0:
            continue
        document_id, _, owner = stamp.partition(":")
        owner_id = None if owner == owner_key(None) else UserId(UUID(owner))
        held[DocumentId(UUID(document_id))] = Holding(owner_id, count)
    return held


def batches(items: Sequence[Item], size: int) -> Iterator[Sequence[Item]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]
