"""What a file is: its first bytes count for more than its name, its name for more than a label."""

import io
import re
import zipfile

from rag.extraction.plain_text import is_text

MARKDOWN = "text/markdown"
PLAIN_TEXT = "text/plain"
HTML = "text/html"
PDF = "application/pdf"
DOCX = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"
UNKNOWN = "application/octet-stream"

_PDF_HEADER_WITHIN_BYTES = 1024
# Where readers look for it: mailers and web servers leave rubbish before it.

_HTML_START = re.compile(
    rb"(?:\xef\xbb\xbf)?(?:\s|<\?.*?\?>|<!--.*?-->)*+<(?:!doctype\s+)?html\b", re.I | re.S
)
_HTML_WITHIN_BYTES = 8192


def media_type(data: bytes, filename: str | None, declared: str | None) -> str:
    """Tell a file's type; `application/octet-stream` is none that can be read.

    `declared` is what a browser or web server says it is, with or without parameters.
    """
    if b"%PDF-" in data[:_PDF_HEADER_WITHIN_BYTES]:
        return PDF
    if data.startswith(b"PK\x03\x04"):
        return DOCX if _is_docx(data) else UNKNOWN
    if data.startswith(rb"{\rtf") or not is_text(data):
        return UNKNOWN
    name = (filename or "").lower()
    label = (declared or "").partition(";")[0].strip().lower()
    if name.endswith((".md", ".markdown")):
        return MARKDOWN
    if name.endswith((".html", ".htm", ".xhtml")) or _HTML_START.match(data[:_HTML_WITHIN_BYTES]):
        return HTML
    if label in (HTML, "application/xhtml+xml"):
        return HTML
    return MARKDOWN if label in (MARKDOWN, "text/x-markdown") else PLAIN_TEXT


def _is_docx(data: bytes) -> bool:
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            return "word/document.xml" in archive.namelist()
    except Exception:  # zipfile raises half a dozen kinds for a broken directory
        return False
