"""The library: documents that are found, changed and deleted. `intake` takes them in."""

import asyncio
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import contextmanager

import structlog

from db import audit, documents, users
from db.audit import Action, Entity
from db.documents import DocumentFilter, DocumentRow, DuplicateDocument
from db.engine import Database, Transaction
from db.ids import DocumentId, UserId
from db.models import IngestionStatus
from db.pages import Page
from db.viewer import Viewer
from rag.citations import Citation, cite
from rag.ports import IndexUnavailable, VectorIndex
from rag.retrieval import Retrieval
from resolvers.cursors import DOCUMENTS, PageArguments, slice_of
from resolvers.errors import BadRequest, InvalidInput, NotFound, Unavailable
from resolvers.inputs import check_optional_text, check_text, parse_id

log = structlog.get_logger(__name__)

DEFAULT_SEARCH_RESULTS = 5
MAX_SEARCH_RESULTS = 50
PROGRESS_SECONDS = 0.25
"How often a document is looked at while somebody waits for it."
MAX_QUERY_LENGTH = 2_000
"Characters of a search query: a question or two, not a document."


class Library:
    """What can be done with documents. Postgres is the source, the index follows it."""

    def __init__(
        self,
        database: Database,
        retrieval: Retrieval,
        index: VectorIndex,
    ) -> None:
        self._database = database
        self._retrieval = retrieval
        self._index = index

    async def progress(self, viewer: Viewer, id: str) -> AsyncGenerator[DocumentRow]:
        """Give a document each time it has changed, from now to READY or FAILED.

        Raises `NotFound`, also when it is deleted meanwhile.
        """
        document_id, seen = _known(id), None
        while True:
            row = await documents.document(viewer, self._database, document_id)
            if row is None:
                raise NotFound
            if row != seen:
                yield row
                seen = row
            if row.ingestion_status in (IngestionStatus.READY, IngestionStatus.FAILED):
                return
            await asyncio.sleep(PROGRESS_SECONDS)

    async def search(self, viewer: Viewer, query: str, limit: int) -> list[Citation]:
        """Find the best passages; a marker is a rank. Raises `BadRequest`, `Unavailable`."""
        if not 1 <= limit <= MAX_SEARCH_RESULTS:
            raise BadRequest(f"limit is a number from 1 to {MAX_SEARCH_RESULTS}, not {limit}.")
        try:
            check_text(query, "query", at_most=MAX_QUERY_LENGTH, empty=True)
            found = await self._retrieval.search(viewer, query, limit=limit)
        except InvalidInput as error:
            raise BadRequest(f"query: {error}") from error
        except IndexUnavailable as error:
            raise Unavailable("The documents can't be searched at the moment.") from error
        return [cite(rank, passage) for rank, passage in enumerate(found, 1)]

    async def update(
        self,
        viewer: Viewer,
        *,
        id: str,
        title: str | None,
        shared: bool | None,
        request_id: str,
    ) -> DocumentRow:
        """Rename a document, or change who may read it. Raises `NotFound`, `InvalidInput`."""
        check_optional_text(title, "title")
        document_id = _known(id)
        if shared and not viewer.is_admin:
            if await documents.document(viewer, self._database, document_id) is None:
                raise NotFound
            raise InvalidInput("Only administrators share documents with everyone.", "visibility")

        async def change(transaction: Transaction) -> DocumentRow:
            await users.ensure_user(viewer, transaction)
            row = await documents.update_document(
                viewer, transaction, document_id, title=title, shared=shared
            )
            if row is None:
                raise NotFound
            given = {"title": title, "visibility": shared}
            detail = {"fields": [name for name, value in given.items() if value is not None]}
            await audit.record(
                viewer, transaction, Action.UPDATE, Entity.DOCUMENT, row.id, detail, request_id
            )
            return row

        try:
            row = await self._database.transact(change)
        except DuplicateDocument:
            raise InvalidInput("The same document is there already.", "visibility") from None
        if shared is not None:
            await self.follow_moved([row.id], row.owner_id)
        return row

    async def delete(self, viewer: Viewer, *, id: str, request_id: str) -> DocumentId:
        """Delete a document with its passages; what cites it stays. Raises `NotFound`."""
        document_id = _known(id)

        async def delete(transaction: Transaction) -> None:
            if not await documents.delete_document(viewer, transaction, document_id):
                raise NotFound
            await audit.record(
                viewer,
                transaction,
                Action.DELETE,
                Entity.DOCUMENT,
                document_id,
                request_id=request_id,
            )

        await self._database.transact(delete)
        await self.forget([document_id])
        return document_id

    async def follow_moved(self, ids: Sequence[DocumentId], owner_id: UserId | None) -> None:
        """Tell the index who may find documents now; should it be away, the next start does."""
        with _index_may_be_away(ids):
            for id in ids:
                await self._index.set_owner(id, owner_id)

    async def forget(self, ids: Sequence[DocumentId]) -> None:
        """Tell the index that documents are gone; should it be away, the next start does."""
        with _index_may_be_away(ids):
            for id in ids:
                await self._index.remove(id)


@contextmanager
def _index_may_be_away(ids: Sequence[DocumentId]) -> Generator[None]:
    try:
        yield
    except IndexUnavailable as error:
        log.warning("index.behind", document_ids=[str(id) for id in ids], reason=str(error))


async def documents_page(
    viewer: Viewer, database: Database, only: DocumentFilter, asked: PageArguments
) -> Page[DocumentRow]:
    """Give a page of what the viewer may read, newest first. Raises `BadRequest`."""
    return await documents.documents_page(viewer, database, only, slice_of(asked, DOCUMENTS))


def _known(id: str) -> DocumentId:
    document_id = parse_id(id, DocumentId)
    if document_id is None:
        raise NotFound
    return document_id
