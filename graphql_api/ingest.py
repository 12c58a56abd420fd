"""`parley ingest`: files, folders and web addresses, added and awaited with a progress bar."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from db.documents import DocumentRow
from db.engine import Database
from db.ids import DocumentId
from db.ingestion import documents_under_way
from db.models import IngestionStatus
from db.viewer import Viewer
from resolvers.errors import InvalidInput
from resolvers.intake import FileSource, Intake, Source, UrlSource

SUFFIXES = {".md", ".markdown", ".txt", ".text", ".html", ".htm", ".pdf", ".docx"}
"What is taken from a folder. A file that is named is taken whatever it is called."
POLL_SECONDS = 0.2
"How often the documents that another process reads are looked at."
BATCH = 500
"Documents looked at by one statement."


class ReaderGone(Exception):
    """Whoever was to read the documents went away; the message is one line."""


@dataclass(slots=True)
class Summary:
    """How an ingestion went, by the names that were given."""

    added: list[str] = field(default_factory=list[str])
    unchanged: list[str] = field(default_factory=list[str])
    failed: dict[str, str] = field(default_factory=dict[str, str])

    def print(self, console: Console) -> None:
        for name, reason in self.failed.items():
            console.print(
                f"[red]failed[/] {escape(name)}: {escape(reason)}", highlight=False, soft_wrap=True
            )
        console.print(
            f"{len(self.added)} added, {len(self.unchanged)} unchanged, {len(self.failed)} failed",
            highlight=False,
        )


def found_sources(places: Sequence[str]) -> Iterator[tuple[str, str | Path]]:
    """Walk what was named: (what to call it, its address or file), folders in order of name."""
    for place in places:
        if place.startswith(("http://", "https://")):
            yield place, place
            continue
        path = Path(place)
        if path.is_dir():
            for file in sorted(path.rglob("*")):
                hidden = any(part.startswith(".") for part in file.relative_to(path).parts)
                if file.is_file() and not hidden and file.suffix.lower() in SUFFIXES:
                    yield str(file), file
        else:
            yield place, path


async def ingest(
    places: Sequence[str],
    viewer: Viewer,
    intake: Intake,
    database: Database,
    *,
    shared: bool,
    console: Console,
    is_attended: Callable[[], bool] = lambda: True,
) -> Summary:
    """Add everything and wait until each document is READY or FAILED."""
    summary = Summary()
    waiting: dict[DocumentId, str] = {}
    with _progress(console) as progress:
        found = list(found_sources(places))
        adding = progress.add_task("Adding", total=len(found))
        for name, where in found:
            try:
                added = await intake.add(
                    viewer,
                    await asyncio.to_thread(_source, where),
                    title=None,
                    shared=shared,
                    request_id="cli",
                )
            except (InvalidInput, OSError) as error:
                reason = error.strerror if isinstance(error, OSError) else str(error)
                summary.failed[name] = reason or str(error)
            else:
                if added.is_new or added.document.ingestion_status != IngestionStatus.READY:
                    if added.document.id in waiting:  # the same bytes, twice
                        summary.unchanged.append(name)
                    waiting.setdefault(added.document.id, name)
                else:
                    summary.unchanged.append(name)
            progress.advance(adding)
        reading = progress.add_task("Reading", total=len(waiting))
        async for row in _ended(database, set(waiting), is_attended):
            name = waiting[row.id]
            if row.ingestion_status == IngestionStatus.READY:
                summary.added.append(name)
            else:
                summary.failed[name] = row.error or "It could not be read."
            progress.advance(reading)
    return summary


async def _ended(
    database: Database, ids: set[DocumentId], is_attended: Callable[[], bool]
) -> AsyncGenerator[DocumentRow]:
    """Give each document as it ends."""
    while ids:
        if not is_attended():
            raise ReaderGone("the server that was reading has gone; run the command again")
        some = sorted(ids)[:BATCH]
        rows = await documents_under_way(database, some)
        ended = [
            row
            for row in rows
            if row.ingestion_status in (IngestionStatus.READY, IngestionStatus.FAILED)
        ]
        for row in ended:
            yield row
        ids -= {row.id for row in ended} | (set(some) - {row.id for row in rows})
        if not ended:
            await asyncio.sleep(POLL_SECONDS)


def _source(where: str | Path) -> Source:
    if isinstance(where, str):
        return UrlSource(where)
    return FileSource(where.read_bytes(), where.name)


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
    )
