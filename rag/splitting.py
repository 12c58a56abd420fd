"""A document's sections to chunks: what is searched, cited, and read as one passage."""

from collections.abc import Iterator
from dataclasses import dataclass

from semantic_text_splitter import MarkdownSplitter

from rag.extraction import Extracted, Section
from rag.extraction.sections import HEADING_SEPARATOR, next_fence

CHUNK_MAX_CHARACTERS = 1_400
# About 350 tokens of English: long enough to answer a question, and short enough that BM25's
# length norm doesn't drown one good sentence and ten passages fit into a prompt. Characters and
# not tokens because merging has to measure too, and a tokenizer takes four times as long.

_WINDOW_CHARACTERS = 20_000
# The splitter's time grows with the square of text that it finds no boundary in: 300,000
# characters of Chinese without a full stop took 11 s, in windows of this size they take 0.7 s.

_JOINT_CHARACTERS = len("\n\n### \n\n")
_BOUNDARIES = ("\n\n", "\n", " ")
_SPLITTER = MarkdownSplitter(CHUNK_MAX_CHARACTERS)

_Path = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Chunk:
    """A passage of a document. `ordinal` counts from 0 in the order of reading.

    `heading` is the path that all of it stands under, which `content` does not repeat.
    `page` is the one it begins on.
    """

    ordinal: int
    content: str
    heading: str | None
    page: int | None


def split(extracted: Extracted) -> list[Chunk]:
    """Cut long sections and join short neighbours: the same sections give the same chunks.

    No chunk is blank, and none but a split code block's is longer than `CHUNK_MAX_CHARACTERS`.
    """
    passages = [
        (content, heading, group[0].page)
        for group in _groups(extracted.sections)
        for heading, text in [_joined(group)]
        for content in _pieces(text)
    ]
    return [Chunk(ordinal, *passage) for ordinal, passage in enumerate(passages)]


def _groups(sections: list[Section]) -> Iterator[list[Section]]:
    """Gather short sections that follow each other on one page, under one parent."""
    group: list[Section] = []
    length = 0
    for section in sections:
        added = len(section.text) + len(section.heading or "") + _JOINT_CHARACTERS
        if group and not (
            length + added <= CHUNK_MAX_CHARACTERS
            and section.page == group[0].page
            and _related(_path(group[0]), _path(section))
        ):
            yield group
            group, length = [], 0
        length += added
        group.append(section)
    if group:
        yield group


def _related(first: _Path, other: _Path) -> bool:
    """Tell whether `other` is the same, a sibling, or a child of `first`."""
    return other == first or (bool(other) and other[:-1] in (first, first[:-1]))


def _joined(group: list[Section]) -> tuple[str | None, str]:
    """Give the heading that all stand under, and their text with the headings beneath it."""
    paths = [_path(section) for section in group]
    shared = paths[0]
    while any(path[: len(shared)] != shared for path in paths):
        shared = shared[:-1]
    blocks: list[str] = []
    written = shared
    for section, path in zip(group, paths, strict=True):
        if path != written:
            blocks.append("### " + HEADING_SEPARATOR.join(path[len(shared) :]))
            written = path
        blocks.append(section.text)
    return HEADING_SEPARATOR.join(shared) or None, "\n\n".join(blocks)


def _path(section: Section) -> _Path:
    return tuple(section.heading.split(HEADING_SEPARATOR)) if section.heading else ()


def _pieces(text: str) -> Iterator[str]:
    """Cut a text; a code block that is cut is closed in one piece and opened again in the next."""
    opening: str | None = None
    for window in _windows(text):
        for piece in _SPLITTER.chunks(window):
            if not piece.strip():
                continue
            content = f"{opening}\n{piece}" if opening else piece
            for line in piece.split("\n"):
                opening = next_fence(opening, line)
            yield f"{content}\n{opening}" if opening else content


def _windows(text: str) -> Iterator[str]:
    start = 0
    while len(text) - start > _WINDOW_CHARACTERS:
        end = start + _WINDOW_CHARACTERS
        cuts = (
            text.rfind(boundary, start + _WINDOW_CHARACTERS // 2, end) for boundary in _BOUNDARIES
        )
        cut = next((cut for cut in cuts if cut > 0), end)
        yield text[start:cut]
        start = cut
    yield text[start:]
