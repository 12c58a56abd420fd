"""Text files, and the decoding that Markdown and HTML share with them."""

import codecs
import re

from rag.extraction.sections import Extracted, Section

_BYTE_ORDER_MARKS = {
    codecs.BOM_UTF8: "utf-8",
    codecs.BOM_UTF32_LE: "utf-32-le",  # before UTF-16, whose mark is the start of this one
    codecs.BOM_UTF16_LE: "utf-16-le",
    codecs.BOM_UTF16_BE: "utf-16-be",
}

_SAMPLE_BYTES = 64 * 1024
_CONTROLS = bytes({*range(0x20), 0x7F} - set(b"\t\n\f\r\x1b"))
_CONTROLS_AT_MOST = 0.01
# A stray NUL or bell is a blemish. Compiled, compressed and UTF-16 files have ten times as many.

_META_CHARSET = re.compile(rb"""<meta[^>]{0,200}charset\s*=\s*["']?([\w-]+)""", re.I)
_META_WITHIN_BYTES = 4096


def read(data: bytes) -> Extracted:
    """One section: plain text has no headings that can be told from its text."""
    return Extracted(None, [Section(decode(data))])


def is_text(data: bytes) -> bool:
    """Tell text from binary data: by a byte order mark, or how few control characters it has."""
    sample = data[:_SAMPLE_BYTES]
    if data.startswith(tuple(_BYTE_ORDER_MARKS)):
        return True
    controls = len(sample) - len(sample.translate(None, _CONTROLS))
    return controls <= len(sample) * _CONTROLS_AT_MOST


def decode(data: bytes) -> str:
    r"""Decode by byte order mark, as UTF-8, as an HTML page's `meta` says, or as Windows' Latin-1.

    Never fails: the last resort gives every byte a character. Lines end in `\n`.
    """
    return _decoded(data).replace("\r\n", "\n").replace("\r", "\n")


def _decoded(data: bytes) -> str:
    for mark, encoding in _BYTE_ORDER_MARKS.items():
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, "replace")
    meta = _META_CHARSET.search(data[:_META_WITHIN_BYTES])
    for encoding in ("utf-8", meta[1].decode() if meta else "cp1252", "cp1252"):
        try:
            return data.decode(encoding)
        except (UnicodeError, LookupError):
            continue
    return data.decode("latin-1")
