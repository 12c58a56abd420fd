"""Bytes of a file to text with structure: what it says, under which headings, on which pages.

One module per format; each turns bytes into `Extracted` and raises `ExtractionError` where it
knows better than "damaged". All of it is blocking and heavy on the processor: call it in a thread.
"""

from collections.abc import Callable

from rag.extraction import docx, html, markdown, pdf, plain_text
from rag.extraction.media_types import DOCX, HTML, MARKDOWN, PDF, PLAIN_TEXT, media_type
from rag.extraction.sections import (
    HEADING_MAX_CHARACTERS,
    Extracted,
    ExtractionError,
    Section,
)

__all__ = ["SUPPORTED", "Extracted", "ExtractionError", "Section", "extract", "media_type"]

_READERS: dict[str, Callable[[bytes], Extracted]] = {
    MARKDOWN: markdown.read,
    PLAIN_TEXT: plain_text.read,
    HTML: html.read,
    PDF: pdf.read,
    DOCX: docx.read,
}

SUPPORTED = frozenset(_READERS)


def extract(data: bytes, mime_type: str) -> Extracted:
    """Read a file of a `SUPPORTED` type.

    Whatever the bytes are, the outcome is text that Postgres can hold or an `ExtractionError`;
    there is always at least one section, and none is blank.
    """
    read = _READERS.get(mime_type)
    if read is None:
        raise ExtractionError(f"Files of type {mime_type} can't be read.")
    if not data:
        raise ExtractionError("The file is empty.")
    try:
        extracted = read(data)
    except ExtractionError:
        raise
    # Parsers of hostile bytes raise whatever they happen to trip over, RecursionError included.
    except Exception as error:
        raise ExtractionError("The file is damaged and can't be read.") from error
    sections = [
        Section(_storable(section.text), _storable(section.heading or "") or None, section.page)
        for section in extracted.sections
        if _storable(section.text).strip()
    ]
    if not sections:
        raise ExtractionError("There is no text in it.")
    title = _storable(extracted.title or "").strip()[:HEADING_MAX_CHARACTERS]
    return Extracted(title or None, sections)


def _storable(text: str) -> str:
    """Leave out NUL and mend surrogates: PDF fonts yield both, Postgres holds neither."""
    return text.replace("\0", "").encode("utf-16", "surrogatepass").decode("utf-16", "replace")
