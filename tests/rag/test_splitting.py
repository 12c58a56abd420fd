import pytest
from hypothesis import given
from hypothesis import strategies as st

from rag.extraction import Extracted, Section, extract
from rag.splitting import CHUNK_MAX_CHARACTERS, split

# Backticks and tildes make code blocks, whose fences are added where they are cut.
plain_text = st.text(st.characters(codec="utf-8", exclude_characters="`~"), max_size=400)


def one(text: str) -> Extracted:
    return Extracted(None, [Section(text)])


@given(st.lists(plain_text, max_size=8).map(" \n\n".join), st.integers(1, 12))
def test_no_text_is_lost(text: str, times: int) -> None:
    text = text * times
    chunks = split(one(text))
    assert "".join("".join(chunk.content.split()) for chunk in chunks) == "".join(text.split())


@given(
    st.lists(plain_text, max_size=6),
    st.lists(st.sampled_from(["A", "A > B", "C", None]), min_size=6),
)
def test_chunks_are_numbered_filled_and_bounded(
    texts: list[str], headings: list[str | None]
) -> None:
    extracted = Extracted(None, [Section(*pair) for pair in zip(texts, headings, strict=False)])
    chunks = split(extracted)
    assert [chunk.ordinal for chunk in chunks] == list(range(len(chunks)))
    assert all(chunk.content.strip() for chunk in chunks)
    assert all(len(chunk.content) <= CHUNK_MAX_CHARACTERS for chunk in chunks)
    assert split(extracted) == chunks


def test_short_siblings_are_joined_under_their_parent() -> None:
    chunks = split(
        Extracted(None, [Section("Yes.", "FAQ > Is it free?"), Section("No.", "FAQ > Is it slow?")])
    )
    assert [(chunk.heading, chunk.content) for chunk in chunks] == [
        ("FAQ", "### Is it free?\n\nYes.\n\n### Is it slow?\n\nNo.")
    ]


def test_an_introduction_is_joined_with_what_stands_beneath_it() -> None:
    (chunk,) = split(
        Extracted(None, [Section("About.", "Install"), Section("apt", "Install > Debian")])
    )
    assert (chunk.heading, chunk.content) == ("Install", "About.\n\n### Debian\n\napt")


def test_a_section_alone_keeps_its_whole_heading_out_of_its_text() -> None:
    (chunk,) = split(Extracted(None, [Section("apt", "Install > Debian", 3)]))
    assert (chunk.heading, chunk.content, chunk.page) == ("Install > Debian", "apt", 3)


@pytest.mark.parametrize(
    "other",
    [Section("b", "B > Y"), Section("b", "A > X > Deep > Deeper"), Section("b", "A > X", 2)],
    ids=["another parent", "too deep", "another page"],
)
def test_what_does_not_belong_together_is_not_joined(other: Section) -> None:
    assert (
        len(split(Extracted(None, [Section("a", "A > X", 1 if other.page else None), other]))) == 2
    )


def test_long_neighbours_are_not_joined() -> None:
    sections = [Section("word " * 200, "A > X"), Section("word " * 200, "A > Y")]
    assert [chunk.heading for chunk in split(Extracted(None, sections))] == ["A > X", "A > Y"]


def test_a_cut_code_block_is_closed_and_opened_again() -> None:
    code = "\n".join(f"print({number})" for number in range(400))
    chunks = split(one(f"Before.\n\n```python\n{code}\n```\n\nAfter."))
    assert len(chunks) > 2
    assert all(chunk.content.count("```") % 2 == 0 for chunk in chunks)
    assert chunks[-1].content.endswith("After.")


@pytest.mark.parametrize("text", ["a" * 100_000, "字" * 60_000, "a " * 60_000, "[" * 60_000])
def test_text_without_boundaries_is_cut_all_the_same(text: str) -> None:
    chunks = split(one(text))
    assert "".join("".join(chunk.content.split()) for chunk in chunks) == text.replace(" ", "")


def test_a_markdown_file_goes_through() -> None:
    data = b"# Guide\n\nHello.\n\n## Install\n\n" + b"A sentence of some length. " * 100
    chunks = split(extract(data, "text/markdown"))
    assert [chunk.heading for chunk in chunks] == [None, "Install", "Install"]
