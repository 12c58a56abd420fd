"""Retrieval: what the index says is read again from Postgres, as whoever asks."""

from collections.abc import Sequence

import pytest

from db.engine import Database
from db.ids import ChunkId, DocumentId, new_id
from db.ingestion import chunks_of
from db.models import IngestionStatus
from db.viewer import Viewer
from rag.ports import EmbedderUnavailable, Hit, Holding, IndexUnavailable, Passage
from rag.retrieval import PASSAGES_PER_SEARCH, Retrieval
from tests.factories import make_document, make_viewer
from tests.statements import recorded


class CarelessIndex:
    """An index that finds whatever it is told to, for anyone; it notes what it was asked."""

    def __init__(self, *hits: ChunkId) -> None:
        self.hits = [Hit(id, score=1.0 / rank) for rank, id in enumerate(hits, 1)]
        self.vectors: list[Sequence[float] | None] = []
        self.asked: list[tuple[Viewer, str, int, Sequence[DocumentId] | None]] = []
        self.failure: IndexUnavailable | None = None

    async def search(
        self,
        viewer: Viewer,
        query: str,
        vector: Sequence[float] | None,
        *,
        limit: int,
        document_ids: Sequence[DocumentId] | None = None,
    ) -> list[Hit]:
        if self.failure:
            raise self.failure
        self.vectors.append(vector)
        self.asked.append((viewer, query, limit, document_ids))
        return self.hits

    async def search_shared(
        self, query: str, vector: Sequence[float] | None, *, limit: int
    ) -> list[Passage]:
        if self.failure:
            raise self.failure
        self.vectors.append(vector)
        return [SHARED]

    async def open(self) -> None: ...
    async def put(self, chunks: object) -> None: ...
    async def remove(self, document_id: object) -> None: ...
    async def set_owner(self, document_id: object, owner_id: object) -> None: ...
    async def close(self) -> None: ...

    async def holdings(self) -> dict[DocumentId, Holding]:
        return {}


SHARED = Passage(
    ChunkId(new_id()), DocumentId(new_id()), "Harbour", None, None, None, "It closes.", 1.0
)


class OneVector:
    """An embedder that may be away."""

    model = "test-embedding"
    dimension = 3

    def __init__(self, *, away: bool = False) -> None:
        self.away = away
        self.asked: list[str] = []

    async def open(self) -> None:
        pass

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        if self.away:
            raise EmbedderUnavailable("no connection")
        self.asked += texts
        return [[1.0, 0.0, 0.0] for _ in texts]

    async def close(self) -> None: ...


async def chunk(
    database: Database,
    owner: Viewer | None,
    content: str = "The harbour closes.",
    status: IngestionStatus = IngestionStatus.READY,
) -> ChunkId:
    """Make a document with one passage, and give the passage's id."""
    document = await make_document(database, owner=owner, chunks=[content], status=status)
    [row] = await chunks_of(database, document)
    return row.id


async def test_hits_keep_their_order_and_score(database: Database):
    viewer = make_viewer()
    first = await chunk(database, viewer, "First")
    second = await chunk(database, None, "Second")
    retrieval = Retrieval(database, CarelessIndex(first, second), None)
    found = await retrieval.search(viewer, "harbour", limit=5)
    assert [(passage.content, passage.score) for passage in found] == [
        ("First", 1.0),
        ("Second", 0.5),
    ]


async def test_what_the_viewer_may_not_read_is_dropped(database: Database):
    viewer = make_viewer()
    hits = [
        await chunk(database, make_viewer(), "A stranger's"),
        await chunk(database, viewer, "Mine"),
        ChunkId(new_id()),  # of a document that was deleted
    ]
    found = await Retrieval(database, CarelessIndex(*hits), None).search(viewer, "x", limit=5)
    assert [passage.content for passage in found] == ["Mine"]


@pytest.mark.parametrize(
    "status", [status for status in IngestionStatus if status is not IngestionStatus.READY]
)
async def test_what_is_not_ready_is_dropped(status: IngestionStatus, database: Database):
    viewer = make_viewer()
    hit = await chunk(database, viewer, status=status)
    assert await Retrieval(database, CarelessIndex(hit), None).search(viewer, "x", limit=5) == []


async def test_without_hits_nothing_is_found(database: Database):
    assert (
        await Retrieval(database, CarelessIndex(), None).search(make_viewer(), "x", limit=5) == []
    )


async def test_with_an_embedder_a_query_is_a_vector_too(database: Database):
    index = CarelessIndex()
    await Retrieval(database, index, OneVector()).search(make_viewer(), "x", limit=5)
    assert index.vectors == [[1.0, 0.0, 0.0]]


async def test_a_query_that_was_asked_before_is_not_embedded_again(
    database: Database, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("rag.retrieval.REMEMBERED_QUERIES", 2)
    embedder = OneVector()
    retrieval = Retrieval(database, CarelessIndex(), embedder)
    for query in ("a", "b", "a", "c", "a", "b"):
        await retrieval.search(make_viewer(), query, limit=5)
    # "c" took the place of "b", which had not been asked for the longest.
    assert embedder.asked == ["a", "b", "c", "b"]


async def test_an_embedder_that_was_away_is_asked_again(database: Database):
    embedder = OneVector(away=True)
    retrieval = Retrieval(database, CarelessIndex(), embedder)
    await retrieval.search(make_viewer(), "a", limit=5)
    embedder.away = False
    await retrieval.search(make_viewer(), "a", limit=5)
    assert embedder.asked == ["a"]


async def test_when_the_embedder_is_away_words_are_searched(database: Database):
    viewer = make_viewer()
    index = CarelessIndex(await chunk(database, viewer))
    found = await Retrieval(database, index, OneVector(away=True)).search(viewer, "x", limit=5)
    assert index.vectors == [None]
    assert len(found) == 1


async def test_when_the_index_is_away_so_is_the_search(database: Database):
    index = CarelessIndex()
    index.failure = IndexUnavailable("no connection")
    with pytest.raises(IndexUnavailable):
        await Retrieval(database, index, None).search(make_viewer(), "x", limit=5)


async def test_the_agents_search_is_bound_to_its_viewer_and_documents(database: Database):
    viewer, document = make_viewer(), DocumentId(new_id())
    index = CarelessIndex()
    await Retrieval(database, index, None).bound(lambda: viewer, [document])("harbour")
    assert index.asked == [(viewer, "harbour", PASSAGES_PER_SEARCH, [document])]


async def test_what_is_shared_is_found_without_postgres(database: Database):
    index = CarelessIndex()
    with recorded(database) as statements:
        found = await Retrieval(database, index, OneVector()).search_shared("x")
    assert found == [SHARED]
    assert index.vectors == [[1.0, 0.0, 0.0]]
    assert statements == []


async def test_when_the_index_is_away_nothing_shared_is_found_either(database: Database):
    index = CarelessIndex()
    index.failure = IndexUnavailable("no connection")
    with pytest.raises(IndexUnavailable):
        await Retrieval(database, index, None).search_shared("x")
