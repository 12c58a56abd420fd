"""What extraction gives, and the outline by which every format builds it."""

import re
from dataclasses import dataclass

HEADING_MAX_CHARACTERS = 200
# A longer one is a paragraph that someone made large, and every chunk beneath would repeat it.

HEADING_SEPARATOR = " > "

_BACKTICKS = re.compile("`+")
_FENCE = re.compile(r" {0,3}(`{3,}+(?!.*`)|~{3,})")


class ExtractionError(Exception):
    """The file has no text that can be read; the message is one sentence for a person."""


@dataclass(frozen=True, slots=True)
class Section:
    """Text, plain or nearly Markdown, that stands under one heading.

    `heading` is the path of headings ("Chapter > Section"), which `text` does not repeat; null
    before the first heading. `page` counts from 1; null where a format has no pages.
    """

    text: str
    heading: str | None = None
    page: int | None = None


@dataclass(frozen=True, slots=True)
class Extracted:
    """A document's sections in the order of reading. `title` is null where it doesn't say."""

    title: str | None
    sections: list[Section]


class Outline:
    """Gathers headings and blocks of text, in the order of reading, into sections."""

    def __init__(self) -> None:
        self._path: list[tuple[int, str]] = []
        self._blocks: list[str] = []
        self._leaf = False
        self._sections: list[tuple[tuple[str, ...], str]] = []

    def heading(self, level: int, text: str) -> None:
        """Begin a section, which contains those of a greater `level`; 1 is the highest."""
        text = " ".join(text.split())
        if not text:
            return
        if len(text) > HEADING_MAX_CHARACTERS:
            return self.add(text)
        self._close(next_level=level)
        while self._path and self._path[-1][0] >= level:
            self._path.pop()
        self._path.append((level, text))
        self._leaf = True

    def add(self, block: str) -> None:
        """Add a paragraph, a list item, a table or a code block."""
        if block.strip():
            self._blocks.append(block.strip("\n"))

    def extracted(self, title: str | None) -> Extracted:
        """End the document. A heading above all others that only repeats the title is left out."""
        self._close(next_level=0)
        under_title = all(path[:1] in ((), (title,)) for path, _ in self._sections)
        sections: list[Section] = []
        for path, text in self._sections:
            if under_title or path == (title,):
                path = path[1:]
            sections.append(Section(text, HEADING_SEPARATOR.join(path) or None))
        return Extracted(title, sections)

    def _close(self, next_level: int) -> None:
        path = tuple(text for _, text in self._path)
        if self._blocks:
            self._sections.append((path, "\n\n".join(self._blocks)))
        elif self._leaf and next_level <= self._path[-1][0]:
            # Nothing stands beneath it, so that the heading itself is what there is to read.
            self._sections.append((path[:-1], path[-1]))
        self._blocks = []
        self._leaf = False


def table(rows: list[list[str]]) -> str:
    """Write rows of cells as a Markdown table whose first row is the head, without blank rows."""
    lines = [
        "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|") for cell in row) + " |"
        for row in rows
        if any(cell.strip() for cell in row)
    ]
    if lines:
        lines.insert(1, "|" + " --- |" * max(map(len, rows)))
    return "\n".join(lines)


def fenced(code: str) -> str:
    """Write code as a Markdown block whose fence is longer than any in the code itself."""
    longest = max(map(len, _BACKTICKS.findall(code)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{code.strip(chr(10))}\n{fence}" if code.strip() else ""


def next_fence(fence: str | None, line: str) -> str | None:
    """Tell which fence is open after a line, given the one before it; null outside code blocks."""
    if fence is None:
        opening = _FENCE.match(line)
        return opening[1] if opening else None
    line = line.strip()
    return None if line.startswith(fence) and not line.strip(fence[0]) else fence
