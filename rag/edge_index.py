"""The vector index within the process: Qdrant's engine (qdrant-edge) on a folder.

Its methods block, and all but queries hold the GIL while they do (0.9.0, measured: an upsert
0.1 ms a chunk, a flush 0.2 s and `optimize` 1 s at 10,000 chunks), so that a thread alone
doesn't free the event loop. Hence writes go in small slices, and `optimize` runs only in
`open`, when nobody waits yet. Searches don't need it: without a graph (HNSW) the engine
compares all vectors that the viewer may see, exactly, in 2 ms at 10,000 chunks of 1,536
dimensions. Whoever has a hundred times that has a Qdrant server.
"""

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeVar, cast
from uuid import UUID

import structlog
from qdrant_edge import (
    Distance,
    EdgeConfig,
    EdgeOptimizersConfig,
    EdgeShard,
    EdgeSparseVectorParams,
    EdgeVectorParams,
    FacetRequest,
    FieldCondition,
    Filter,
    Fusion,
    IdfParams,
    MatchAny,
    MatchValue,
    Modifier,
    PayloadSchemaType,
    Point,
    Prefetch,
    Query,
    QueryRequest,
    ScoredPoint,
    ScrollRequest,
    SearchParams,
    UpdateOperation,
)

from db.ids import ChunkId, DocumentId, UserId
from db.viewer import Viewer
from rag import points
from rag.bm25 import document_weights, query_weights
from rag.ports import Hit, Holding, IndexedChunk, IndexUnavailable, Passage

if TYPE_CHECKING:
    from qdrant_edge import NamedVector, PointId  # only its stub has them

P = ParamSpec("P")
R = TypeVar("R")

log = structlog.get_logger(__name__)

_SLICE_POINTS = 50
# Holds the GIL for about 5 ms, and 20 at worst.

_FLUSH_AFTER_POINTS = 20_000
# What was not flushed is replayed after a kill, at 0.1 to 0.3 ms each; a flush stalls the loop.

_NO_GRAPH_BELOW_KB = 2**32

_RECIPROCAL_RANK = cast("Fusion", Fusion.Rrf(points.RRF_K))
# Its stub doesn't say that it is one.


class EdgeIndex:
    """A `VectorIndex` in a folder of its own, which one process at a time may use.

    A folder that is damaged, or was made for another dimension or format, is emptied by
    `open`: it is a cache. Vectors given to an index without a dimension are ignored.
    What `put` wrote survives the death of the process.
    """

    def __init__(self, folder: Path, dimension: int | None) -> None:
        self._path = folder / "shard"
        self._format_file = folder / "format"
        self._format = f"format {points.FORMAT}, dimension {dimension}\n".encode()
        self._dimension = dimension
        self._shard: EdgeShard | None = None
        self._unflushed_points = 0
        # One thread, not a lock: a cancelled caller can't leave two writes running at once.
        # It ends when the index is let go.
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="edge-index")

    async def open(self) -> None:
        await self._write(self._open)

    async def put(self, chunks: Sequence[IndexedChunk]) -> None:
        for some in points.batches(chunks, _SLICE_POINTS):
            await self._update(len(some), self._upsert, some)

    async def remove(self, document_id: DocumentId) -> None:
        async for ids in self._slices(document_id):
            await self._update(len(ids), UpdateOperation.delete_points, ids)

    async def set_owner(self, document_id: DocumentId, owner_id: UserId | None) -> None:
        owned = dict(points.owned(document_id, owner_id))
        async for ids in self._slices(document_id):
            await self._update(len(ids), UpdateOperation.set_payload, ids, owned)

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
        found = await asyncio.to_thread(
            self._search, owners, query, vector, limit, document_ids=document_ids
        )
        return [Hit(ChunkId(UUID(str(point.id))), point.score) for point in found]

    async def search_shared(
        self, query: str, vector: Sequence[float] | None, *, limit: int
    ) -> list[Passage]:
        found = await asyncio.to_thread(
            self._search, [points.EVERYONE], query, vector, limit, with_payload=True
        )
        return points.shared_passages(
            (ChunkId(UUID(str(point.id))), point.score, point.payload) for point in found
        )

    async def holdings(self) -> dict[DocumentId, Holding]:
        return await self._write(self._holdings)

    async def close(self) -> None:
        await self._write(self._close)

    # --- on the writer's thread -------------------------------------------------------

    async def _write(self, function: Callable[P, R], *args: P.args, **kwargs: P.kwargs) -> R:
        def translated() -> R:
            with _translated_errors():
                return function(*args, **kwargs)

        return await asyncio.get_running_loop().run_in_executor(self._writer, translated)

    async def _update(
        self,
        point_count: int,
        operation: Callable[P, UpdateOperation],
        *args: P.args,
        **kwargs: P.kwargs,
    ) -> None:
        def update() -> None:
            shard = self._opened()
            shard.update(operation(*args, **kwargs))
            self._unflushed_points += point_count
            if self._unflushed_points >= _FLUSH_AFTER_POINTS:
                shard.flush()
                self._unflushed_points = 0

        await self._write(update)

    def _open(self) -> None:
        if self._shard is not None:
            return
        if self._path.exists():
            try:
                self._shard = self._load()
            except IndexUnavailable as error:
                reason = str(error.__cause__ or error)
                log.warning("index.emptied", folder=str(self._path), reason=reason)
        if self._shard is None:
            self._shard = self._create()

    def _load(self) -> EdgeShard:
        with _translated_errors():
            stored = self._format_file.read_bytes() if self._format_file.exists() else None
            if stored != self._format:
                raise IndexUnavailable(f"has {stored!r}, not {self._format!r}")
            shard = EdgeShard.load(str(self._path), self._config())
            shard.optimize()  # drops what was deleted, once it is a fifth
            return shard

    def _create(self) -> EdgeShard:
        self._format_file.unlink(missing_ok=True)
        if self._path.exists():
            shutil.rmtree(self._path)
        self._path.mkdir(parents=True)
        shard = EdgeShard.create(str(self._path), self._config())
        for field in points.FILTERED_FIELDS:
            shard.update(UpdateOperation.create_field_index(field, PayloadSchemaType.Keyword))
        # Last, so that a shard whose making was cut off is made anew.
        self._format_file.write_bytes(self._format)
        return shard

    def _config(self) -> EdgeConfig:
        return EdgeConfig(
            vectors={points.DENSE: EdgeVectorParams(self._dimension, Distance.Cosine)}
            if self._dimension is not None
            else {},
            sparse_vectors={points.TEXT: EdgeSparseVectorParams(modifier=Modifier.Idf)},
            optimizers=EdgeOptimizersConfig(
                default_segment_number=1, indexing_threshold=_NO_GRAPH_BELOW_KB
            ),
        )

    def _opened(self) -> EdgeShard:
        if self._shard is None:
            raise IndexUnavailable("the index is not open")
        return self._shard

    def _upsert(self, chunks: Sequence[IndexedChunk]) -> UpdateOperation:
        return UpdateOperation.upsert_points([self._point(chunk) for chunk in chunks])

    def _point(self, chunk: IndexedChunk) -> Point:
        vectors: dict[str, NamedVector] = {
            points.TEXT: document_weights(points.indexed_text(chunk))
        }
        if self._dimension is not None and chunk.vector is not None:
            vectors[points.DENSE] = list(chunk.vector)
        return Point(chunk.chunk_id, vectors, dict(points.payload(chunk)))

    async def _slices(self, document_id: DocumentId) -> AsyncIterator[list["PointId"]]:
        def scroll(offset: "PointId | None") -> "tuple[list[PointId], PointId | None]":
            condition = FieldCondition("document_id", match=MatchValue(str(document_id)))
            request = ScrollRequest(
                offset, _SLICE_POINTS, Filter(must=[condition]), with_payload=False
            )
            records, following = self._opened().scroll(request)
            return [record.id for record in records], following

        ids, following = await self._write(scroll, None)
        while ids:
            yield ids
            if following is None:
                return
            ids, following = await self._write(scroll, following)

    def _holdings(self) -> dict[DocumentId, Holding]:
        shard = self._opened()
        # There can't be more stamps than points, so that this limit leaves none out.
        limit = max(1, shard.info().points_count)
        facet = shard.facet(FacetRequest("stamp", limit=limit, exact=True))
        return points.holdings((cast("str", hit.value), hit.count) for hit in facet.hits)

    def _close(self) -> None:
        if self._shard is not None:
            shard, self._shard = self._shard, None
            shard.flush()
            shard.close()

    # --- on any thread ----------------------------------------------------------------

    def _search(
        self,
        owners: Sequence[str],
        query: str,
        vector: Sequence[float] | None,
        limit: int,
        *,
        document_ids: Sequence[DocumentId] | None = None,
        with_payload: bool = False,
    ) -> list[ScoredPoint]:
        readable = FieldCondition("owner", match=MatchAny([*owners]))
        wanted = [readable]
        if document_ids is not None:
            ids = [str(document_id) for document_id in document_ids]
            wanted.append(FieldCondition("document_id", match=MatchAny(ids)))
        allowed = Filter(must=[*wanted])
        # Term statistics of what the viewer may read, lest scores tell what others' documents say.
        corpus = SearchParams(idf=IdfParams(Filter(must=[readable])))

        rankings: list[Prefetch] = []
        count = points.candidates(limit)
        if (weights := query_weights(query)) is not None:
            nearest = Query.Nearest(weights, points.TEXT)
            rankings.append(Prefetch(count, nearest, filter=allowed, params=corpus))
        if self._dimension is not None and vector is not None:
            nearest = Query.Nearest(list(vector), points.DENSE)
            rankings.append(Prefetch(count, nearest, filter=allowed))
        if not rankings:
            return []
        if len(rankings) == 1:
            only = rankings[0]
            request = QueryRequest(
                limit,
                query=only.query,
                filter=only.filter,
                params=only.params,
                with_payload=with_payload,
            )
        else:
            request = QueryRequest(
                limit, query=_RECIPROCAL_RANK, prefetches=rankings, with_payload=with_payload
            )
        with _translated_errors():
            return self._opened().query(request)


@contextmanager
def _translated_errors() -> Generator[None, None, None]:
    """Turn the engine's errors into `IndexUnavailable`.

    It raises bare `Exception`; where it panics, a BaseException that can't be imported. Its
    subclasses are left alone: they are ours.
    """
    try:
        yield
    except BaseException as error:
        engines = type(error) is Exception or type(error).__name__ == "PanicException"
        if engines or isinstance(error, OSError):
            raise IndexUnavailable from error
        raise
