"""The vector index on a Qdrant server or in its cloud, shared by all processes."""

import asyncio
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from json import JSONDecodeError
from typing import cast
from uuid import UUID

from qdrant_client import AsyncQdrantClient
from qdrant_client.common.client_exceptions import QdrantException
from qdrant_client.http.exceptions import ApiException, UnexpectedResponse
from qdrant_client.models import (
    Distance,
    FieldCondition,
    Filter,
    FilterSelector,
    IdfCorpusParams,
    KeywordIndexParams,
    KeywordIndexType,
    MatchAny,
    MatchValue,
    Modifier,
    PointStruct,
    Prefetch,
    Rrf,
    RrfQuery,
    ScoredPoint,
    SearchParams,
    SparseVector,
    SparseVectorParams,
    Vector,
    VectorParams,
)

from db.ids import ChunkId, DocumentId, UserId
from db.viewer import Viewer
from rag import points
from rag.bm25 import document_weights, query_weights
from rag.ports import Hit, Holding, IndexedChunk, IndexUnavailable, Passage

_TIMEOUT_SECONDS = 30
# Of a write: Qdrant answers when it is findable, which a busy optimizer delays.

_SEARCH_TIMEOUT_SECONDS = 5
# A reply waits for it.

_BATCH_POINTS = 25
# The client makes JSON on the event loop: 1.6 ms a point of 1,536 dimensions.

_CONFLICT = 409

_CLIENT_ERRORS = (
    ApiException,
    QdrantException,
    OSError,
    # A proxy's page instead of JSON, and JSON without a result, which the client asserts.
    JSONDecodeError,
    AssertionError,
)


def connect(url: str, api_key: str | None = None) -> AsyncQdrantClient:
    """Build the client of a server. Nothing is sent before the first call.

    Without a port in the URL, Qdrant's 6333 is meant; give `:443` behind a proxy.
    """
    return AsyncQdrantClient(
        url=url,
        # As a header of ours: its own argument warns about plain HTTP, as private networks use it.
        headers={"api-key": api_key} if api_key else None,
        timeout=_TIMEOUT_SECONDS,
        check_compatibility=False,  # a blocking request from a thread, and a warning
    )


class QdrantIndex:
    """A `VectorIndex` in one collection, named for what its points are.

    The collection's name ends in the format and the dimension: processes with and without
    an embedder, or of two releases, each have their own and don't spoil the other's. Vectors
    given to an index without a dimension are ignored. The index closes its client.
    """

    def __init__(self, client: AsyncQdrantClient, collection: str, dimension: int | None) -> None:
        self._client = client
        self._collection = f"{collection}-v{points.FORMAT}-{dimension or 'text'}"
        self._dimension = dimension

    async def open(self) -> None:
        with _translated_errors():
            if not await self._client.collection_exists(self._collection):
                await self._create_collection()
            for field in points.FILTERED_FIELDS:
                await self._client.create_payload_index(
                    self._collection,
                    field,
                    KeywordIndexParams(
                        type=KeywordIndexType.KEYWORD,
                        is_tenant=True if field == "owner" else None,
                    ),
                    wait=True,
                )

    async def put(self, chunks: Sequence[IndexedChunk]) -> None:
        for some in points.batches(chunks, _BATCH_POINTS):
            structs = await asyncio.to_thread(self._points, some)
            with _translated_errors():
                await self._client.upsert(self._collection, structs, wait=True)

    async def remove(self, document_id: DocumentId) -> None:
        with _translated_errors():
            await self._client.delete(self._collection, _all_of(document_id), wait=True)

    async def set_owner(self, document_id: DocumentId, owner_id: UserId | None) -> None:
        owned = dict(points.owned(document_id, owner_id))
        with _translated_errors():
            await self._client.set_payload(self._collection, owned, _all_of(document_id), wait=True)

    async def search(
        self,
        viewer: Viewer,
        query: str,
        vector: Sequence[float] | None,
        *,
        limit: int,
        document_ids: Sequence[DocumentId] | None = None,
    ) -> list[Hit]:
        if document_ids is not None and not document_ids:
            return []
        owners = points.readable_owners(viewer.user_id)
        found = await self._search(owners, query, vector, limit, document_ids=document_ids)
        return [Hit(ChunkId(UUID(str(point.id))), point.score) for point in found]

    async def search_shared(
        self, query: str, vector: Sequence[float] | None, *, limit: int
    ) -> list[Passage]:
        found = await self._search([points.EVERYONE], query, vector, limit, with_payload=True)
        return points.shared_passages(
            (ChunkId(UUID(str(point.id))), point.score, point.payload) for point in found
        )

    async def _search(
        self,
        owners: Sequence[str],
        query: str,
        vector: Sequence[float] | None,
        limit: int,
        *,
        document_ids: Sequence[DocumentId] | None = None,
        with_payload: bool = False,
    ) -> list[ScoredPoint]:
        readable = FieldCondition(key="owner", match=MatchAny(any=[*owners]))
        allowed = Filter(must=[readable])
        if document_ids is not None:
            ids = [str(document_id) for document_id in document_ids]
            wanted = FieldCondition(key="document_id", match=MatchAny(any=ids))
            allowed = Filter(must=[readable, wanted])
        # Term statistics of what the viewer may read, lest scores tell what others' documents say.
        corpus = SearchParams(idf=IdfCorpusParams(corpus=Filter(must=[readable])))

        rankings: list[Prefetch] = []
        count = points.candidates(limit)
        if (weights := query_weights(query)) is not None:
            sparse = SparseVector(indices=weights.indices, values=weights.values)
            rankings.append(
                Prefetch(
                    query=sparse, using=points.TEXT, filter=allowed, params=corpus, limit=count
                )
            )
        if self._dimension is not None and vector is not None:
            dense = list(vector)
            rankings.append(Prefetch(query=dense, using=points.DENSE, filter=allowed, limit=count))
        if not rankings:
            return []
        with _translated_errors():
            if len(rankings) == 1:
                only = rankings[0]
                response = await self._client.query_points(
                    self._collection,
                    only.query,
                    using=only.using,
                    query_filter=only.filter,
                    search_params=only.params,
                    limit=limit,
                    with_payload=with_payload,
                    timeout=_SEARCH_TIMEOUT_SECONDS,
                )
            else:
                response = await self._client.query_points(
                    self._collection,
                    RrfQuery(rrf=Rrf(k=points.RRF_K)),
                    prefetch=rankings,
                    limit=limit,
                    with_payload=with_payload,
                    timeout=_SEARCH_TIMEOUT_SECONDS,
                )
        return response.points

    async def holdings(self) -> dict[DocumentId, Holding]:
        with _translated_errors():
            # There can't be more stamps than points, so that this limit leaves none out.
            count = await self._client.count(self._collection, exact=True)
            facet = await self._client.facet(
                self._collection, "stamp", limit=max(1, count.count), exact=True
            )
        return points.holdings((cast("str", hit.value), hit.count) for hit in facet.hits)

    async def close(self) -> None:
        with _translated_errors():
            await self._client.close()

    async def _create_collection(self) -> None:
        try:
            await self._client.create_collection(
                self._collection,
                vectors_config={
                    points.DENSE: VectorParams(size=self._dimension, distance=Distance.COSINE)
                }
                if self._dimension is not None
                else {},
                sparse_vectors_config={points.TEXT: SparseVectorParams(modifier=Modifier.IDF)},
            )
        except UnexpectedResponse as error:
            if error.status_code != _CONFLICT:  # another replica was first
                raise

    def _points(self, chunks: Sequence[IndexedChunk]) -> list[PointStruct]:
        return [self._point(chunk) for chunk in chunks]

    def _point(self, chunk: IndexedChunk) -> PointStruct:
        weights = document_weights(points.indexed_text(chunk))
        vectors: dict[str, Vector] = {
            points.TEXT: SparseVector(indices=weights.indices, values=weights.values)
        }
        if self._dimension is not None and chunk.vector is not None:
            vectors[points.DENSE] = list(chunk.vector)
        return PointStruct(
            id=str(chunk.chunk_id), vector=vectors, payload=dict(points.payload(chunk))
        )


def _all_of(document_id: DocumentId) -> FilterSelector:
    condition = FieldCondition(key="document_id", match=MatchValue(value=str(document_id)))
    return FilterSelector(filter=Filter(must=[condition]))


@contextmanager
def _translated_errors() -> Generator[None, None, None]:
    try:
        yield
    except _CLIENT_ERRORS as error:
        raise IndexUnavailable(f"the Qdrant server does not answer: {error}") from error
