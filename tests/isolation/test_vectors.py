"""Searching: whose passages are found is said by the viewer alone, and read again in Postgres."""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from qdrant_client import AsyncQdrantClient

from db.ids import DocumentId, UserId
from db.viewer import Viewer
from rag.edge_index import EdgeIndex
from rag.ports import IndexedChunk, VectorIndex
from rag.qdrant_index import QdrantIndex
from tests.factories import make_viewer
from tests.operations import add_text, search, send
from tests.people import Parley, Person
from tests.rag.test_indexes import chunk

# The local mode says that it has no payload indexes; a server has them.
pytestmark = pytest.mark.filterwarnings("ignore:Payload indexes have no effect:UserWarning")

HER, HIM = make_viewer(), make_viewer()
VECTOR = [1.0, 0.0, 0.0]


@pytest.fixture(params=["edge", "qdrant"])
async def index(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[VectorIndex]:
    """An open index that takes vectors of three floats."""
    if request.param == "edge":
        index = EdgeIndex(tmp_path / "index", 3)
    else:
        index = QdrantIndex(AsyncQdrantClient(location=":memory:"), "chunks", 3)
    await index.open()
    yield index
    await index.close()


@pytest.fixture
async def hers(index: VectorIndex) -> IndexedChunk:
    """A passage of hers, among one of his and one of everybody's."""
    hers = chunk("the budget of the harbour", owner=HER, vector=VECTOR)
    his = chunk("a list of lighthouses", owner=HIM, vector=[0, 1, 0])
    shared = chunk("opening hours of the office", owner=None, vector=[0, 0, 1])
    await index.put([hers, his, shared])
    return hers


def forged_ids(hers: IndexedChunk) -> list[Any]:
    """Give what a caller might put among the ids of documents to widen the filter."""
    owner = str(HER.user_id)
    return [
        hers.document_id,
        str(hers.document_id).upper(),
        f"{hers.document_id}:{owner}",
        hers.chunk_id,
        owner,
        *("shared", "*", "", "%", "null"),
        f'"}}}},{{"key":"owner","match":{{"value":"{owner}"}}}}',
    ]


def forged_queries(hers: IndexedChunk) -> list[str]:
    """Give texts that would be filters, in one language or another."""
    owner, document = str(HER.user_id), str(hers.document_id)
    return [
        f"owner:{owner} harbour",
        f"document_id:{document} OR harbour budget",
        f'{{"filter": {{"must": [{{"key": "owner", "match": {{"value": "{owner}"}}}}]}}}} harbour',
        f"harbour' OR owner = '{owner}' --",
        f"harbour budget {owner} {document} {hers.chunk_id}",
        "* harbour budget",
        "the budget of the harbour",
    ]


async def found(index: VectorIndex, viewer: Viewer, query: str, **more: Any) -> set[Any]:
    hits = [
        hit
        for vector in (None, VECTOR)
        for hit in await index.search(viewer, query, vector, limit=50, **more)
    ]
    return {hit.chunk_id for hit in hits}


# --- the adapters ---------------------------------------------------------------------


async def test_no_forged_id_finds_hers(index: VectorIndex, hers: IndexedChunk):
    for forged in forged_ids(hers):
        for ids in ([forged], [forged, DocumentId(uuid4())]):
            assert await found(index, HIM, "harbour budget", document_ids=ids) == set(), forged
    assert hers.chunk_id in await found(index, HER, "harbour", document_ids=[hers.document_id])


async def test_no_query_is_a_filter(index: VectorIndex, hers: IndexedChunk):
    for query in forged_queries(hers):
        assert hers.chunk_id not in await found(index, HIM, query)
        assert hers.chunk_id in await found(index, HER, query), "it would be found"


async def test_what_is_shared_is_no_way_to_what_is_not(index: VectorIndex, hers: IndexedChunk):
    for query in forged_queries(hers):
        for vector in (None, VECTOR):
            passages = await index.search_shared(query, vector, limit=50)
            assert hers.chunk_id not in {passage.chunk_id for passage in passages}


async def test_no_viewer_is_everyone(index: VectorIndex, hers: IndexedChunk):
    # An owner is a UUID, so that nobody is called as shared chunks are.
    for name in ("shared", "*", "", "%"):
        forged = Viewer(cast("UserId", name))
        assert hers.chunk_id not in await found(index, forged, "harbour budget")


# --- what stands before and behind them -----------------------------------------------


@pytest.fixture
async def document(alice: Person, parley: Parley) -> str:
    added = await add_text(alice, "The budget of the harbour is kept in the cellar.")
    await parley.documents_read()
    return added["document"]["id"]


async def test_naming_her_document_is_not_found(bob: Person, parley: Parley, document: str):
    await add_text(bob, "The harbour closes at nine.")
    await parley.documents_read()
    own = (await search(bob, "harbour"))[0]["documentId"]
    for ids in ([document], [own, document], [document.upper()], [f"{{{document}}}"]):
        sent = await send(bob, "What of the harbour?", documentIds=ids)
        assert sent["__typename"] == "NotFound"
        asked = {"message": "What of the harbour?", "document_ids": ids}
        answer = await bob.http.post("/chat", json=asked, headers=bob.headers)
        assert answer.json()["code"] == "NOT_FOUND"


async def test_what_an_index_says_is_read_again(
    alice: Person, bob: Person, parley: Parley, document: str
):
    # An index that is behind, or was tampered with, and takes her document for his.
    index = parley.services.library._index
    for owner in (bob.viewer.user_id, None):
        await index.set_owner(DocumentId(UUID(document)), owner)
        hits = await index.search(bob.viewer, "harbour budget", None, limit=5)
        assert len(hits) == 1
        assert await search(bob, "harbour budget") == []
        sent = await send(bob, "What is the budget of the harbour?")
        assert "cellar" not in str(sent)
