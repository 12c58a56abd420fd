"""The job of ingesting a document. The document's row is the job.

Its status, attempts, lease and `run_id` say who works on it, as with a reply: who holds
the `run_id` writes, and a lease that ran out frees it for another. These functions act for
the server, on whosever document; they answer no request.
"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from sqlalchemy import (
    DateTime,
    Integer,
    Interval,
    Text,
    Uuid,
    bindparam,
    case,
    column,
    delete,
    func,
    insert,
    literal,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY

from db.documents import COLUMNS, NAMED, DocumentRow
from db.engine import Database, Reader, Transaction, many, one
from db.ids import ChunkId, DocumentId, RunId, UserId
from db.models import Document, DocumentChunk, DocumentContent, IngestionStatus

MAX_ATTEMPTS = 3
"A document that took its server down this often is not tried again."


class ChunkRow(NamedTuple):
    """A passage, as it is stored. The embedding reference is null where there is none."""

    id: ChunkId
    ordinal: int
    content: str
    heading: str | None
    page: int | None


class Embedding(NamedTuple):
    """What made a document's vectors."""

    model: str
    dimension: int


class IndexedDocument(NamedTuple):
    """What a vector store should hold of a document: nothing certain until it is ready."""

    id: DocumentId
    owner_id: UserId | None
    chunk_count: int
    is_ready: bool


_LEASE = func.statement_timestamp() + bindparam("lease", type_=Interval())
_FREE = or_(
    Document.ingestion_status == literal(IngestionStatus.PENDING.value),
    (Document.ingestion_status == literal(IngestionStatus.PROCESSING.value))
    & (Document.lease_until <= func.statement_timestamp()),
)
_OURS = (Document.run_id == bindparam("run")) & (
    Document.ingestion_status == literal(IngestionStatus.PROCESSING.value)
)
_RELEASED: dict[str, Any] = {
    "run_id": null(),
    "lease_until": null(),
    "updated_at": func.statement_timestamp(),
}

_UNFINISHED = (
    select(*COLUMNS)
    .where(
        Document.ingestion_status.in_(
            [literal(IngestionStatus.PENDING.value), literal(IngestionStatus.PROCESSING.value)]
        )
    )
    .order_by(Document.id)
)
_CLAIM = (
    update(Document)
    .where(NAMED, _FREE, Document.attempts < MAX_ATTEMPTS)
    .values(
        ingestion_status=IngestionStatus.PROCESSING.value,
        attempts=Document.attempts + 1,
        run_id=bindparam("run"),
        lease_until=_LEASE,
        updated_at=func.statement_timestamp(),
    )
    .returning(*COLUMNS)
)
_GIVE_UP = (
    update(Document)
    .where(NAMED, _FREE, Document.attempts >= MAX_ATTEMPTS)
    .values(
        _RELEASED
        | {
            "ingestion_status": IngestionStatus.FAILED.value,
            "error": "The server went away each time it was being read.",
        }
    )
)
_RENEW = update(Document).where(NAMED, _OURS).values(lease_until=_LEASE).returning(Document.id)
_HAND_BACK = (
    update(Document)
    .where(NAMED, _OURS)
    .values(
        _RELEASED
        | {
            "ingestion_status": IngestionStatus.PENDING.value,
            "attempts": Document.attempts - 1,
        }
    )
)
_FINISH = (
    update(Document)
    .where(NAMED, _OURS)
    .values(
        _RELEASED
        | {
            "title": case(
                (
                    Document.title == bindparam("claimed_title"),
                    func.coalesce(
                        bindparam("new_title", type_=Document.title.type), Document.title
                    ),
                ),
                else_=Document.title,
            ),
            "ingestion_status": bindparam("new_status"),
            "error": bindparam("new_error"),
            "chunk_count": bindparam("new_chunk_count", type_=Integer()),
        }
    )
    .returning(*COLUMNS)
)
_CONTENT = select(DocumentContent.data).where(DocumentContent.document_id == bindparam("document"))
_HOLD = select(Document.id).where(NAMED, _OURS).with_for_update(key_share=True)
_FORGET_CHUNKS = delete(DocumentChunk).where(DocumentChunk.document_id == bindparam("document"))
_NEW_CHUNKS = (
    func.unnest(
        bindparam("ids", type_=ARRAY(Uuid())),
        bindparam("ordinals", type_=ARRAY(Integer())),
        bindparam("contents", type_=ARRAY(Text())),
        bindparam("headings", type_=ARRAY(Text())),
        bindparam("pages", type_=ARRAY(Integer())),
    )
    .table_valued(
        column("id", Uuid()),
        column("ordinal", Integer()),
        column("content", Text()),
        column("heading", Text()),
        column("page", Integer()),
    )
    .render_derived(name="new")
)
# Not executemany: asyncpg 0.32 hangs for ever when one is cancelled while it still sends.
_ADD_CHUNKS = insert(DocumentChunk).from_select(
    [
        "document_id",
        *ChunkRow._fields,
        "embedding_model",
        "embedding_dimension",
        "embedded_at",
    ],
    select(
        bindparam("document", type_=Uuid()),
        *(_NEW_CHUNKS.c[name] for name in ChunkRow._fields),
        bindparam("model", type_=Text()),
        bindparam("dimension", type_=Integer()),
        bindparam("embedded_at", type_=DateTime(timezone=True)),
    ),
)
_CHUNKS = (
    select(*(DocumentChunk.__table__.c[name] for name in ChunkRow._fields))
    .where(DocumentChunk.document_id == bindparam("document"))
    .order_by(DocumentChunk.ordinal)
)
_INDEXED = select(
    Document.id,
    Document.owner_id,
    Document.chunk_count,
    Document.ingestion_status == literal(IngestionStatus.READY.value),
).where(Document.ingestion_status != literal(IngestionStatus.FAILED.value))
_BY_IDS = select(*COLUMNS).where(
    Document.id == func.any(bindparam("documents", type_=ARRAY(Document.id.type)))
)
_IS_EMPTY = select(~select(Document.id).exists())


async def unfinished_documents(reader: Reader) -> list[DocumentRow]:
    """Give every document that is not READY or FAILED yet, the oldest first."""
    return await many(reader, DocumentRow, _UNFINISHED, {})


async def has_no_documents(reader: Reader) -> bool:
    """Say whether this is a first start."""
    return bool((await reader.rows(_IS_EMPTY, {}))[0][0])


async def claim_document(
    reader: Reader, id: DocumentId, run_id: RunId, lease: timedelta
) -> DocumentRow | None:
    """Take a document up: PROCESSING, fenced by `run_id`.

    Null: someone else has it, it is done, or it was tried too often (then it is FAILED now).
    """
    values = {"document": id, "run": run_id, "lease": lease}
    claimed = await one(reader, DocumentRow, _CLAIM, values)
    if claimed is None:
        await reader.rows(_GIVE_UP, {"document": id})
    return claimed


async def renew_document(reader: Reader, id: DocumentId, run_id: RunId, lease: timedelta) -> bool:
    """Keep a document that is being read. False: it is no longer ours."""
    values = {"document": id, "run": run_id, "lease": lease}
    return bool(await reader.rows(_RENEW, values))


async def hand_back_document(reader: Reader, id: DocumentId, run_id: RunId) -> None:
    """Let go of a document unread, as if it had not been tried: the server is going down."""
    await reader.rows(_HAND_BACK, {"document": id, "run": run_id})


async def document_bytes(reader: Reader, id: DocumentId) -> bytes | None:
    """Give a document's bytes. Null: it was deleted."""
    found = await reader.rows(_CONTENT, {"document": id})
    return bytes(found[0][0]) if found else None


async def replace_chunks(
    database: Database,
    id: DocumentId,
    run_id: RunId,
    chunks: Sequence[ChunkRow],
    embedding: Embedding | None,
) -> bool:
    """Store a document's passages in place of those it had. False: it is no longer ours."""
    columns = zip(*chunks, strict=True) if chunks else ((),) * len(ChunkRow._fields)
    values = {
        f"{name}s": list(values) for name, values in zip(ChunkRow._fields, columns, strict=True)
    }
    reference = {
        "model": embedding and embedding.model,
        "dimension": embedding and embedding.dimension,
        "embedded_at": embedding and datetime.now(UTC),
    }

    async def replace(transaction: Transaction) -> bool:
        if not await transaction.rows(_HOLD, {"document": id, "run": run_id}):
            return False
        await transaction.rows(_FORGET_CHUNKS, {"document": id})
        await transaction.rows(_ADD_CHUNKS, {"document": id, **values, **reference})
        return True

    return await database.transact(replace, idempotent=True)


async def finish_document(
    reader: Reader,
    document: DocumentRow,
    run_id: RunId,
    *,
    chunk_count: int,
    title: str | None = None,
    error: str | None = None,
) -> DocumentRow | None:
    """End the job of a claimed document: READY, or FAILED with a reason for people.

    Its own `title` is taken unless somebody has renamed it since it was claimed. Null: it is
    no longer ours.
    """
    status = IngestionStatus.READY if error is None else IngestionStatus.FAILED
    values = {
        "document": document.id,
        "claimed_title": document.title,
        "run": run_id,
        "new_status": status.value,
        "new_error": error,
        "new_title": title,
        "new_chunk_count": chunk_count,
    }
    return await one(reader, DocumentRow, _FINISH, values)


async def chunks_of(reader: Reader, id: DocumentId) -> list[ChunkRow]:
    """Give a document's passages in order."""
    return await many(reader, ChunkRow, _CHUNKS, {"document": id})


async def indexed_documents(reader: Reader) -> list[IndexedDocument]:
    """Say what a vector store should hold."""
    return await many(reader, IndexedDocument, _INDEXED, {})


async def documents_under_way(reader: Reader, ids: list[DocumentId]) -> list[DocumentRow]:
    """Give the documents of those ids, for whoever waits until they are done."""
    return await many(reader, DocumentRow, _BY_IDS, {"documents": ids})
