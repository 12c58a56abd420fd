"""Ingestion: from a document's bytes to passages that can be found.

    bytes ──► extract ──► split ──► embed ──► Postgres (chunks) ──► vector index ──► READY

The document's row is the job (`db.ingestion`): it is claimed under a lease, renewed while
it is worked on, and ends READY or FAILED with a reason for people. Nothing polls: work is
taken up when a document is added, and at start.
"""

import asyncio
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

import structlog

from db import ingestion as jobs
from db.documents import DocumentRow
from db.engine import Database
from db.errors import DatabaseUnavailable
from db.ids import ChunkId, DocumentId, RunId, UserId, new_id
from db.ingestion import ChunkRow, Embedding
from rag.extraction import Extracted, ExtractionError, extract
from rag.ports import Embedder, EmbedderUnavailable, IndexedChunk, IndexUnavailable, VectorIndex
from rag.splitting import Chunk, split

log = structlog.get_logger(__name__)

WORKERS = 2
"Documents read at once: reading is work for the processor, and requests need it too."
EMBED_BATCH = 64
"Chunks embedded by one request; providers take some hundred, and small ones fail cheaply."
BREAKS_BORNE = 8
"""Of the database, for one document, which the next start takes up then: what breaks it off each
time, because it takes too long, must not do so for ever."""
FIRST_PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 0.5, 30.0
"How long a database that broke off is left alone."
MAX_TITLE_CHARS = 200
"Of a title that is made of a file's name."
CLOCK_SKEW = timedelta(seconds=1)
"How far this machine's clock may be ahead of the database's when a lease is waited for."


class Ingestion:
    """Reads documents in the background, and keeps the index in step with Postgres."""

    def __init__(
        self,
        database: Database,
        index: VectorIndex,
        embedder: Embedder | None,
        *,
        lease: timedelta,
    ) -> None:
        self._database = database
        self._index = index
        self._embedder = embedder
        self._lease = lease
        self._free_worker = asyncio.Semaphore(WORKERS)
        self._tasks: dict[DocumentId, asyncio.Task[None]] = {}

    def take_up(self, id: DocumentId, not_before: datetime | None = None) -> asyncio.Task[None]:
        """Read a document in the background; the task is done when its row says how it went."""
        present = self._tasks.get(id)
        if present is not None and not present.done():
            return present
        task = asyncio.create_task(self._work(id, not_before), name=f"ingest {id}")
        self._tasks[id] = task
        task.add_done_callback(lambda _: self._tasks.pop(id, None))
        return task

    async def take_up_unfinished(self) -> None:
        """Go on with what an earlier server left: at once, or when its lease has run out."""
        for row in await jobs.unfinished_documents(self._database):
            self.take_up(row.id, row.lease_until)

    async def fill_index(self) -> None:
        """Give the index what it lacks of Postgres' chunks, and take away what is gone there.

        Raises `IndexUnavailable`, `DatabaseUnavailable`.
        """
        held = await self._index.holdings()
        for document in await jobs.indexed_documents(self._database):
            holding = held.pop(document.id, None)
            if not document.is_ready:
                continue  # whoever reads it sees to it
            if holding is None or holding.chunk_count != document.chunk_count:
                await self._reindex(document.id)
            elif holding.owner_id != document.owner_id:
                await self._index.set_owner(document.id, document.owner_id)
        for gone in held:
            await self._index.remove(gone)

    async def close(self) -> None:
        """Stop reading; what is under way is handed back unread."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _work(self, id: DocumentId, not_before: datetime | None) -> None:
        if not_before is not None:
            await asyncio.sleep((not_before + CLOCK_SKEW - datetime.now(UTC)).total_seconds())
        async with self._free_worker:
            for _ in range(BREAKS_BORNE):
                if await self._attempt(id):
                    return

    async def _attempt(self, id: DocumentId) -> bool:
        """Read a document, unless somebody else does. False: the database broke off meanwhile."""
        run_id = RunId(new_id())
        try:
            document = await jobs.claim_document(self._database, id, run_id, self._lease)
            if document is not None:
                async with self._kept(id, run_id):
                    await self._ingest(document, run_id)
            return True
        except DatabaseUnavailable as error:
            log.warning("ingestion.suspended", document_id=str(id), reason=str(error))
        except asyncio.CancelledError:
            await asyncio.shield(jobs.hand_back_document(self._database, id, run_id))
            raise
        await self._hand_back(id, run_id)
        return False

    async def _hand_back(self, id: DocumentId, run_id: RunId) -> None:
        """Hand a document back unread, as soon as the database takes it.

        Should we be told to stop before that, the lease frees it, and the next start takes it up.
        """
        for pause in _pauses():
            await asyncio.sleep(pause)
            try:
                return await jobs.hand_back_document(self._database, id, run_id)
            except DatabaseUnavailable:
                continue

    @asynccontextmanager
    async def _kept(self, id: DocumentId, run_id: RunId) -> AsyncGenerator[None]:
        """Renew the lease for as long as the block runs."""

        async def renew() -> None:
            while True:
                await asyncio.sleep(self._lease.total_seconds() / 3)
                await jobs.renew_document(self._database, id, run_id, self._lease)

        renewing = asyncio.create_task(renew())
        try:
            yield
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)

    async def _ingest(self, document: DocumentRow, run_id: RunId) -> None:
        title, count, reason = None, 0, None
        try:
            extracted, chunks = await self._read(document)
            if document.title == default_title(document.original_filename, document.source_url):
                title = extracted.title
            rows = [ChunkRow(ChunkId(new_id()), *_described(chunk)) for chunk in chunks]
            shown = document._replace(title=title or document.title)
            points = await self._points(shown, rows)
            if not await jobs.replace_chunks(
                self._database, document.id, run_id, rows, self._embedding()
            ):
                return  # deleted, or no longer ours
            await self._index.remove(document.id)
            await self._index.put(points)
            count = len(rows)
        except ExtractionError as error:
            reason = str(error)
        except EmbedderUnavailable:
            reason = "The embedding model can't be reached. Add it again later."
        except IndexUnavailable:
            reason = "The search index can't be reached. Add it again later."
        except DatabaseUnavailable:
            raise
        except Exception:
            log.exception("ingestion.failed", document_id=str(document.id))
            reason = "Something went wrong on our side while reading it."
        finished = await jobs.finish_document(
            self._database, document, run_id, chunk_count=count, title=title, error=reason
        )
        if finished is None:
            await self._index.remove(document.id)
        elif finished.owner_id != document.owner_id:
            await self._index.set_owner(document.id, finished.owner_id)

    async def _read(self, document: DocumentRow) -> tuple[Extracted, list[Chunk]]:
        data = await jobs.document_bytes(self._database, document.id)

        def read() -> tuple[Extracted, list[Chunk]]:
            extracted = extract(data or b"", document.mime_type)
            return extracted, split(extracted)

        return await asyncio.to_thread(read)

    async def _reindex(self, id: DocumentId) -> None:
        """Put a READY document's stored chunks into the index again."""
        found = await jobs.documents_under_way(self._database, [id])
        rows = await jobs.chunks_of(self._database, id)
        if found:
            points = await self._points(found[0], rows)
            await self._index.remove(id)
            await self._index.put(points)
            if not await jobs.documents_under_way(self._database, [id]):
                await self._index.remove(id)  # deleted meanwhile

    async def _points(self, document: DocumentRow, rows: Sequence[ChunkRow]) -> list[IndexedChunk]:
        vectors = await self._embedded(document.title, rows)
        return [
            _point(document, document.owner_id, row, vector)
            for row, vector in zip(rows, vectors, strict=True)
        ]

    async def _embedded(
        self, title: str, rows: Sequence[ChunkRow]
    ) -> Sequence[Sequence[float] | None]:
        if self._embedder is None:
            return [None] * len(rows)
        texts = ["\n".join(filter(None, (title, row.heading, row.content))) for row in rows]
        vectors: list[list[float]] = []
        for start in range(0, len(texts), EMBED_BATCH):
            vectors += await self._embedder.embed(texts[start : start + EMBED_BATCH])
        return vectors

    def _embedding(self) -> Embedding | None:
        embedder = self._embedder
        return Embedding(embedder.model, embedder.dimension) if embedder else None


def _pauses() -> Iterator[float]:
    """Give how long to wait before each try, in seconds: for longer and longer."""
    pause = FIRST_PAUSE_SECONDS
    while True:
        yield pause
        pause = min(2 * pause, LONGEST_PAUSE_SECONDS)


def default_title(filename: str | None, url: str | None) -> str:
    """Name a document that nobody named, until its own title is read."""
    path = urlsplit(url).path if url else filename or ""
    name = PurePosixPath(unquote(path.replace("\\", "/"))).name
    # Unquoted, it may hold what no check has seen: %00, for one.
    name = "".join(filter(str.isprintable, name))[:MAX_TITLE_CHARS]
    return name or (urlsplit(url).hostname if url else None) or "Untitled"


def _described(chunk: Chunk) -> tuple[int, str, str | None, int | None]:
    return chunk.ordinal, chunk.content, chunk.heading, chunk.page


def _point(
    document: DocumentRow,
    owner_id: UserId | None,
    row: ChunkRow,
    vector: Sequence[float] | None,
) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=row.id,
        document_id=document.id,
        owner_id=owner_id,
        title=document.title,
        source_url=document.source_url,
        heading=row.heading,
        page=row.page,
        content=row.content,
        vector=vector,
    )
