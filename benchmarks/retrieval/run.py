"""Measure how often a search finds the page that answers, over PostgreSQL's own manual.

Everything between the bytes of a page and the ranked chunks is the product's own code, as
it runs with nothing configured: no embedder, the index in process. Exit codes: 0 good
enough, or skipped for want of the pages; 1 recall@5 of a set below `--at-least`; 2 wrong usage.
"""

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TypedDict, cast
from uuid import uuid4

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

# A checkout need not be installed to be measured.
sys.path.insert(0, str(Path(__file__).parents[2]))

from book_index import entries

from db.ids import ChunkId, DocumentId, UserId, new_id
from db.viewer import Viewer
from rag.edge_index import EdgeIndex
from rag.extraction import ExtractionError, extract, media_type
from rag.ports import IndexedChunk
from rag.retrieval import PASSAGES_PER_SEARCH
from rag.splitting import Chunk, split

PACKAGE = "postgresql-doc-15"
MANUAL = Path("/usr/share/doc") / PACKAGE / "html"
QUESTION_FILES = [Path(__file__).with_name(name) for name in ("questions.json", "held_out.json")]
BOOK_INDEX = "bookindex.html"
NEAR, FAR = 5, 10
HITS = 50
# Chunks asked for. A page may hold several of the best ones, and `FAR` different pages are wanted.
BATCH_CHUNKS = 256


class Question(TypedDict):
    """`pages` are file names; any of them answers."""

    question: str
    pages: list[str]


@dataclass(frozen=True, slots=True)
class SplitPage:
    """A page as the product would store it. `error` says why there are no chunks."""

    name: str
    title: str
    chunks: Sequence[Chunk]
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a search gave. `rank` is that of the first page that answers, 1-based, within `FAR`.

    `read` says whether a passage of such a page is among those that the agent gets.
    """

    question: Question
    found: Sequence[str]
    rank: int | None
    read: bool
    seconds: float


def split_page(path: Path) -> SplitPage:
    """Read a page and cut it into chunks, in a process of its own."""
    data = path.read_bytes()
    try:
        extracted = extract(data, media_type(data, path.name, None))
    except ExtractionError as error:
        return SplitPage(path.name, path.name, (), repr(error))
    return SplitPage(path.name, extracted.title or path.name, split(extracted))


def pages_to_read(html: Path, questions: Sequence[Question], limit: int | None) -> list[Path]:
    """List the pages, those that answer before the others, so that a limit never removes them."""
    wanted = {page for question in questions for page in question["pages"]}
    paths = sorted(html.glob("*.html"), key=lambda path: (path.name not in wanted, path.name))
    missing = wanted - {path.name for path in paths}
    if missing:
        names = ", ".join(sorted(missing)[:NEAR])
        print(f"{html} lacks {len(missing)} pages that answer: {names}, …", file=sys.stderr)
        raise SystemExit(2)
    return paths if limit is None else paths[: max(limit, len(wanted))]


def split_pages(paths: Sequence[Path], progress: Progress) -> Iterator[SplitPage]:
    """Split pages on every core, in their order."""
    # Spawned, because forking beside the progress bar's thread can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield from progress.track(
            pool.map(split_page, paths, chunksize=8), total=len(paths), description="reading"
        )


def indexed_chunks(
    pages: Iterable[SplitPage], page_by_chunk: dict[ChunkId, str]
) -> list[IndexedChunk]:
    """Make of each page a shared document, noting in `page_by_chunk` where chunks come from."""
    chunks: list[IndexedChunk] = []
    for page in pages:
        document_id = DocumentId(new_id())
        for chunk in page.chunks:
            chunk_id = ChunkId(new_id())
            page_by_chunk[chunk_id] = page.name
            chunks.append(
                IndexedChunk(
                    chunk_id=chunk_id,
                    document_id=document_id,
                    owner_id=None,
                    title=page.title,
                    source_url=None,
                    heading=chunk.heading,
                    page=chunk.page,
                    content=chunk.content,
                    vector=None,
                )
            )
    return chunks


async def ask(
    question_sets: Mapping[str, Sequence[Question]],
    chunks: Sequence[IndexedChunk],
    page_by_chunk: dict[ChunkId, str],
    progress: Progress,
) -> dict[str, list[Outcome]]:
    """Index the chunks in a folder that is then thrown away, and ask every question once."""
    viewer = Viewer(UserId(uuid4()))
    outcomes: dict[str, list[Outcome]] = {name: [] for name in question_sets}
    with tempfile.TemporaryDirectory(prefix="parley-retrieval-") as folder:
        index = EdgeIndex(Path(folder), None)
        await index.open()
        try:
            indexing = progress.add_task("indexing", total=len(chunks))
            for start in range(0, len(chunks), BATCH_CHUNKS):
                batch = chunks[start : start + BATCH_CHUNKS]
                await index.put(batch)
                progress.advance(indexing, len(batch))
            for name, questions in question_sets.items():
                for question in progress.track(questions, description=f"asking {name}"):
                    started = time.perf_counter()
                    hits = await index.search(viewer, question["question"], None, limit=HITS)
                    seconds = time.perf_counter() - started
                    by_passage = [page_by_chunk[hit.chunk_id] for hit in hits]
                    # The book's index has the words of everything, and answers nothing.
                    by_passage = [page for page in by_passage if page != BOOK_INDEX]
                    found = list(dict.fromkeys(by_passage))[:FAR]
                    answers = set(question["pages"])
                    rank = next((n for n, page in enumerate(found, 1) if page in answers), None)
                    read = not answers.isdisjoint(by_passage[:PASSAGES_PER_SEARCH])
                    outcomes[name].append(Outcome(question, found, rank, read, seconds))
        finally:
            await index.close()
    return outcomes


def summary_table(name: str, outcomes: Sequence[Outcome]) -> Table:
    table = Table(title=f"Where the first page that answers stands: {name}")
    table.add_column("rank")
    table.add_column("questions", justify="right")
    bands = [("1", 1, 1), (f"2 to {NEAR}", 2, NEAR), (f"{NEAR + 1} to {FAR}", NEAR + 1, FAR)]
    for name, low, high in bands:
        count = sum(1 for outcome in outcomes if low <= (outcome.rank or 0) <= high)
        table.add_row(name, str(count))
    table.add_row(f"beyond {FAR}", str(sum(1 for outcome in outcomes if outcome.rank is None)))
    milliseconds = median(outcome.seconds for outcome in outcomes) * 1000
    table.caption = f"median search {milliseconds:.1f} ms"
    return table


def misses_table(misses: Sequence[Outcome]) -> Table:
    table = Table(title=f"Questions with no answer among the first {NEAR} pages", show_lines=True)
    table.add_column("question", ratio=3)
    table.add_column("answered by", ratio=2)
    table.add_column("rank", justify="right")
    table.add_column("found instead", ratio=2)
    for miss in misses:
        table.add_row(
            miss.question["question"],
            "\n".join(miss.question["pages"]),
            str(miss.rank or "-"),
            "\n".join(miss.found[:NEAR]),
        )
    return table


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--html", type=Path, metavar="DIR", help=f"the manual (default: {MANUAL})")
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="one set (default: both that stand here)"
    )
    parser.add_argument("--book-index", action="store_true", help="ask the manual's own index too")
    parser.add_argument("--limit-pages", type=int, metavar="N", help="a quick run; numbers flatter")
    parser.add_argument("--at-least", type=float, default=0.75, metavar="RECALL")
    parser.add_argument("--misses", action="store_true", help="list what was not found")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    html = cast("Path | None", options.html)
    if html is None and not MANUAL.is_dir():
        print(f"skipped: install {PACKAGE} (no {MANUAL})")
        return 0
    console = Console()
    one_file = cast("Path | None", options.questions)
    question_sets = {
        file.stem: cast("list[Question]", json.loads(file.read_text(encoding="utf-8")))
        for file in ([one_file] if one_file else QUESTION_FILES)
    }
    asked = [question for questions in question_sets.values() for question in questions]
    paths = pages_to_read(html or MANUAL, asked, cast("int | None", options.limit_pages))
    if options.book_index:
        data = ((html or MANUAL) / BOOK_INDEX).read_bytes()
        question_sets["book_index"] = [
            {"question": term, "pages": pages} for term, pages in entries(data).items()
        ]
    page_by_chunk: dict[ChunkId, str] = {}
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=console) as progress:
        pages = list(split_pages(paths, progress))
        chunks = indexed_chunks(pages, page_by_chunk)
        outcomes_by_set = asyncio.run(ask(question_sets, chunks, page_by_chunk, progress))

    for page in pages:
        if page.error:
            console.print(f"not read: {page.name}: {page.error}", markup=False)
    recalls: list[float] = []
    print(f"{len(pages)} pages, {len(chunks)} chunks")
    for name, outcomes in outcomes_by_set.items():
        misses = [outcome for outcome in outcomes if not 1 <= (outcome.rank or 0) <= NEAR]
        console.print(summary_table(name, outcomes))
        if misses and options.misses:
            console.print(misses_table(misses))
        recalls.append(1 - len(misses) / len(outcomes))
        read = sum(outcome.read for outcome in outcomes) / len(outcomes)
        reciprocal = sum(1 / outcome.rank for outcome in outcomes if outcome.rank) / len(outcomes)
        print(
            f"{name}: recall@{NEAR} {recalls[-1]:.3f}  MRR {reciprocal:.3f}  "
            f"among the {PASSAGES_PER_SEARCH} passages {read:.3f}  ({len(outcomes)} questions)"
        )
    return 0 if min(recalls) >= cast("float", options.at_least) else 1


if __name__ == "__main__":
    sys.exit(main())
