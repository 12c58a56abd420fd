"""Retrieval: from a query to passages that the viewer may read, best first.

What the index finds is read again from Postgres as the viewer. While Postgres is away, only
what is shared by all can be found (`search_shared`), as the index holds it.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence

import structlog

from db.engine import Database
from db.ids import DocumentId
from db.passages import passages_by_id
from db.viewer import Viewer
from rag.agent import Search
from rag.ports import Embedder, EmbedderUnavailable, Passage, VectorIndex

log = structlog.get_logger(__name__)

PASSAGES_PER_SEARCH = 6
"What fits a small model's prompt with room to think; the sixth is rarely cited."


REMEMBERED_QUERIES = 128
"Vectors of the queries asked last: about 50 KB each, at 1,536 dimensions."


class Retrieval:
    """Searches the index as a viewer, and reads every hit again from Postgres as that viewer."""

    def __init__(self, database: Database, index: VectorIndex, embedder: Embedder | None) -> None:
        self._database = database
        self._index = index
        self._embedder = embedder
        self._embedded_before: OrderedDict[str, Sequence[float]] = OrderedDict()

    def bound(
        self, owner: Callable[[], Viewer], document_ids: Sequence[DocumentId] | None
    ) -> Search:
        """Give the agent its search: whose it is and what it may see is settled here.

        `owner` says at each search whose reply it is made for.
        """

        async def search(query: str) -> Sequence[Passage]:
            return await self.search(
                owner(), query, limit=PASSAGES_PER_SEARCH, document_ids=document_ids
            )

        return search

    async def search(
        self,
        viewer: Viewer,
        query: str,
        *,
        limit: int,
        document_ids: Sequence[DocumentId] | None = None,
    ) -> list[Passage]:
        """Find the best passages. Raises `IndexUnavailable`, `DatabaseUnavailable`."""
        vector = await self._embedded(query)
        hits = await self._index.search(
            viewer, query, vector, limit=limit, document_ids=document_ids
        )
        if not hits:
            return []
        rows = await passages_by_id(viewer, self._database, [hit.chunk_id for hit in hits])
        return [
            Passage(*rows[hit.chunk_id], score=hit.score) for hit in hits if hit.chunk_id in rows
        ]

    async def search_shared(self, query: str) -> Sequence[Passage]:
        """Find the best passages that all may read, without Postgres: as the index holds them.

        Raises `IndexUnavailable`.
        """
        vector = await self._embedded(query)
        return await self._index.search_shared(query, vector, limit=PASSAGES_PER_SEARCH)

    async def _embedded(self, query: str) -> Sequence[float] | None:
        """Embed a query; without the embedder, words alone still find most of it."""
        if self._embedder is None:
            return None
        known = self._embedded_before
        if query not in known:
            try:
                known[query] = (await self._embedder.embed([query]))[0]
            except EmbedderUnavailable as error:
                log.warning("retrieval.without_vectors", reason=str(error))
                return None
        known.move_to_end(query)
        vector = known[query]
        if len(known) > REMEMBERED_QUERIES:
            known.popitem(last=False)
        return vector
