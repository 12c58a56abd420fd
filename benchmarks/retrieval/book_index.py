"""The manual's own index as a thousand short queries, which tune what forty questions can't.

Its authors wrote the terms and judged the pages. Terms are keywords rather than questions,
much like what a language model searches for.
"""

import re
from collections.abc import Iterator

from selectolax.lexbor import LexborHTMLParser, LexborNode

_TERM_WORDS = range(2, 12)
# One word alone names no page, and longer ones are lists that the markup runs together.
_PAGES_MAX = 3
_LINK = re.compile(r"<a\b")
_TAG = re.compile(r"<[^>]*>")


def entries(data: bytes) -> dict[str, list[str]]:
    """Read terms, with those that they stand under, and the few pages that each leads to."""
    found: dict[str, set[str]] = {}
    for listing in LexborHTMLParser(data.decode()).css("div.indexdiv > dl"):
        for term, page in _references(listing, ()):
            found.setdefault(term, set()).add(page)
    return {
        term: sorted(pages)
        for term, pages in found.items()
        if len(term.split()) in _TERM_WORDS and len(pages) <= _PAGES_MAX
    }


def _references(listing: LexborNode, above: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    terms = above
    for item in listing.iter():
        if item.tag == "dt":
            label = LexborHTMLParser(_TAG.sub("", _LINK.split(item.html or "")[0])).text()
            terms = (*above, " ".join(label.split()).strip(" ,"))
            for link in item.css("a"):
                yield " ".join(terms), (link.attributes.get("href") or "").partition("#")[0]
        elif item.tag == "dd":
            for nested in item.css("dl")[:1]:
                yield from _references(nested, terms)
