"""PDF files, by page; the bookmarks, where there are any, are the headings."""

import io
import logging
import re
from collections.abc import Iterator, Sequence

from pypdf import PdfReader
from pypdf.errors import DependencyError
from pypdf.generic import Destination

from rag.extraction.sections import (
    HEADING_MAX_CHARACTERS,
    HEADING_SEPARATOR,
    Extracted,
    ExtractionError,
    Section,
)

# pypdf logs a line for every flaw of every file. What can't be read is said by ExtractionError.
logging.getLogger("pypdf").setLevel(logging.CRITICAL)

_HYPHENATED = re.compile(r"(?<=[a-z])-\n(?=[a-z])")
_NO_TITLE = re.compile(r"\W*$|untitled|microsoft |.*\.\w{2,5}$", re.I)
# What programs put there by themselves: "Microsoft Word - report.doc".

_Bookmarks = Sequence["Destination | _Bookmarks"]


def read(data: bytes) -> Extracted:
    """One section per page that has text."""
    try:
        document = PdfReader(io.BytesIO(data))
        if document.is_encrypted and not document.decrypt(""):
            raise ExtractionError("The PDF is protected by a password.")
        headings = _headings(document)
        sections = [
            Section(text, headings.get(number), number)
            for number, page in enumerate(document.pages, 1)
            if (text := _HYPHENATED.sub("", page.extract_text()).strip())
        ]
    except DependencyError as error:
        raise ExtractionError("The PDF is encrypted in a way that can't be read here.") from error
    if not sections:
        raise ExtractionError("It has no text (a scan?): only a PDF that holds text can be read.")
    return Extracted(_title(document), sections)


def _title(document: PdfReader) -> str | None:
    named = document.metadata.title if document.metadata else None
    title = " ".join((named or "").split())
    return None if _NO_TITLE.match(title) else title


def _headings(document: PdfReader) -> dict[int, str]:
    """Name every page by the last bookmark at or before it; a page by its first where it has many.

    Flawed bookmarks, which are common, cost the headings and not the text.
    """
    first_on_page: dict[int, str] = {}
    last_on_page: dict[int, str] = {}
    try:
        for path, bookmark in _flat(document.outline):
            page = document.get_destination_page_number(bookmark)
            if page is not None:
                heading = HEADING_SEPARATOR.join(path)
                first_on_page.setdefault(page + 1, heading)
                last_on_page[page + 1] = heading
    except Exception:
        return {}
    headings: dict[int, str] = {}
    current: str | None = None
    for number in range(1, len(document.pages) + 1):
        if current or number in first_on_page:
            headings[number] = first_on_page.get(number) or current or ""
        current = last_on_page.get(number, current)
    return headings


def _flat(
    bookmarks: _Bookmarks, above: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], Destination]]:
    path = above
    for entry in bookmarks:
        if isinstance(entry, Destination):
            path = (*above, " ".join((entry.title or "").split())[:HEADING_MAX_CHARACTERS])
            yield path, entry
        else:
            yield from _flat(entry, path)
