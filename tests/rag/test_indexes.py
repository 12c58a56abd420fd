"""One contract, both adapters: the embedded engine for real, the client in its local mode."""

import random
import time
from collections.abc import AsyncIterator
from pathlib import Path
from uuid import uuid4

import pytest
from qdrant_client import AsyncQdrantClient

from db.ids import ChunkId, DocumentId
from rag.bm25 import document_weights, query_weights
from rag.edge_index import EdgeIndex
from rag.ports import Holding, IndexedChunk, Passage, VectorIndex
from rag.qdrant_index import QdrantIndex
from tests.rag.chunks import ALICE, BOB, chunk, found

# The local mode says that it has no payload indexes; a server has them.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")


@pytest.fixture(params=["edge", "qdrant"])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    """Give an open index that takes vectors of three floats."""
    if request.param == "edge":
        index = EdgeIndex(tmp_path / "index", 3)
    else:
        index = QdrantIndex(AsyncQdrantClient(location=":memory:"), "chunks", 3)
    await index.open()
    yield index
    await index.close()


# --- whose it is ----------------------------------------------------------------------


async def test_only_the_owner_finds_a_chunk(index: VectorIndex) -> None:
    mine = chunk("the budget of the harbour")
    await index.put([mine])
    assert await found(index, ALICE, "harbour budget") == {mine.chunk_id}
    assert await found(index, BOB, "harbour budget") == set()


async def test_naming_a_strangers_document_does_not_open_it(index: VectorIndex) -> None:
    mine = chunk("the budget of the harbour", vector=[1, 0, 0])
    await index.put([mine])
    for vector in (None, [1.0, 0.0, 0.0]):
        hits = await index.search(BOB, "harbour", vector, limit=10, document_ids=[mine.document_id])
        assert hits == []


async def test_everyone_finds_shared_chunks(index: VectorIndex) -> None:
    shared = chunk("opening hours", owner=None)
    await index.put([shared])
    assert await found(index, ALICE, "opening hours") == {shared.chunk_id}
    assert await found(index, BOB, "opening hours") == {shared.chunk_id}


async def test_equal_text_of_two_owners_stays_apart(index: VectorIndex) -> None:
    hers, his = chunk("same words"), chunk("same words", owner=BOB)
    await index.put([hers, his])
    assert await found(index, ALICE, "same words") == {hers.chunk_id}
    assert await found(index, BOB, "same words") == {his.chunk_id}


async def test_a_change_of_owner_shows_and_hides(index: VectorIndex) -> None:
    document_id = DocumentId(uuid4())
    chunks = [chunk(f"harbour number {n}", document_id=document_id) for n in range(130)]
    everything = {c.chunk_id for c in chunks}
    await index.put(chunks)
    await index.set_owner(document_id, None)
    assert await found(index, BOB, "harbour", limit=200) == everything
    assert await index.holdings() == {document_id: Holding(None, 130)}
    await index.set_owner(document_id, ALICE.user_id)
    assert await found(index, BOB, "harbour", limit=200) == set()
    assert await found(index, ALICE, "harbour", limit=200) == everything
    assert await index.holdings() == {document_id: Holding(ALICE.user_id, 130)}


async def test_scores_do_not_tell_what_others_wrote(index: VectorIndex) -> None:
    await index.put([chunk("bluebird sings"), chunk("sparrow sings")])
    before = await index.search(ALICE, "bluebird", None, limit=10)
    await index.put([chunk("bluebird is the secret name", owner=BOB) for _ in range(20)])
    assert await index.search(ALICE, "bluebird", None, limit=10) == before


# --- what is shared, as the index holds it --------------------------------------------


async def test_shared_chunks_are_found_whole(index: VectorIndex) -> None:
    shared = IndexedChunk(
        chunk_id=ChunkId(uuid4()),
        document_id=DocumentId(uuid4()),
        owner_id=None,
        title="Harbours",
        source_url="https://example.org/harbours",
        heading="Opening hours",
        page=7,
        content="The harbour closes at nine.",
        vector=[1, 0, 0],
    )
    bare = chunk("the harbour", owner=None, vector=[0, 1, 0])
    await index.put([shared, bare])
    for vector in (None, [1.0, 0.1, 0.0]):
        first, second = await index.search_shared("harbour nine", vector, limit=5)
        assert first.score > second.score
        assert first == Passage(
            shared.chunk_id,
            shared.document_id,
            "Harbours",
            "https://example.org/harbours",
            "Opening hours",
            7,
            "The harbour closes at nine.",
            first.score,
        )
        assert (second.source_url, second.heading, second.page) == (None, None, None)


async def test_nobodys_own_chunks_are_among_the_shared(index: VectorIndex) -> None:
    shared = chunk("harbour and many other words besides", owner=None, vector=[0, 1, 0])
    await index.put([chunk("harbour", vector=[1, 0, 0]), chunk("harbour", owner=BOB), shared])
    for vector in (None, [1.0, 0.0, 0.0]):
        found = await index.search_shared("harbour", vector, limit=5)
        assert [passage.chunk_id for passage in found] == [shared.chunk_id]


async def test_a_chunk_that_is_shared_no_longer_is_not_found(index: VectorIndex) -> None:
    mine = chunk("harbour", owner=None)
    await index.put([mine])
    await index.set_owner(mine.document_id, ALICE.user_id)
    assert await index.search_shared("harbour", None, limit=5) == []
    await index.set_owner(mine.document_id, None)
    assert len(await index.search_shared("harbour", None, limit=5)) == 1


async def test_shared_scores_do_not_tell_what_others_wrote(index: VectorIndex) -> None:
    await index.put([chunk("bluebird sings", owner=None), chunk("sparrow sings", owner=None)])
    before = await index.search_shared("bluebird", None, limit=10)
    await index.put([chunk("bluebird is the secret name", owner=BOB) for _ in range(20)])
    assert await index.search_shared("bluebird", None, limit=10) == before


# --- what is found --------------------------------------------------------------------


async def test_titles_and_headings_are_searched(index: VectorIndex) -> None:
    titled = chunk("nothing here", title="Lighthouses", heading="Keepers")
    await index.put([titled, chunk("other")])
    assert await found(index, ALICE, "lighthouse") == {titled.chunk_id}
    assert await found(index, ALICE, "keeper") == {titled.chunk_id}


async def test_a_title_weighs_more_than_the_same_words_in_the_text(index: VectorIndex) -> None:
    titled = chunk("where ships lie", title="Harbours")
    await index.put([chunk("where harbours lie", title="Ships"), titled])
    hits = await index.search(ALICE, "harbour", None, limit=10)
    assert hits[0].chunk_id == titled.chunk_id


async def test_a_name_is_more_than_its_parts(index: VectorIndex) -> None:
    named = chunk("set work_mem higher for sorts, and mind that every sort may take it")
    await index.put([chunk("mem work, work mem, mem work"), named])
    hits = await index.search(ALICE, "work_mem", None, limit=10)
    assert hits[0].chunk_id == named.chunk_id
    assert len(hits) == 2


async def test_document_ids_narrow(index: VectorIndex) -> None:
    one, two = chunk("harbour one"), chunk("harbour two")
    await index.put([one, two])
    hits = await index.search(ALICE, "harbour", None, limit=10, document_ids=[two.document_id])
    assert [hit.chunk_id for hit in hits] == [two.chunk_id]
    assert await index.search(ALICE, "harbour", None, limit=10, document_ids=[]) == []


@pytest.mark.parametrize("query", ["", "   ", "?!", "the of and", "\x00"])
async def test_a_query_without_terms_finds_nothing(index: VectorIndex, query: str) -> None:
    await index.put([chunk("the harbour of and the sea")])
    assert await index.search(ALICE, query, None, limit=10) == []


async def test_a_query_without_terms_still_has_its_vector(index: VectorIndex) -> None:
    near, far = chunk("harbour", vector=[1, 0, 0]), chunk("sea", vector=[0, 1, 0])
    await index.put([near, far])
    hits = await index.search(ALICE, "who are you", [1.0, 0.1, 0.0], limit=10)
    assert [hit.chunk_id for hit in hits] == [near.chunk_id, far.chunk_id]


async def test_a_lone_surrogate_does_no_harm(index: VectorIndex) -> None:
    mine = chunk("harbour")
    await index.put([mine])
    assert await found(index, ALICE, "\ud800 harbour") == {mine.chunk_id}


async def test_best_first_within_the_limit(index: VectorIndex) -> None:
    best = chunk("harbour budget")
    await index.put([chunk("harbour and many other words besides"), best, chunk("sea")])
    hits = await index.search(ALICE, "harbour budget", None, limit=1)
    assert [hit.chunk_id for hit in hits] == [best.chunk_id]


async def test_two_rankings_are_fused_by_reciprocal_rank(index: VectorIndex) -> None:
    both = chunk("harbour", vector=[0.9, 0.1, 0])
    text_only = chunk("harbour")
    dense_only = chunk("sea", vector=[1, 0, 0])
    await index.put([text_only, both, dense_only])
    hits = await index.search(ALICE, "harbour", [1.0, 0.0, 0.0], limit=10)
    assert hits[0].chunk_id == both.chunk_id
    assert {hit.chunk_id for hit in hits} == {c.chunk_id for c in (both, text_only, dense_only)}
    scores = {hit.chunk_id: hit.score for hit in hits}
    # Ranks count from 0: the first place of one ranking alone gives 1/k.
    assert scores[dense_only.chunk_id] == pytest.approx(1 / 60)


# --- what is kept ---------------------------------------------------------------------


async def test_put_replaces_what_has_the_same_id(index: VectorIndex) -> None:
    old = chunk("harbour")
    new = IndexedChunk(
        old.chunk_id, old.document_id, BOB.user_id, "Untitled", None, None, None, "sea", None
    )
    await index.put([old])
    await index.put([new])
    await index.put([new])
    assert await found(index, ALICE, "harbour sea") == set()
    assert await found(index, BOB, "harbour") == set()
    assert await found(index, BOB, "sea") == {new.chunk_id}
    assert await index.holdings() == {old.document_id: Holding(BOB.user_id, 1)}


async def test_remove_forgets_a_document_and_no_other(index: VectorIndex) -> None:
    document_id = DocumentId(uuid4())
    other = chunk("harbour")
    await index.put([chunk("harbour", document_id=document_id) for _ in range(130)] + [other])
    await index.remove(document_id)
    await index.remove(document_id)
    assert await found(index, ALICE, "harbour") == {other.chunk_id}
    assert await index.holdings() == {other.document_id: Holding(ALICE.user_id, 1)}


async def test_holdings_are_complete(index: VectorIndex) -> None:
    assert await index.holdings() == {}
    chunks = [chunk("x", owner=random.choice([ALICE, BOB, None])) for _ in range(300)]
    await index.put(chunks)
    expected = {c.document_id: Holding(c.owner_id, 1) for c in chunks}
    assert await index.holdings() == expected


async def test_nothing_to_put_is_fine(index: VectorIndex) -> None:
    await index.put([])
    await index.remove(DocumentId(uuid4()))
    await index.set_owner(DocumentId(uuid4()), None)
    assert await index.holdings() == {}


async def test_opening_twice_changes_nothing(index: VectorIndex) -> None:
    mine = chunk("harbour")
    await index.put([mine])
    await index.open()
    assert await found(index, ALICE, "harbour") == {mine.chunk_id}


# --- words ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "query"),
    [
        ("The connections were configured", "configure connection"),
        ("pg_stat_activity and asyncio.to_thread", "activity"),
        ("Größe und Übergänge in Zürich", "grösse"),
        ("Größe und Übergänge in Zürich", "Zurich"),
        ("Zu\u0308rich", "Zürich"),
        ("e\ufb03cient", "efficient"),
        ("数据库连接池的配置方法", "连接池"),
        ("我的猫在家", "猫"),
        ("データベースの接続プールを設定する", "接続"),
        ("การเชื่อมต่อฐานข้อมูล", "ฐานข้อมูล"),
        ("데이터베이스의 연결", "데이터베이스"),
        ("Подключение к базе данных", "ПОДКЛЮЧЕНИЕ"),
        ("डेटाबेस कनेक्शन", "कनेक्शन"),
        ("قاعدة البيانات", "قاعدة"),
    ],
)
def test_every_script_is_found(text: str, query: str) -> None:
    weights = query_weights(query)
    assert weights is not None
    wanted = set(weights.indices)
    assert wanted & set(document_weights(text).indices)


@pytest.mark.parametrize("text", ["a" * 200_000, "a_" * 100_000, "_" * 200_000, "a__" * 70_000])
def test_long_runs_take_linear_time(text: str) -> None:
    started = time.perf_counter()
    document_weights(text)
    assert time.perf_counter() - started < 2


def test_different_chinese_words_do_not_meet() -> None:
    weights = query_weights("天气")
    assert weights is not None
    assert not set(weights.indices) & set(document_weights("数据库连接池的配置方法").indices)
