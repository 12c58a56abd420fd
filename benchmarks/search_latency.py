"""How fast the embedded index answers, and how long it holds up the event loop.

Chunks are made of invented words whose frequencies follow Zipf's law, some for each of
twenty users and some for all; the same seed makes the same chunks. Searches run alone, four
at once, and while new chunks are put. A stall is how much later than asked a task woke that
sleeps 5 ms at a time.
"""

import argparse
import asyncio
import random
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from pathlib import Path
from uuid import UUID

from db.ids import ChunkId, DocumentId, UserId
from db.viewer import Viewer
from rag.edge_index import EdgeIndex
from rag.ports import IndexedChunk

_WORDS_PER_CHUNK = 300
_CHUNKS_PER_DOCUMENT = 25
_TICK_SECONDS = 0.005


class Corpus:
    """Makes chunks and queries, the same ones each time."""

    def __init__(self, dimension: int | None) -> None:
        vocabulary = 30_000
        self.dimension = dimension
        self.random = random.Random(20261121)
        self._words = [self._word() for _ in range(vocabulary)]
        self._weights = list(accumulate(1 / (rank + 3) for rank in range(vocabulary)))
        self.users = [UserId(self._id()) for _ in range(20)]

    def _word(self) -> str:
        syllables = self.random.randint(1, 4)
        return "".join(
            self.random.choice("bcdfghklmnprstvz") + self.random.choice("aeiou")
            for _ in range(syllables)
        )

    def _id(self) -> UUID:
        return UUID(int=self.random.getrandbits(128), version=4)

    def text(self, words: int) -> str:
        return " ".join(self.random.choices(self._words, cum_weights=self._weights, k=words))

    def vector(self) -> list[float] | None:
        if self.dimension is None:
            return None
        return [self.random.gauss(0, 1) for _ in range(self.dimension)]

    def document(self) -> list[IndexedChunk]:
        document_id = DocumentId(self._id())
        owner = self.random.choice([*self.users, None])
        title = self.text(4)
        return [
            IndexedChunk(
                chunk_id=ChunkId(self._id()),
                document_id=document_id,
                owner_id=owner,
                title=title,
                source_url=None,
                heading=self.text(3),
                page=page,
                content=self.text(_WORDS_PER_CHUNK),
                vector=self.vector(),
            )
            for page in range(_CHUNKS_PER_DOCUMENT)
        ]


@dataclass
class Report:
    """What one phase took, in milliseconds."""

    times: list[float] = field(default_factory=list[float])
    stall: float = 0.0

    def line(self, name: str) -> str:
        ordered = sorted(self.times)
        p50, p95 = (ordered[int(len(ordered) * share)] for share in (0.5, 0.95))
        return f"{name:<24} p50 {p50:6.2f}   p95 {p95:6.2f}   largest stall {self.stall:6.1f} ms"


@asynccontextmanager
async def watched() -> AsyncGenerator[Report, None]:
    """Watch the event loop for as long as the block runs."""
    report = Report()

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(_TICK_SECONDS)
            late = time.perf_counter() - before - _TICK_SECONDS
            report.stall = max(report.stall, late * 1000)

    ticking = asyncio.create_task(tick())
    try:
        yield report
        await asyncio.sleep(2 * _TICK_SECONDS)  # for what stalled the last tick
    finally:
        ticking.cancel()


async def search(index: EdgeIndex, corpus: Corpus, times: list[float]) -> None:
    viewer = Viewer(corpus.random.choice(corpus.users))
    query, vector = corpus.text(6), corpus.vector()
    start = time.perf_counter()
    await index.search(viewer, query, vector, limit=8)
    times.append((time.perf_counter() - start) * 1000)


async def measure(chunks: int, searches: int, dimension: int | None) -> None:
    corpus = Corpus(dimension)
    documents = [corpus.document() for _ in range(chunks // _CHUNKS_PER_DOCUMENT)]
    new = [corpus.document() for _ in range(40)]
    with tempfile.TemporaryDirectory() as folder:
        index = EdgeIndex(Path(folder), dimension)
        await index.open()
        async with watched() as report:
            for document in documents:
                start = time.perf_counter()
                await index.put(document)
                report.times.append((time.perf_counter() - start) * 1000)
        print(report.line(f"put {_CHUNKS_PER_DOCUMENT} chunks"))

        async with watched() as report:
            for _ in range(searches):
                await search(index, corpus, report.times)
        print(report.line("search"))

        async with watched() as report:
            for _ in range(searches // 4):
                await asyncio.gather(*(search(index, corpus, report.times) for _ in range(4)))
        print(report.line("search, 4 at once"))

        async with watched() as report, asyncio.TaskGroup() as tasks:
            putting = tasks.create_task(index.put([chunk for each in new for chunk in each]))
            while not putting.done():
                await search(index, corpus, report.times)
        print(report.line("search during a put"))

        for name, step in (("holdings", index.holdings), ("close", index.close)):
            async with watched() as report:
                start = time.perf_counter()
                await step()
                report.times.append((time.perf_counter() - start) * 1000)
            print(report.line(name))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--chunks", type=int, default=10_000)
    parser.add_argument("--searches", type=int, default=400)
    parser.add_argument("--dimension", type=int, help="of dense vectors; none without it")
    arguments = parser.parse_args()
    print(f"{arguments.chunks:,} chunks, dimension {arguments.dimension}, times in ms")
    asyncio.run(measure(arguments.chunks, arguments.searches, arguments.dimension))


if __name__ == "__main__":
    main()
