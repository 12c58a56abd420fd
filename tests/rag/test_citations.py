from collections.abc import Container
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.ids import ChunkId, DocumentId
from rag.citations import SNIPPET_CHARS, MarkerFilter, cite, shortened, without_markers
from rag.ports import Passage

KNOWN = frozenset({1, 2, 12})


def filtered(*pieces: str, known: Container[int] = KNOWN) -> str:
    markers = MarkerFilter(known)
    return "".join(map(markers.feed, pieces)) + markers.finish()


def used(text: str) -> set[int]:
    markers = MarkerFilter(KNOWN)
    markers.feed(text)
    markers.finish()
    return markers.used


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Known [1].", "Known [1]."),
        ("Two digits [12]", "Two digits [12]"),
        ("Unknown [7].", "Unknown."),
        ("Unknown [7] and on", "Unknown and on"),
        ("Close by[7].", "Close by."),
        ("Two spaces  [7]", "Two spaces "),
        ("Several [1, 2][12]", "Several [1, 2][12]"),
        ("Some known [1, 7]", "Some known [1]"),
        ("Some known [7,2, 12]", "Some known [2, 12]"),
        ("None known [7, 8] [9].", "None known."),
        ("Blanks inside [ 1 ] [ 7 ]", "Blanks inside [ 1 ]"),
        ("Nested [[7]]", "Nested []"),
    ],
)
def test_markers_that_no_passage_has_are_removed_with_their_space(text: str, expected: str):
    assert filtered(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "A link [7](https://example.org)",
        "An image ![7](x.png)",
        "A footnote [^7]",
        "A year [2024]",
        "An index a[0] and a[007]",
        "A range [7-9]",
        "A task\n- [ ] open\n- [x] done",
        "Escaped \\[7\\], and LaTeX \\[7, 8\\]",
        "An inline `rows[7]`",
        "Two backticks ``rows[`7] [7]``",
        "Over a line end `rows\n[7]`",
        "```python\nrows[7]\n\nrows [8]\n```",
        "````\n```\nrows[7]\n````",
        "~~~ sql\nrows[7]\n~~~",
        "1. A list:\n   ```\n   rows[7]\n   ```",
        "> ```\n> rows[7]\n> ```",
        "```\nnever closed [7]",
        "```\n```not its end [7]\n```",
        "Unfinished [7",
        "Ends in a space ",
    ],
)
def test_what_is_no_marker_is_left_alone(text: str):
    assert filtered(text) == text


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("`rows` [7].", "`rows`."),
        ("```\nrows[7]\n```\nAfter [7].", "```\nrows[7]\n```\nAfter."),
        ("```inline``` and [7].", "```inline``` and."),
        ("A lone ` here [7].\n\nThe next [7].", "A lone ` here [7].\n\nThe next."),
        ("Escaped \\` here [7].", "Escaped \\` here."),
        ("`a\\` [7].", "`a\\`."),
        ("~~struck~~ [7].", "~~struck~~."),
    ],
)
def test_code_ends_where_markdown_says(text: str, expected: str):
    assert filtered(text) == expected


def test_used_are_the_known_markers_in_the_text():
    assert used("One [1], many [12, 7], code `[2]`, link [2](x).") == {1, 12}


def test_a_marker_found_between_two_pieces_is_known():
    known = {1}
    markers = MarkerFilter(known)
    text = markers.feed("First [1], unknown [2]; ")
    known.add(2)
    text += markers.feed("then [2].") + markers.finish()
    assert text == "First [1], unknown; then [2]."


def test_plain_text_is_not_held_back():
    assert MarkerFilter(KNOWN).feed("word") == "word"


def test_a_marker_is_held_back_until_it_is_none():
    markers = MarkerFilter(KNOWN)
    assert markers.feed("as in [1") == "as in"
    assert markers.feed("x") == " [1x"


@given(st.text(alphabet="[]0123456789, "))
def test_little_is_ever_held_back(text: str):
    markers = MarkerFilter(range(1000))
    assert len(text) - len(markers.feed(text)) <= 64


ATOMS = [*"[ ] [1 [1] [7] 1 7 2024 , ( ` ``` ~~~ \\ > - word é 🙂".split(), " ", "\n", "\n\n"]
pieces = st.lists(st.sampled_from(ATOMS)).map("".join)


@given(pieces, st.data())
def test_what_comes_out_does_not_depend_on_the_cuts(text: str, data: st.DataObject):
    cuts = sorted(data.draw(st.sets(st.integers(0, len(text)))))
    parts = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert filtered(*parts) == filtered(text)


@given(pieces)
def test_when_all_markers_are_known_nothing_changes(text: str):
    assert filtered(text, known=range(1000)) == text


@given(pieces)
def test_filtering_only_takes_away(text: str):
    rest = iter(text)
    assert all(char in rest for char in filtered(text) if char != " ")  # [1,7,2] gives [1, 2]


def test_past_replies_lose_their_markers():
    assert without_markers("Leases expire [1], are renewed [2, 3] and `rows[1]`.") == (
        "Leases expire, are renewed and `rows[1]`."
    )


def make_passage(content: str) -> Passage:
    return Passage(
        chunk_id=ChunkId(UUID(int=1)),
        document_id=DocumentId(UUID(int=2)),
        title="Leases",
        source_url="https://example.org/leases",
        heading=None,
        page=3,
        content=content,
        score=0.5,
    )


def test_a_citation_is_a_snapshot_of_its_passage():
    citation = cite(4, make_passage("A lease expires."))
    assert (citation.marker, citation.document_id, citation.title, citation.source_url) == (
        4,
        UUID(int=2),
        "Leases",
        "https://example.org/leases",
    )
    assert (citation.snippet, citation.score) == ("A lease expires.", 0.5)


def test_a_snippet_ends_between_two_words():
    snippet = cite(1, make_passage("lease " * 500)).snippet
    assert len(snippet) <= SNIPPET_CHARS
    assert snippet.endswith("lease…")


@given(st.text(), st.integers(4, 40))
def test_shortened_text_keeps_its_limit(text: str, limit: int):
    short = shortened(text, limit)
    assert len(short) <= limit
    assert short == text.strip() or short.endswith("…")


def test_text_without_spaces_is_cut_at_the_limit():
    assert shortened("租约" * 50, 10) == "租约租约租约租约租…"
