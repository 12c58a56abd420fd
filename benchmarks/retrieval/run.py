"""Measure how often a search finds the page that answers, in PostgreSQL's and Python's manuals.

Everything between the bytes of a page and the ranked chunks is the product's own code, as
it runs with nothing configured: no embedder, the index in process. Exit codes: 0 good
enough, or skipped for want of the pages; 1 recall@5 of a set below its floor; 2 wrong usage.
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
PYTHON_PACKAGE = "python3-doc"
PYTHON_MANUAL = Path("/usr/share/doc") / PYTHON_PACKAGE / "html"
# Page names start with the manual's. Sets that name none are asked of PostgreSQL's alone.
POSTGRESQL, PYTHON = "postgresql/", "python/"
QUESTION_FILES = [
    Path(__file__).with_name(name) for name in ("developer.json", "questions.json", "held_out.json")
]
# Written to avoid the manual's own words, and so with a floor of their own.
PARAPHRASED = frozenset({"questions", "held_out"})
BOOK_INDEX = "bookindex.html"
# Indexes, a table of contents and the search form: never answers, nor worth minutes of reading.
PYTHON_LEFT_OUT = ("genindex", "contents.html", "py-modindex.html", "search.html", "_static")
NEAR, FAR = 5, 10
HITS = 50
# Chunks asked for. A page may hold several of the best ones, and `FAR` different pages are wanted.
BATCH_CHUNKS = 256


class Question(TypedDict):
    """`pages` are file names, below the manual's name where there are two; any of them answers."""

    question: str
    pages: list[str]


@dataclass(frozen=True, slots=True)
class QuestionSet:
    """Questions whose pages all start with the manual's name. `both` asks the two manuals."""

    name: str
    questions: Sequence[Question]
    both: bool


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


def split_page(name: str, path: Path) -> SplitPage:
    """Read a page and cut it into chunks, in a process of its own."""
    data = path.read_bytes()
    try:
        extracted = extract(data, media_type(data, path.name, None))
    except ExtractionError as error:
        return SplitPage(name, name, (), repr(error))
    return SplitPage(name, extracted.title or path.name, split(extracted))


def question_set(name: str, questions: Sequence[Question]) -> QuestionSet:
    """Put the manual's name before pages that lack one."""
    both = any(page.startswith((POSTGRESQL, PYTHON)) for q in questions for page in q["pages"])
    if both:
        return QuestionSet(name, questions, both)
    named = [
        Question(question=q["question"], pages=[POSTGRESQL + page for page in q["pages"]])
        for q in questions
    ]
    return QuestionSet(name, named, both)


def pages_to_read(
    html: Path, python_html: Path | None, sets: Sequence[QuestionSet], limit: int | None
) -> dict[str, Path]:
    """List the pages, those that answer before the others, so that a limit never removes them."""
    wanted = {page for asked in sets for q in asked.questions for page in q["pages"]}
    found = {POSTGRESQL + path.name: path for path in html.glob("*.html")}
    if python_html is not None:
        for path in python_html.rglob("*.html"):
            name = path.relative_to(python_html).as_posix()
            if not name.startswith(PYTHON_LEFT_OUT):
                found[PYTHON + name] = path
    missing = wanted - found.keys()
    if missing:
        names = ", ".join(sorted(missing)[:NEAR])
        print(f"the manuals lack {len(missing)} pages that answer: {names}, …", file=sys.stderr)
        raise SystemExit(2)
    names = sorted(found, key=lambda name: (name not in wanted, name))
    kept = names if limit is None else names[: max(limit, len(wanted))]
    return {name: found[name] for name in kept}


def split_pages(paths: Mapping[str, Path], progress: Progress) -> Iterator[SplitPage]:
    """Split pages on every core, in their order."""
    # Spawned, because forking beside the progress bar's thread can deadlock.
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        yield from progress.track(
            pool.map(split_page, paths.keys(), paths.values(), chunksize=8),
            total=len(paths),
            description="reading",
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
    question_sets: Sequence[QuestionSet],
    chunks: Sequence[IndexedChunk],
    page_by_chunk: dict[ChunkId, str],
    progress: Progress,
) -> dict[str, list[Outcome]]:
    """Index the chunks in a folder that is then thrown away, and ask every question once."""
    viewer = Viewer(UserId(uuid4()))
    outcomes: dict[str, list[Outcome]] = {asked.name: [] for asked in question_sets}
    with tempfile.TemporaryDirectory(prefix="parley-retrieval-") as folder:
        index = EdgeIndex(Path(folder), None)
        await index.open()
        try:
            indexing = progress.add_task("indexing", total=len(chunks))
            for start in range(0, len(chunks), BATCH_CHUNKS):
                batch = chunks[start : start + BATCH_CHUNKS]
                await index.put(batch)
                progress.advance(indexing, len(batch))
            for asked in question_sets:
                for question in progress.track(asked.questions, description=f"asking {asked.name}"):
                    started = time.perf_counter()
                    hits = await index.search(viewer, question["question"], None, limit=HITS)
                    seconds = time.perf_counter() - started
                    by_passage = [page_by_chunk[hit.chunk_id] for hit in hits]
                    # The book's index has the words of everything, and answers nothing.
                    by_passage = [page for page in by_passage if page != POSTGRESQL + BOOK_INDEX]
                    found = list(dict.fromkeys(by_passage))[:FAR]
                    answers = set(question["pages"])
                    rank = next((n for n, page in enumerate(found, 1) if page in answers), None)
                    read = not answers.isdisjoint(by_passage[:PASSAGES_PER_SEARCH])
                    outcomes[asked.name].append(Outcome(question, found, rank, read, seconds))
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
    parser.add_argument(
        "--html", type=Path, metavar="DIR", help=f"PostgreSQL's (default: {MANUAL})"
    )
    parser.add_argument(
        "--python-html", type=Path, metavar="DIR", help=f"Python's (default: {PYTHON_MANUAL})"
    )
    parser.add_argument(
        "--questions", type=Path, metavar="FILE", help="one set (default: all that stand here)"
    )
    parser.add_argument("--book-index", action="store_true", help="ask the manual's own index too")
    parser.add_argument("--limit-pages", type=int, metavar="N", help="a quick run; numbers flatter")
    parser.add_argument(
        "--at-least", type=float, default=0.75, metavar="RECALL", help="recall@5 of developer.json"
    )
    parser.add_argument(
        "--paraphrased-at-least",
        type=float,
        default=0.6,
        metavar="RECALL",
        help="recall@5 of each of " + " and ".join(sorted(PARAPHRASED)),
    )
    parser.add_argument("--misses", action="store_true", help="list what was not found")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    html = cast("Path | None", options.html)
    if html is None and not MANUAL.is_dir():
        print(f"skipped: install {PACKAGE} (no {MANUAL})")
        return 0
    console = Console()
    python_html = cast("Path | None", options.python_html)
    if python_html is None and PYTHON_MANUAL.is_dir():
        python_html = PYTHON_MANUAL
    one_file = cast("Path | None", options.questions)
    sets: list[QuestionSet] = []
    for file in [one_file] if one_file else QUESTION_FILES:
        questions = cast("list[Question]", json.loads(file.read_text(encoding="utf-8")))
        asked = question_set(file.stem, questions)
        if asked.both and python_html is None:
            print(f"skipped {asked.name}: install {PYTHON_PACKAGE} (no {PYTHON_MANUAL})")
        else:
            sets.append(asked)
    if not any(asked.both for asked in sets):
        python_html = None
    limit = cast("int | None", options.limit_pages)
    paths = pages_to_read(html or MANUAL, python_html, sets, limit)
    if options.book_index:
        data = ((html or MANUAL) / BOOK_INDEX).read_bytes()
        terms: list[Question] = [
            {"question": term, "pages": pages} for term, pages in entries(data).items()
        ]
        sets.append(question_set("book_index", terms))
    if not sets:
        return 0
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    outcomes_by_set: dict[str, list[Outcome]] = {}
    counts: list[str] = []
    with Progress(*columns, console=console) as progress:
        pages = list(split_pages(paths, progress))
        for both in (True, False):
            asked_here = [asked for asked in sets if asked.both == both]
            if not asked_here:
                continue
            page_by_chunk: dict[ChunkId, str] = {}
            prefix = "" if both else POSTGRESQL
            indexed = [page for page in pages if page.name.startswith(prefix)]
            chunks = indexed_chunks(indexed, page_by_chunk)
            outcomes_by_set |= asyncio.run(ask(asked_here, chunks, page_by_chunk, progress))
            names = ", ".join(asked.name for asked in asked_here)
            counts.append(f"{names}: {len(indexed)} pages, {len(chunks)} chunks")

    for page in pages:
        if page.error:
            console.print(f"not read: {page.name}: {page.error}", markup=False)
    good = True
    print("\n".join(counts))
    for name, outcomes in outcomes_by_set.items():
        misses = [outcome for outcome in outcomes if not 1 <= (outcome.rank or 0) <= NEAR]
        console.print(summary_table(name, outcomes))
        if misses and options.misses:
            console.print(misses_table(misses))
        recall = 1 - len(misses) / len(outcomes)
        paraphrased = name in PARAPHRASED
        floor = options.paraphrased_at_least if paraphrased else options.at_least
        good = good and recall >= cast("float", floor)
        read = sum(outcome.read for outcome in outcomes) / len(outcomes)
        reciprocal = sum(1 / outcome.rank for outcome in outcomes if outcome.rank) / len(outcomes)
        print(
            f"{name}: recall@{NEAR} {recall:.3f}  MRR {reciprocal:.3f}  "
            f"among the {PASSAGES_PER_SEARCH} passages {read:.3f}  ({len(outcomes)} questions)"
        )
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
