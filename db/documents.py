"""Documents, read and changed as their viewer.

Readers see their own documents and the shared ones (`owner_id` null); writers change
their own, and administrators the shared ones too. The job of ingesting one is in
`db.ingestion`.
"""

from datetime import datetime
from functools import cache
from typing import Any, NamedTuple

from sqlalchemy import (
    ColumnElement,
    bindparam,
    delete,
    false,
    func,
    null,
    or_,
    select,
    update,
)
from sqlalchemy.dialects.postgresql import ARRAY, insert
from sqlalchemy.exc import IntegrityError

from db.engine import AnySelect, Database, Reader, Transaction, many, one
from db.ids import DocumentId, UserId, new_id
from db.models import Document, DocumentContent, IngestionStatus
from db.pages import Page, Slice, keyset, page
from db.viewer import Viewer


class DuplicateDocument(Exception):
    """The owner has a document of the same bytes already."""


class DocumentRow(NamedTuple):
    """A document, as it is read."""

    id: DocumentId
    owner_id: UserId | None
    title: str
    source_url: str | None
    original_filename: str | None
    mime_type: str
    checksum: str
    byte_size: int
    ingestion_status: str
    error: str | None
    chunk_count: int
    attempts: int
    lease_until: datetime | None
    created_at: datetime
    updated_at: datetime


class NewDocument(NamedTuple):
    """A document to be stored. `checksum` is the SHA-256 of `data` in hex."""

    title: str
    source_url: str | None
    original_filename: str | None
    mime_type: str
    checksum: str
    data: bytes


class DocumentFilter(NamedTuple):
    """Which documents are wanted; null: any."""

    status: str | None = None
    checksum: str | None = None
    source_url: str | None = None


COLUMNS = [Document.__table__.c[name] for name in DocumentRow._fields]
_READABLE = or_(Document.owner_id == bindparam("viewer"), Document.owner_id.is_(None))
NAMED = Document.id == bindparam("document")

_OF_VIEWER = select(*COLUMNS).where(_READABLE)
_BY_IDS = _OF_VIEWER.where(
    Document.id == func.any(bindparam("documents", type_=ARRAY(Document.id.type)))
)
_OF_OWNER = select(*COLUMNS).where(
    Document.owner_id.is_not_distinct_from(bindparam("owner", type_=Document.owner_id.type)),
    Document.checksum == bindparam("of_checksum"),
)
_ADD = insert(Document).on_conflict_do_nothing().returning(*COLUMNS)
_ADD_CONTENT = insert(DocumentContent)
_RETRY = (
    update(Document)
    .where(NAMED, Document.ingestion_status == IngestionStatus.FAILED.value)
    .values(
        ingestion_status=IngestionStatus.PENDING.value,
        error=null(),
        attempts=0,
        updated_at=func.now(),
    )
    .returning(*COLUMNS)
)


def _changeable(viewer: Viewer) -> ColumnElement[bool]:
    """Say which documents the viewer may change: their own, and as administrator the shared."""
    shared = Document.owner_id.is_(None) if viewer.is_admin else false()
    return or_(Document.owner_id == bindparam("viewer"), shared)


async def documents_by_id(
    viewer: Viewer, reader: Reader, ids: list[DocumentId]
) -> dict[DocumentId, DocumentRow]:
    """Give those of the documents that the viewer may read."""
    values = {"viewer": viewer.user_id, "documents": ids}
    return {row.id: row for row in await many(reader, DocumentRow, _BY_IDS, values)}


async def document(viewer: Viewer, reader: Reader, id: DocumentId) -> DocumentRow | None:
    """Give one document that the viewer may read."""
    return (await documents_by_id(viewer, reader, [id])).get(id)


@cache
def _filtered(shape: tuple[bool, ...]) -> tuple[AnySelect, AnySelect]:
    """Make the statements that list and count documents, by which filters are given."""
    columns = (Document.ingestion_status, Document.checksum, Document.source_url)
    conditions = [
        column == bindparam(f"wanted_{name}")
        for column, name, given in zip(columns, DocumentFilter._fields, shape, strict=True)
        if given
    ]
    count: AnySelect = select(func.count()).select_from(Document)
    return _OF_VIEWER.where(*conditions), count.where(_READABLE, *conditions)


def _filter_values(viewer: Viewer, only: DocumentFilter) -> dict[str, Any]:
    given = {f"wanted_{name}": value for name, value in only._asdict().items() if value is not None}
    return {"viewer": viewer.user_id, **given}


async def documents_page(
    viewer: Viewer, database: Database, only: DocumentFilter, wanted: Slice
) -> Page[DocumentRow]:
    """Give a page of the documents that the viewer may read, newest first. Key: `id`."""
    listed, _ = _filtered(tuple(value is not None for value in only))
    statement = keyset(listed, (Document.id.expression,), wanted, descending=True)
    values = _filter_values(viewer, only) | wanted.values
    return page(await many(database, DocumentRow, statement, values), wanted)


async def document_count(viewer: Viewer, reader: Reader, only: DocumentFilter) -> int:
    """Count the documents that the viewer may read."""
    _, count = _filtered(tuple(value is not None for value in only))
    return (await reader.rows(count, _filter_values(viewer, only)))[0][0]


async def add_document(
    viewer: Viewer, transaction: Transaction, new: NewDocument, *, shared: bool
) -> tuple[DocumentRow, bool]:
    """Store a document and its bytes as PENDING; the same bytes again are the same document.

    The flag says whether there is work to do: not for one that is there, unless it had FAILED,
    which asks for another try.
    """
    owner = _owner(viewer, shared=shared)
    described = new._asdict()
    data = described.pop("data")
    row = {"id": new_id(), "owner_id": owner, "byte_size": len(data), **described}
    while True:  # again only if the document that was in the way is deleted meanwhile
        added = await one(transaction, DocumentRow, _ADD, row)
        if added is not None:
            await transaction.rows(_ADD_CONTENT, {"document_id": added.id, "data": data})
            return added, True
        present = await equal_document(viewer, transaction, new, shared=shared)
        if present is not None:
            retried = await one(transaction, DocumentRow, _RETRY, {"document": present.id})
            return retried or present, retried is not None


async def equal_document(
    viewer: Viewer, reader: Reader, new: NewDocument, *, shared: bool
) -> DocumentRow | None:
    """Give the viewer's document (the shared one, if `shared`) of the same bytes."""
    values = {"owner": _owner(viewer, shared=shared), "of_checksum": new.checksum}
    return await one(reader, DocumentRow, _OF_OWNER, values)


def _owner(viewer: Viewer, *, shared: bool) -> UserId | None:
    return None if shared else viewer.user_id


async def update_document(
    viewer: Viewer,
    transaction: Transaction,
    id: DocumentId,
    *,
    title: str | None,
    shared: bool | None,
) -> DocumentRow | None:
    """Change what is given. Null: not there, or not the viewer's to change.

    Raises `DuplicateDocument` where the new owner has the same bytes already.
    """
    changes: dict[str, Any] = {"updated_at": func.now()}
    if title is not None:
        changes["title"] = title
    if shared is not None:
        changes["owner_id"] = None if shared else viewer.user_id
    statement = (
        update(Document).where(NAMED, _changeable(viewer)).values(changes).returning(*COLUMNS)
    )
    try:
        values = {"viewer": viewer.user_id, "document": id}
        return await one(transaction, DocumentRow, statement, values)
    except IntegrityError as error:
        raise DuplicateDocument from error


async def delete_document(viewer: Viewer, transaction: Transaction, id: DocumentId) -> bool:
    """Delete a document with its bytes and chunks. False: not the viewer's to delete."""
    statement = delete(Document).where(NAMED, _changeable(viewer)).returning(Document.id)
    return bool(await transaction.rows(statement, {"viewer": viewer.user_id, "document": id}))
