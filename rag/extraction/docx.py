"""Word files: headings by their styles, paragraphs, lists and tables."""

import io
import re
import zipfile

from docx import Document
from docx.table import Table, _Cell
from docx.text.paragraph import Paragraph

from rag.extraction.sections import Extracted, ExtractionError, Outline, table

UNPACKED_MAX_BYTES = 100 * 1024 * 1024
# 100 KB can unpack to 100 MB of blanks, and the tree that is made of XML is ten times its text.

_HEADING_STYLE = re.compile(r"Heading ([1-9])$")
_DEFAULT_TITLE = "Word Document"  # python-docx's, for a file that has no properties


def read(data: bytes) -> Extracted:
    """Sections by heading. The title is the file's property, else its first title or heading."""
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        # Nothing reads more of an entry than its directory declares.
        if sum(entry.file_size for entry in archive.infolist()) > UNPACKED_MAX_BYTES:
            raise ExtractionError("The file is too large when unpacked.")
    document = Document(io.BytesIO(data))
    title = " ".join(document.core_properties.title.split())
    if title == _DEFAULT_TITLE:
        title = ""
    outline = Outline()
    for block in document.iter_inner_content():
        if isinstance(block, Table):
            outline.add(_table(block))
            continue
        level = _level(block)
        if level is None:
            outline.add(_marker(block) + block.text if block.text.strip() else "")
        else:
            title = title or " ".join(block.text.split())
            outline.heading(level, block.text)
    return outline.extracted(title or None)


def _style(paragraph: Paragraph) -> str:
    return (paragraph.style and paragraph.style.name) or ""


def _level(paragraph: Paragraph) -> int | None:
    style = _style(paragraph)
    if style == "Title":
        return 0
    heading = _HEADING_STYLE.match(style)
    return int(heading[1]) if heading else None


def _marker(paragraph: Paragraph) -> str:
    numbered = bool(paragraph._p.xpath("./w:pPr/w:numPr"))
    return "- " if numbered or _style(paragraph).startswith("List") else ""


def _table(block: Table) -> str:
    # Not `row.cells`: it repeats a cell as often as its gridSpan says, a billion times if it likes.
    return table([[_Cell(cell, block).text for cell in row.tc_lst] for row in block._tbl.tr_lst])
