"""The embedded index alone: its files, its process, and what runs beside a search."""

import asyncio
import sys
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from structlog.testing import capture_logs

from db.ids import DocumentId
from rag.edge_index import EdgeIndex
from rag.ports import Holding, IndexUnavailable
from tests.rag.chunks import ALICE, BOB, chunk, found

ROOT = Path(__file__).parents[2]


async def test_edge_keeps_what_it_holds(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, None)
    mine = chunk("harbour")
    await index.open()
    await index.put([mine])
    await index.close()
    index = EdgeIndex(tmp_path, None)
    with capture_logs() as logs:
        await index.open()
    assert logs == []
    assert await found(index, ALICE, "harbour") == {mine.chunk_id}
    await index.close()


async def test_edge_without_a_dimension_ignores_vectors(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, None)
    mine = chunk("harbour", vector=[1, 0])
    await index.open()
    await index.put([mine])
    hits = await index.search(ALICE, "harbour", [1.0, 0.0], limit=10)
    assert [hit.chunk_id for hit in hits] == [mine.chunk_id]
    await index.close()


async def test_edge_starts_afresh_with_another_dimension(tmp_path: Path) -> None:
    events: list[str] = []
    for dimension in (None, 3, 4, None):
        index = EdgeIndex(tmp_path, dimension)
        with capture_logs() as logs:
            await index.open()
        events.extend(log["event"] for log in logs)
        assert await index.holdings() == {}
        vector = [1.0] * dimension if dimension else None
        await index.put([chunk("harbour", vector=vector)])
        await index.close()
    assert events == ["index.emptied"] * 3


def damage(folder: Path, name: str) -> None:
    files = list(folder.rglob(name))
    assert files
    for file in files:
        file.write_bytes(b"\xff\x00")


@pytest.mark.parametrize(
    "damaged", ["edge_config.json", "segment.json", "status.dat", "format", "first-index"]
)
async def test_edge_survives_damaged_files(tmp_path: Path, damaged: str) -> None:
    index = EdgeIndex(tmp_path, 3)
    await index.open()
    await index.put([chunk("harbour", vector=[1, 0, 0])])
    await index.close()
    damage(tmp_path, damaged)
    index = EdgeIndex(tmp_path, 3)
    await index.open()
    mine = chunk("harbour", vector=[1, 0, 0])
    await index.put([mine])
    assert mine.chunk_id in await found(index, ALICE, "harbour")
    await index.close()


async def test_edge_that_is_not_open_is_unavailable(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, None)
    with pytest.raises(IndexUnavailable):
        await index.search(ALICE, "harbour", None, limit=1)
    await index.open()
    await index.close()
    await index.close()
    with pytest.raises(IndexUnavailable):
        await index.search(ALICE, "harbour", None, limit=1)
    with pytest.raises(IndexUnavailable):
        await index.put([chunk("harbour")])


async def test_edge_may_close_under_a_search(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, None)
    await index.open()
    await index.put([chunk("harbour") for _ in range(100)])
    searches = [index.search(ALICE, "harbour", None, limit=5) for _ in range(20)]
    *results, closed = await asyncio.gather(*searches, index.close(), return_exceptions=True)
    assert closed is None
    assert all(isinstance(result, list | IndexUnavailable) for result in results)


async def test_edge_takes_a_cancelled_put(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, None)
    await index.open()
    document_id = DocumentId(uuid4())
    chunks = [chunk("harbour", document_id=document_id) for _ in range(500)]
    async with asyncio.TaskGroup() as tasks:
        putting = tasks.create_task(index.put(chunks))
        while not await index.holdings():
            pass
        putting.cancel()
    assert putting.cancelled()
    await index.remove(document_id)
    assert await index.holdings() == {}
    await index.close()


async def test_edge_searches_while_it_is_written(tmp_path: Path) -> None:
    index = EdgeIndex(tmp_path, None)
    await index.open()
    mine = chunk("lighthouse")
    await index.put([mine])
    async with asyncio.TaskGroup() as tasks:
        putting = tasks.create_task(index.put([chunk("harbour") for _ in range(500)]))
        while not putting.done():
            results = await asyncio.gather(*(found(index, ALICE, "lighthouse") for _ in range(4)))
            assert results == [{mine.chunk_id}] * 4
    await index.close()


_PUT_AND_WAIT = """
import asyncio, sys
from pathlib import Path
from uuid import UUID
from rag.edge_index import EdgeIndex
from rag.ports import IndexedChunk

async def main():
    index = EdgeIndex(Path(sys.argv[1]), None)
    await index.open()
    await index.put([
        IndexedChunk(UUID(int=n), UUID(int=7), None, "Title", None, None, None, "harbour", None)
        for n in range(1, 121)
    ])
    print("put", flush=True)
    await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_edge_survives_kill_9_after_put(tmp_path: Path) -> None:
    child = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PUT_AND_WAIT, str(tmp_path), cwd=ROOT, stdout=asyncio.subprocess.PIPE
    )
    assert child.stdout is not None
    assert await child.stdout.readline() == b"put\n"
    child.kill()
    await child.wait()
    index = EdgeIndex(tmp_path, None)
    await index.open()
    assert await index.holdings() == {DocumentId(UUID(int=7)): Holding(None, 120)}
    assert len(await found(index, BOB, "harbour", limit=200)) == 120
    await index.close()
