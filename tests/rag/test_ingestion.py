"""Ingestion: what is left by a crash is taken up, and the index follows Postgres."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from pathlib import Path

import pytest
from sqlalchemy import select, text

from db import ingestion as jobs
from db.documents import DocumentRow, delete_document, document
from db.engine import Database
from db.ids import DocumentId, RunId, UserId, new_id
from db.models import DocumentChunk, IngestionStatus
from db.viewer import Viewer
from rag.edge_index import EdgeIndex
from rag.ingestion import Ingestion
from rag.ports import EmbedderUnavailable, Holding, IndexedChunk, IndexUnavailable
from tests.factories import EXPIRED, make_document, make_user, make_viewer

LEASE = timedelta(seconds=30)
HARBOUR = "# The harbour\n\nThe harbour closes at nine.\n"


class Away:
    """An embedder, or an index's `put`, that is not there."""

    model = "test-embedding"
    dimension = 3

    async def open(self) -> None:
        pass

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        raise EmbedderUnavailable("no connection")

    async def close(self) -> None:
        pass


@pytest.fixture
async def index(quick_folder: Path) -> AsyncGenerator[EdgeIndex]:
    index = EdgeIndex(quick_folder / "index", None)
    await index.open()
    yield index
    await index.close()


@pytest.fixture
async def ingestion(database: Database, index: EdgeIndex) -> AsyncGenerator[Ingestion]:
    ingestion = Ingestion(database, index, None, lease=LEASE)
    yield ingestion
    await ingestion.close()


async def read(ingestion: Ingestion) -> None:
    """Wait until everything that was taken up has been read."""
    await asyncio.gather(*ingestion._tasks.values())


async def row(database: Database, id: DocumentId) -> DocumentRow:
    [found] = await jobs.documents_under_way(database, [id])
    return found


async def found(index: EdgeIndex, viewer: Viewer, query: str = "harbour") -> int:
    return len(await index.search(viewer, query, None, limit=10))


# --- what an earlier server left ------------------------------------------------------


async def test_what_was_not_begun_is_read_at_start(
    database: Database, index: EdgeIndex, ingestion: Ingestion
):
    owner = make_viewer()
    id = await make_document(database, owner=owner, content=HARBOUR, status=IngestionStatus.PENDING)
    await ingestion.take_up_unfinished()
    await read(ingestion)
    done = await row(database, id)
    assert (done.ingestion_status, done.chunk_count, done.attempts) == ("READY", 1, 1)
    assert await found(index, owner) == 1


async def test_what_a_dead_server_was_reading_is_read_at_start(
    database: Database, index: EdgeIndex, ingestion: Ingestion
):
    owner = make_viewer()
    id = await make_document(
        database,
        owner=owner,
        content=HARBOUR,
        status=IngestionStatus.PROCESSING,
        attempts=1,
        lease=timedelta(seconds=-10),
        chunks=["What the dead server had stored."],
    )
    await ingestion.take_up_unfinished()
    await read(ingestion)
    done = await row(database, id)
    assert (done.ingestion_status, done.chunk_count, done.attempts) == ("READY", 1, 2)
    [chunk] = await jobs.chunks_of(database, id)
    assert "closes at nine" in chunk.content


async def test_what_another_server_reads_is_left_to_it(database: Database, ingestion: Ingestion):
    id = await make_document(database, owner=None, status=IngestionStatus.PROCESSING)
    before = await row(database, id)
    await ingestion.take_up(id)
    assert await row(database, id) == before


async def test_what_took_its_server_down_three_times_has_failed(
    database: Database, ingestion: Ingestion
):
    id = await make_document(
        database, owner=None, status=IngestionStatus.PROCESSING, attempts=3, lease=EXPIRED
    )
    await ingestion.take_up(id)
    failed = await row(database, id)
    assert failed.ingestion_status == "FAILED"
    assert failed.error == "The server went away each time it was being read."


async def test_a_server_that_closes_hands_back_what_it_had_not_read(
    database: Database, index: EdgeIndex, monkeypatch: pytest.MonkeyPatch
):
    ingestion = Ingestion(database, index, None, lease=LEASE)
    begun = asyncio.Event()

    async def endless(*_: object) -> bytes:
        begun.set()
        await asyncio.Event().wait()
        return b""

    monkeypatch.setattr("db.ingestion.document_bytes", endless)
    id = await make_document(database, owner=None, status=IngestionStatus.PENDING)
    ingestion.take_up(id)
    await begun.wait()
    assert (await row(database, id)).ingestion_status == "PROCESSING"
    await ingestion.close()
    handed_back = await row(database, id)
    assert (handed_back.ingestion_status, handed_back.attempts) == ("PENDING", 0)
    assert handed_back.lease_until is None


async def test_two_servers_read_a_document_once(database: Database, index: EdgeIndex):
    servers = [Ingestion(database, index, None, lease=LEASE) for _ in range(2)]
    id = await make_document(database, owner=None, content=HARBOUR, status=IngestionStatus.PENDING)
    await asyncio.gather(*(server.take_up(id) for server in servers))
    await asyncio.gather(*(read(server) for server in servers))
    done = await row(database, id)
    assert (done.ingestion_status, done.attempts) == ("READY", 1)


# --- what lies outside is away --------------------------------------------------------


async def test_without_the_embedder_a_document_fails_with_a_reason(
    database: Database, index: EdgeIndex
):
    ingestion = Ingestion(database, index, Away(), lease=LEASE)
    id = await make_document(database, owner=None, status=IngestionStatus.PENDING)
    await ingestion.take_up(id)
    failed = await row(database, id)
    assert failed.ingestion_status == "FAILED"
    assert failed.error == "The embedding model can't be reached. Add it again later."


async def test_without_the_index_a_document_fails_and_is_not_found(
    database: Database, index: EdgeIndex, ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    async def away(_: Sequence[IndexedChunk]) -> None:
        raise IndexUnavailable("no connection")

    monkeypatch.setattr(index, "put", away)
    id = await make_document(database, owner=None, status=IngestionStatus.PENDING)
    await ingestion.take_up(id)
    failed = await row(database, id)
    assert failed.ingestion_status == "FAILED"
    assert failed.error == "The search index can't be reached. Add it again later."
    assert await index.holdings() == {}


# --- deleted meanwhile ----------------------------------------------------------------


async def delete(database: Database, owner: Viewer, id: DocumentId) -> None:
    async with database.transaction() as transaction:
        assert await delete_document(owner, transaction, id)


@pytest.mark.parametrize("stage", ["extracting", "indexing"])
async def test_a_document_deleted_while_it_is_read_leaves_nothing(
    stage: str,
    database: Database,
    index: EdgeIndex,
    ingestion: Ingestion,
    monkeypatch: pytest.MonkeyPatch,
):
    owner = make_viewer()
    id = await make_document(database, owner=owner, content=HARBOUR, status=IngestionStatus.PENDING)
    if stage == "extracting":
        stored = jobs.document_bytes

        async def bytes_(reader: Database, id: DocumentId) -> bytes | None:
            data = await stored(reader, id)
            await delete(database, owner, id)
            return data

        monkeypatch.setattr("db.ingestion.document_bytes", bytes_)
    else:
        put = index.put

        async def put_(chunks: Sequence[IndexedChunk]) -> None:
            await delete(database, owner, id)
            await put(chunks)

        monkeypatch.setattr(index, "put", put_)
    await ingestion.take_up(id)
    assert await document(owner, database, id) is None
    assert await index.holdings() == {}
    assert await database.rows(select(DocumentChunk.id), {}) == []


async def test_a_document_shared_while_it_is_read_is_found_by_everyone(
    database: Database, index: EdgeIndex, ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    put = index.put

    async def put_(chunks: Sequence[IndexedChunk]) -> None:
        await database.rows(text("UPDATE documents SET owner_id = NULL"), {})
        await put(chunks)

    monkeypatch.setattr(index, "put", put_)
    id = await make_document(
        database, owner=make_viewer(), content=HARBOUR, status=IngestionStatus.PENDING
    )
    await ingestion.take_up(id)
    assert await index.holdings() == {id: Holding(None, 1)}
    assert await found(index, make_viewer()) == 1


# --- the index follows Postgres -------------------------------------------------------


async def make_ready(database: Database, owner: Viewer | None, *chunks: str) -> DocumentId:
    return await make_document(database, owner=owner, chunks=chunks or ("The harbour closes.",))


async def test_an_emptied_index_is_filled_from_postgres(
    database: Database, index: EdgeIndex, ingestion: Ingestion
):
    owner = make_viewer()
    own = await make_ready(database, owner, "The harbour closes.", "The harbour opens.")
    shared = await make_ready(database, None)
    await ingestion.fill_index()
    assert await index.holdings() == {
        own: Holding(owner.user_id, 2),
        shared: Holding(None, 1),
    }
    assert await found(index, owner) == 3
    assert await found(index, make_viewer()) == 1


async def test_what_is_there_is_not_indexed_again(
    database: Database, index: EdgeIndex, ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    await make_ready(database, make_viewer())
    await ingestion.fill_index()
    monkeypatch.delattr(EdgeIndex, "put")
    await ingestion.fill_index()


async def test_a_document_that_lacks_passages_is_indexed_again(
    database: Database, index: EdgeIndex, ingestion: Ingestion
):
    owner = make_viewer()
    id = await make_ready(database, owner, "One", "Two", "Three")
    await index.put([indexed(id, owner.user_id)])
    await ingestion.fill_index()
    assert await index.holdings() == {id: Holding(owner.user_id, 3)}


def indexed(document: DocumentId, owner: UserId | None) -> IndexedChunk:
    return IndexedChunk(
        chunk_id=jobs.ChunkId(new_id()),
        document_id=document,
        owner_id=owner,
        title="The harbour",
        source_url=None,
        heading=None,
        page=None,
        content="The harbour closes.",
        vector=None,
    )


async def test_passages_of_deleted_documents_are_taken_out(
    database: Database, index: EdgeIndex, ingestion: Ingestion
):
    owner = make_viewer()
    kept = await make_ready(database, owner)
    await index.put([indexed(DocumentId(new_id()), owner.user_id)])
    await ingestion.fill_index()
    assert (await index.holdings()).keys() == {kept}


async def test_a_change_of_owner_while_the_index_was_away_is_mended(
    database: Database, index: EdgeIndex, ingestion: Ingestion
):
    alice, bob = make_viewer(), make_viewer()
    await make_ready(database, alice)
    await ingestion.fill_index()
    await make_user(database, bob)
    change = text("UPDATE documents SET owner_id = :owner")
    await database.rows(change, {"owner": bob.user_id})
    await ingestion.fill_index()
    assert (await found(index, alice), await found(index, bob)) == (0, 1)
    await database.rows(change, {"owner": None})
    await ingestion.fill_index()
    assert (await found(index, alice), await found(index, bob)) == (1, 1)


async def test_what_is_being_read_while_the_index_is_filled_stays_in_it(
    database: Database, index: EdgeIndex, ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    # Its passages are in the index already, and it becomes READY between two looks at Postgres.
    owner, run_id = make_viewer(), RunId(new_id())
    id = await make_document(
        database, owner=owner, status=IngestionStatus.PENDING, chunks=["The harbour closes."]
    )
    claimed = await jobs.claim_document(database, id, run_id, LEASE)
    assert claimed
    await index.put([indexed(id, owner.user_id)])
    look = jobs.indexed_documents

    async def look_before_it_ends(reader: Database) -> list[jobs.IndexedDocument]:
        found = await look(reader)
        await jobs.finish_document(database, claimed, run_id, chunk_count=1)
        return found

    monkeypatch.setattr("db.ingestion.indexed_documents", look_before_it_ends)
    await ingestion.fill_index()
    assert await index.holdings() == {id: Holding(owner.user_id, 1)}


async def test_a_document_deleted_while_the_index_is_filled_leaves_nothing(
    database: Database, index: EdgeIndex, ingestion: Ingestion, monkeypatch: pytest.MonkeyPatch
):
    owner = make_viewer()
    id = await make_ready(database, owner)
    put = index.put

    async def put_(chunks: Sequence[IndexedChunk]) -> None:
        await delete(database, owner, id)
        await index.remove(id)
        await put(chunks)

    monkeypatch.setattr(index, "put", put_)
    await ingestion.fill_index()
    assert await index.holdings() == {}
