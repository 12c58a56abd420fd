"""Markdown: its headings are found, the rest of its text is left as it is."""

import re

from rag.extraction.plain_text import decode
from rag.extraction.sections import Extracted, Outline, next_fence

_FRONT_MATTER = re.compile(r"---\n(?=[\w-]+:).*?\n(?:---|\.\.\.)[ \t]*(?:\n|\Z)", re.S)
_FRONT_TITLE = re.compile(r"""^title:[ \t]*(["']?)(.+?)\1[ \t]*$""", re.M)
_ATX = re.compile(r" {0,3}(#{1,6})(?:[ \t]+(.*))?$")
_ATX_END = re.compile(r"(?:^|[ \t])(?:#+|\{[#.:][^{}]*\})[ \t]*$")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})[ \t]*$")
_NO_PARAGRAPH = re.compile(r"\s*$| {4}|\t|\s*(?:[-*+>|]|\d+[.)])")
_LINK = re.compile(r"!?\[([^\[\]]*)\](?:\([^()]*\)|\[[^\[\]]*\])")


def read(data: bytes) -> Extracted:
    """Sections by heading. The title is the first `#` heading, else the front matter's."""
    text = decode(data)
    front = _FRONT_MATTER.match(text)
    outline = Outline()
    title: str | None = None
    block: list[str] = []
    fence: str | None = None
    for line in text[front.end() if front else 0 :].split("\n"):
        level = 0
        before, fence = fence, next_fence(fence, line)
        if before or fence:
            pass
        elif atx := _ATX.match(line):
            level, line = len(atx[1]), _ATX_END.sub("", atx[2] or "")
        elif (under := _UNDERLINE.match(line)) and block and not _NO_PARAGRAPH.match(block[-1]):
            level, line = (1 if under[1][0] == "=" else 2), block.pop()
        if level == 0:
            block.append(line)
            continue
        outline.add("\n".join(block))
        block = []
        words = " ".join(_LINK.sub(r"\1", line).replace("**", "").replace("`", "").split())
        outline.heading(level, words)
        if level == 1:
            title = title or words
    outline.add("\n".join(block))
    if front and not title and (named := _FRONT_TITLE.search(front[0])):
        title = named[2]
    return outline.extracted(title or None)
