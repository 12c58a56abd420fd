"""Web pages: the main content as nearly Markdown, without what surrounds it.

Measured on the PostgreSQL manual (DocBook) and Python's (Sphinx): trafilatura loses DocBook's
headings and keeps Sphinx's pilcrows. A walk by hand keeps the headings, and drops the navigation
of both generators by its classes.
"""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

from rag.extraction.plain_text import decode
from rag.extraction.sections import Extracted, ExtractionError, Outline, fenced, table

NESTING_MAX_ELEMENTS = 2_000
# The parser's time grows with the square of the nesting (0.2 s for 10,000, 38 s for 100,000), and
# browsers stop at 512. More is allowed because the count is an estimate, too high for sloppy pages.

_TAG = re.compile(r"<(/?)([a-z][a-z0-9-]*)", re.I)
_NEVER_NESTED = frozenset(
    # void elements, and those whose end tag may be left out
    "area base br col embed hr img input link meta source track wbr "
    "p li dt dd tr td th thead tbody tfoot option optgroup colgroup rp rt html head body".split()
)

_SURROUNDINGS = (
    "script, style, noscript, template, iframe, object, svg, canvas, select, button, "
    "nav, footer, aside:not(.footnote-list):not(.topic), body > header, [hidden], "
    "[role=navigation], [role=search], [role=banner], [role=contentinfo], "
    # Sphinx
    ".headerlink, .viewcode-link, .linenos, .sphinxsidebar, .related, "
    # DocBook
    ".navheader, .navfooter, .toc"
)
_HEADINGS = {f"h{level}": level for level in range(1, 7)}
_TITLE_LEVELS = (1, 2)  # DocBook begins its pages with h2
_BLOCKS = frozenset(
    "address article aside blockquote body caption center dd details div dl dt fieldset figcaption "
    "figure footer form header hr li main ol p pre section summary table tbody td tfoot th thead "
    "tr ul".split()
).union(_HEADINGS)
_UNDER_NOTHING = (
    ":is(.note, .tip, .warning, .caution, .important, .admonition, blockquote) "
    f":is({', '.join(_HEADINGS)})"
)
# DocBook heads its notes like sections: what follows a note doesn't stand under it.
_LAYOUT = ", ".join(("table", "pre", *_HEADINGS))
# A table that holds one of these, besides itself, lays out a page.
_WHITESPACE = re.compile(r"\s+")


def read(data: bytes) -> Extracted:
    """Sections by heading. The title is an `h1` or `h2` that begins the content, else `<title>`."""
    text = decode(data)
    if _nesting(text) > NESTING_MAX_ELEMENTS:
        raise ExtractionError("The page's elements are nested too deeply.")
    page = LexborHTMLParser(text)
    head = page.css_first("title")
    title = " ".join(head.text().split()) if head else ""
    skipped = {node.mem_id for node in page.css(_SURROUNDINGS)}
    plain = {node.mem_id for node in page.css(_UNDER_NOTHING)}
    extracted = Extracted(title, [])
    for main in _main_content(page):
        extracted = _Reader(skipped, plain).read(main, title)
        if extracted.sections:
            break
    return extracted


def _nesting(text: str) -> int:
    """Estimate from the tags alone how deep elements stand in each other."""
    depth = deepest = 0
    for closing, name in _TAG.findall(text):
        if name.lower() not in _NEVER_NESTED:
            depth = max(0, depth - 1) if closing else depth + 1
            deepest = max(deepest, depth)
    return deepest


def _main_content(page: LexborHTMLParser) -> Iterator[LexborNode]:
    """Give the parts that may be the content, likeliest first: an app's may still be empty."""
    yield from page.css("[role=main], main")[:1]
    articles = page.css("article")
    if len(articles) == 1:
        yield articles[0]
    if page.body:
        yield page.body


def _walk(root: LexborNode, skipped: set[int]) -> Iterator[tuple[LexborNode, bool]]:
    """Give every node twice, entered (true) and left, without recursion."""
    stack = [(root, False)]
    while stack:
        node, entered = stack.pop()
        yield node, not entered
        if entered:
            continue
        stack.append((node, True))
        child = node.last_child
        while child is not None:
            if child.mem_id not in skipped:
                stack.append((child, False))
            child = child.prev


class _Reader:
    """Writes an outline of what it walks over."""

    def __init__(self, skipped: set[int], plain: set[int]) -> None:
        self._skipped = skipped
        self._plain = plain  # headings that are no more than a line of text
        self._outline = Outline()
        self._inline: list[str] = []  # text since the last block ended
        self._marker = ""  # what the next block begins with
        self._preformatted = False
        self._rows: list[list[str]] | None = None  # of the data table that is being read
        self._begins = True
        self._title = ""

    def read(self, root: LexborNode, title: str) -> Extracted:
        for node, entering in _walk(root, self._skipped):
            if entering:
                self._enter(node, node.tag or "")
            else:
                self._leave(node, node.tag or "")
        self._end_block()
        return self._outline.extracted(self._title or title or None)

    def _enter(self, node: LexborNode, tag: str) -> None:
        if tag == "-text":
            text = node.text_content or ""
            self._inline.append(text if self._preformatted else _WHITESPACE.sub(" ", text))
        elif tag == "br":
            self._inline.append("\n")
        elif self._preformatted:
            pass
        elif self._rows is not None:
            if tag == "tr":
                self._rows.append([])
            elif tag in _BLOCKS:
                self._inline.append(" ")
        elif tag in _BLOCKS:
            self._end_block()
            self._preformatted = tag == "pre"
            if tag == "li":
                self._marker = "- "
            elif tag == "table" and len(node.css(_LAYOUT)) == 1:
                self._rows = []

    def _leave(self, node: LexborNode, tag: str) -> None:
        if tag == "pre" and self._preformatted:
            self._preformatted = False
            self._add(fenced(self._taken()))
        elif self._preformatted:
            pass
        elif self._rows is not None:
            if tag in ("td", "th") and self._rows:
                self._rows[-1].append(self._taken())
            elif tag == "caption":
                self._end_block()
            elif tag == "table":
                self._add(table(self._rows))
                self._rows = None
        elif tag in _HEADINGS and node.mem_id not in self._plain:
            self._heading(_HEADINGS[tag], " ".join(self._taken().split()))
        elif tag in _BLOCKS:
            self._end_block()

    def _heading(self, level: int, text: str) -> None:
        if self._begins and level in _TITLE_LEVELS:
            self._title = text
        self._begins = self._begins and not text
        self._outline.heading(level, text)

    def _end_block(self) -> None:
        lines = (" ".join(line.split()) for line in self._taken().split("\n"))
        self._add("\n".join(lines).strip())

    def _add(self, block: str) -> None:
        if block:
            self._outline.add(self._marker + block)
            self._marker = ""
            self._begins = False

    def _taken(self) -> str:
        text = "".join(self._inline)
        self._inline.clear()
        return text
