import json
from collections.abc import Mapping, Sequence
from uuid import UUID

import pytest

from db.ids import ChunkId, DocumentId
from rag.agent import SEARCH_DOCUMENTS
from rag.citations import MarkerFilter
from rag.extractive_model import (
    BEST_PASSAGES,
    MAX_QUOTES,
    NOTHING_FITS,
    QUOTE_CHARS,
    ExtractiveModel,
)
from rag.ports import (
    AssistantTurn,
    Finished,
    ModelEvent,
    Passage,
    TextPiece,
    Tool,
    ToolCall,
    ToolTurn,
    UserTurn,
)


def make_passage(content: str, *, title: str = "Notes") -> Passage:
    return Passage(
        chunk_id=ChunkId(UUID(int=1)),
        document_id=DocumentId(UUID(int=2)),
        title=title,
        source_url=None,
        heading=None,
        page=None,
        content=content,
        score=1.0,
    )


async def events(
    question: str | UserTurn,
    passages: Mapping[int, Passage] | None = None,
    tools: Sequence[Tool] = (),
) -> list[ModelEvent]:
    asked = UserTurn(question, question) if isinstance(question, str) else question
    turns = [UserTurn("Before", "Before"), ToolTurn("0", "", {9: make_passage("Before")})]
    results = [] if passages is None else [AssistantTurn(""), ToolTurn("1", "", passages)]
    stream = ExtractiveModel().stream([*turns, asked, *results], tools)
    return [event async for event in stream]


async def answer(question: str | UserTurn, *contents: str) -> str:
    passages = {n: make_passage(content) for n, content in enumerate(contents, 1)}
    found = await events(question, passages, [SEARCH_DOCUMENTS])
    assert found[-1] == Finished("stop")
    return "".join(event.text for event in found if isinstance(event, TextPiece))


async def test_it_searches_first():
    call, end = await events("What is a lease?", tools=[SEARCH_DOCUMENTS])
    assert isinstance(call, ToolCall)
    assert call.name == "search_documents"
    assert json.loads(call.arguments) == {"query": "What is a lease?"}
    assert end == Finished("tool_calls")


async def test_it_searches_for_what_was_selected_too():
    turn = UserTurn("(all of it)", "Why is that?", selection="A lease\nexpires.")
    [call, _] = await events(turn, tools=[SEARCH_DOCUMENTS])
    assert isinstance(call, ToolCall)
    assert json.loads(call.arguments) == {"query": "Why is that? A lease expires."}


async def test_it_quotes_what_fits_and_says_that_it_is_no_language_model():
    assert await answer("What is a lease?", "A lease expires.") == (
        f"{BEST_PASSAGES}\n\n**Notes** [1]\n\n> A lease expires."
    )


async def test_it_quotes_the_first_three_that_fit():
    text = await answer("leases", "Roses.", "Lease 2.", "Lease 3.", "Lease 4.", "Lease 5.")
    assert [n for n in range(1, 6) if f"[{n}]" in text] == [2, 3, 4]
    assert text.count("\n> ") == MAX_QUOTES


@pytest.mark.parametrize("contents", [(), ("Roses are red.",), ("What is this?",)])
async def test_it_says_so_when_nothing_fits(contents: tuple[str, ...]):
    assert await answer("What is a lease?", *contents) == NOTHING_FITS


async def test_without_tools_and_results_it_says_that_nothing_fits():
    pieces = [event.text for event in await events("a lease") if isinstance(event, TextPiece)]
    assert "".join(pieces) == NOTHING_FITS


async def test_a_word_in_the_title_fits():
    [piece, *_] = await events("lease", {1: make_passage("They expire.", title="Leases")})
    assert isinstance(piece, TextPiece)
    assert BEST_PASSAGES.startswith(piece.text)


async def test_another_form_of_the_word_fits():
    assert "[1]" in await answer("How do replies end?", "A reply has an outcome.")


async def test_a_script_without_spaces_fits_too():
    assert "[1]" in await answer("租约是什么？", "租约会过期。")  # noqa: RUF001


async def test_it_quotes_the_sentences_that_fit_best():
    filler = "Nothing of interest stands in this sentence. " * 30
    text = await answer("When does a lease expire?", f"{filler}A lease expires at noon. {filler}")
    quote = text.rsplit("> ", 1)[1]
    assert "A lease expires at noon." in quote
    assert len(quote) <= QUOTE_CHARS


async def test_a_sentence_without_end_is_cut():
    quote = (await answer("lease", "lease " * 500)).rsplit("> ", 1)[1]
    assert len(quote) <= QUOTE_CHARS
    assert quote.endswith("…")


async def test_a_quote_stays_in_its_line():
    text = await answer("lease", "A lease\n```\nrenew()\n```\n# ends")
    assert text.endswith("> A lease \\`\\`\\` renew() \\`\\`\\` # ends")


async def test_brackets_in_a_document_are_no_markers():
    text = await answer("lease", "A lease expires [2].", "Another lease `")
    markers = MarkerFilter({1, 2})
    assert markers.feed(text) + markers.finish() == text
    assert "\\[2\\]" in text
    assert markers.used == {1, 2}


async def test_the_answer_comes_word_by_word():
    found = await events("lease", {1: make_passage("A lease expires.")})
    pieces = [event.text for event in found if isinstance(event, TextPiece)]
    assert all(len(piece.split()) == 1 for piece in pieces)


async def test_a_failed_search_is_no_passage():
    assert await answer("What is a lease?") == NOTHING_FITS
