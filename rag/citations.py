"""Citations: what a reply may point to, and the markers in its text that do.

A marker is `[n]`, or several in one, `[1, 2]`. Models write markers that no passage has;
those never reach the reader. What stands in code is code: `rows[1]` is left alone there.
"""

import re
from collections.abc import Container
from dataclasses import dataclass

from db.ids import DocumentId
from rag.ports import Passage

SNIPPET_CHARS = 500
"Two or three sentences: enough to check a claim against, small enough to store with every message."


@dataclass(frozen=True, slots=True)
class Citation:
    """A snapshot of a passage as the reply's author read it: it outlives its document.

    `marker` is the n of `[n]`, 1-based, and the same for the whole reply.
    """

    marker: int
    document_id: DocumentId
    title: str
    source_url: str | None
    snippet: str
    score: float


def cite(marker: int, passage: Passage) -> Citation:
    return Citation(
        marker=marker,
        document_id=passage.document_id,
        title=passage.title,
        source_url=passage.source_url,
        snippet=shortened(passage.content, SNIPPET_CHARS),
        score=passage.score,
    )


def shortened(text: str, limit: int) -> str:
    """Cut a text between two words to at most `limit` characters, the ellipsis included."""
    text = text.strip()
    if len(text) <= limit:
        return text
    head = text[:limit]  # one more than fits, to see whether a word ends there
    end = max((space.start() for space in re.finditer(r"\s+", head)), default=limit - 1)
    if end < limit // 2:  # a word longer than half of it all (or no spaces, as in Chinese)
        end = limit - 1
    return head[:end].rstrip() + "…"


def without_markers(text: str) -> str:
    """Drop the markers of an earlier reply: their numbers mean other passages by now."""
    markers = MarkerFilter(())
    return markers.feed(text) + markers.finish()


def used_markers(text: str, known: Container[int]) -> set[int]:
    """Find the markers of known passages in a text that is whole, or broke off."""
    markers = MarkerFilter(known)
    markers.feed(text)
    markers.finish()
    return markers.used


_NUMBER = r"[1-9][0-9]{0,2}"
"[0] is an index, and [2024] a year: no reply has a thousand passages."
_MARKER = re.compile(rf" ?\[ ?({_NUMBER}(?: ?, ?{_NUMBER}){{0,9}}) ?\]")
_MARKER_SO_FAR = re.compile(r" ?(?:\[[0-9 ,]{0,60}\]?)?")
"Fits every beginning of a marker, and little else. The longest marker has 59 characters inside."
_TOKEN = re.compile(r"[^\W\d_][^\[`~\\\n]*(?<! )|.", re.DOTALL)
"""Prose, from a letter up to what may mean something and the spaces before it, or one character.
Most of a text is prose, so this is eight times as fast as going by characters."""


class MarkerFilter:
    """Removes, from a text that comes in pieces, the markers that no passage has.

    What comes out does not depend on where the pieces were cut: what might be a marker is
    held back until it is one or can't be. A marker goes together with the one space before
    it; of `[1, 7]` the known ones stay. Links (`[1](…)`), footnotes (`[^1]`), escaped brackets
    and everything in code spans and fences pass through untouched.

    `known` may grow between two pieces. `used` collects the markers that stand in the text.
    """

    def __init__(self, known: Container[int]) -> None:
        self.used: set[int] = set()
        self._known = known
        self._held = ""
        self._code = _CodeTracker()

    def feed(self, text: str) -> str:
        return "".join(map(self._take, _TOKEN.findall(text)))

    def finish(self) -> str:
        """Let go of what is still held back. The text ends here."""
        held, self._held = self._held, ""
        return self._checked(held)

    def _take(self, token: str) -> str:
        literal = self._code.protects(token)
        if self._held and _MARKER_SO_FAR.fullmatch(self._held + token):
            self._held += token
            return ""
        ready = self._held if token == "(" else self._checked(self._held)  # `[1](` begins a link
        self._held = "" if literal or token not in " [" else token
        return ready if self._held else ready + token

    def _checked(self, text: str) -> str:
        marker = _MARKER.fullmatch(text)
        if not marker:
            return text
        numbers = [int(number) for number in marker[1].split(",")]
        known = [number for number in numbers if number in self._known]
        self.used.update(known)
        if known == numbers:
            return text
        space = " " if text.startswith(" ") else ""
        return f"{space}[{', '.join(map(str, known))}]" if known else ""


class _CodeTracker:
    """Follows Markdown, token by token, to tell what is code (CommonMark 0.31: 4.5 and 6.1).

    It can't look ahead, so a code span that is never closed counts as one up to the end of
    its paragraph. Code by indentation is not told from the text of a list.
    """

    def __init__(self) -> None:
        self._fence = ""  # what opened the block we are in
        self._span = ""  # what opened the span we are in, or the block whose first line we read
        self._opens_block = False
        self._run = ""  # the backticks or tildes just read
        self._margin = True  # nothing but indentation, quote and list marks on this line so far
        self._escaped = False

    def protects(self, token: str) -> bool:
        """Read one more token and tell whether it is code, or escaped."""
        if self._run and token == self._run[0]:
            self._run += token
            return True
        if self._run:
            self._end_run(self._run, before_space=token.isspace())
            self._run = ""
        in_code = bool(self._fence or self._span)
        escaped, self._escaped = self._escaped, False
        if token == "\n":
            self._end_line()
        elif token in "`~" and not escaped:
            self._run = token
        else:
            self._escaped = token == "\\" and not escaped and not in_code
            self._margin = self._margin and token in " \t>-*+.)0123456789"
        return in_code or escaped

    def _end_run(self, run: str, *, before_space: bool) -> None:
        starts_line, self._margin = self._margin, False
        if self._fence:
            if starts_line and before_space and run.startswith(self._fence):
                self._fence = ""
        elif run == self._span:
            self._span = ""
        elif self._span:
            self._opens_block = self._opens_block and run[0] != self._span[0]
        elif run[0] == "`" or (starts_line and len(run) >= 3):
            self._span = run
            self._opens_block = starts_line and len(run) >= 3

    def _end_line(self) -> None:
        if self._span and self._opens_block:
            self._fence = self._span
        if self._opens_block or self._margin:  # a line of nothing ends the paragraph
            self._span = ""
        self._opens_block = False
        self._margin = True
