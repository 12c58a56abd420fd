import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any, Literal
from uuid import NAMESPACE_URL, uuid5

import pytest
from hypothesis import given
from hypothesis import strategies as st

from db.ids import ChunkId, DocumentId
from rag.agent import (
    MAX_QUERY_CHARS,
    MAX_ROUNDS,
    MAX_SEARCHES,
    Agent,
    AgentEvent,
    Completed,
    Delta,
    PastTurn,
    Question,
    Searched,
    well_formed,
)
from rag.extractive_model import BEST_PASSAGES, ExtractiveModel
from rag.openai_model import OpenAIModel
from rag.ports import (
    EmbedderUnavailable,
    Finished,
    IndexUnavailable,
    ModelEvent,
    ModelRefused,
    ModelUnavailable,
    Passage,
    PortError,
    TextPiece,
    Tool,
    Turn,
)
from tests.openai_server import (
    Drop,
    OpenAIServer,
    Stream,
    chunk,
    openai_server,
    says,
    searches,
    tool_delta,
)

QUESTION = Question("What is a lease?")
TOOL_CALLS = chunk(finish_reason="tool_calls")


def make_passage(name: str, *, heading: str | None = None, page: int | None = None) -> Passage:
    return Passage(
        chunk_id=ChunkId(uuid5(NAMESPACE_URL, name)),
        document_id=DocumentId(uuid5(NAMESPACE_URL, "document")),
        title="Handbook",
        source_url=None,
        heading=heading,
        page=page,
        content=f"About {name}.",
        score=1.0,
    )


LEASE, RUN, FENCE = (make_passage(name) for name in ("leases", "runs", "fences"))


class Shelf:
    """A search that finds passages by the query's words, in the order of the words."""

    def __init__(self) -> None:
        self.queries: list[str] = []
        self._passages = {"lease": LEASE, "run": RUN, "fence": FENCE}

    async def __call__(self, query: str) -> Sequence[Passage]:
        self.queries.append(query)
        return [self._passages[word] for word in query.split() if word in self._passages]


@pytest.fixture
async def server() -> AsyncGenerator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest.fixture
async def agent(server: OpenAIServer) -> AsyncGenerator[Agent]:
    model = OpenAIModel.connect(
        api_key="key", base_url=server.url, model="test-model", max_retries=0
    )
    yield Agent(model, history_budget_tokens=1000)
    await model.close()


@pytest.fixture
def shelf() -> Shelf:
    return Shelf()


async def events(
    agent: Agent,
    shelf: Shelf,
    question: Question = QUESTION,
    history: Sequence[PastTurn] = (),
) -> list[AgentEvent]:
    return [event async for event in agent.answer(question, history, shelf)]


def text_of(found: Sequence[AgentEvent]) -> str:
    return "".join(event.text for event in found if isinstance(event, Delta))


def completed(found: Sequence[AgentEvent]) -> Completed:
    assert isinstance(found[-1], Completed)
    return found[-1]


def messages(server: OpenAIServer, call: int = -1) -> list[Any]:
    return server.requests[call].body["messages"]


# --- a reply --------------------------------------------------------------------------


async def test_a_reply_searches_speaks_and_completes(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(searches("lease"), says("It ", "expires [1]."))
    searched, *deltas, end = await events(agent, shelf)
    assert isinstance(searched, Searched)
    assert (searched.query, [c.marker for c in searched.citations]) == ("lease", [1])
    assert all(isinstance(delta, Delta) for delta in deltas)
    assert text_of(deltas) == "It expires [1]."
    assert end == Completed(searched.citations, "test-model", 16, 10)


async def test_a_reply_needs_no_search(server: OpenAIServer, agent: Agent, shelf: Shelf):
    server.script(says("Hello."))
    assert await events(agent, shelf) == [
        Delta("Hello."),
        Completed((), "test-model", 11, 7),
    ]
    assert shelf.queries == []


async def test_text_goes_out_as_it_comes(server: OpenAIServer, agent: Agent, shelf: Shelf):
    gate = asyncio.Event()
    server.script(says("first", gate, " second"))
    async with aclosing(agent.answer(QUESTION, [], shelf)) as reply:
        assert await anext(reply) == Delta("first")
        gate.set()
        assert await anext(reply) == Delta(" second")


async def test_only_what_is_cited_is_a_citation_in_order_of_marker(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(searches("lease run fence"), says("Both [3][1]. `[2]`"))
    assert [c.marker for c in completed(await events(agent, shelf)).citations] == [1, 3]


async def test_an_invented_citation_never_reaches_the_reader(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(searches("lease"), says("So [1], ", "so [", "2]."))
    assert text_of(await events(agent, shelf)) == "So [1], so."


async def test_a_passage_found_again_keeps_its_marker(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(searches("lease run"), searches("fence run"), says("[3]"))
    found = await events(agent, shelf)
    markers = [[c.marker for c in e.citations] for e in found if isinstance(e, Searched)]
    assert markers == [[1, 2], [3, 2]]
    assert messages(server)[-1]["content"].startswith("[3] Handbook")


async def test_what_is_said_before_a_search_is_a_paragraph(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    look = [chunk({"content": "I'll look."}), *searches("lease").steps]
    server.script(Stream(look), says("It expires [1]."))
    found = await events(agent, shelf)
    assert text_of(found) == "I'll look.\n\nIt expires [1]."
    assert [type(event) for event in found[:2]] == [Delta, Searched]


async def test_usage_is_null_when_none_was_reported(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(says("yes", tokens=None))
    end = completed(await events(agent, shelf))
    assert (end.prompt_tokens, end.completion_tokens) == (None, None)


async def test_a_reply_cut_at_its_limit_is_complete(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(says("A lease is", finish_reason="length"))
    found = await events(agent, shelf)
    assert text_of(found) == "A lease is"
    assert completed(found)


async def test_without_a_language_model_the_passages_answer(shelf: Shelf):
    agent = Agent(ExtractiveModel(), history_budget_tokens=1000)
    found = await events(agent, shelf, Question("lease or run"))
    assert text_of(found).startswith(BEST_PASSAGES)
    assert [c.marker for c in completed(found).citations] == [1, 2]
    assert completed(found).model == "extractive"


async def test_unscripted_the_server_plays_a_whole_reply(agent: Agent, shelf: Shelf):
    found = await events(agent, shelf, Question("lease"))
    assert text_of(found) == "The documents say: About leases. [1]"


# --- what the model reads -------------------------------------------------------------


async def test_the_model_reads_numbered_passages(server: OpenAIServer, agent: Agent):
    async def search(query: str) -> Sequence[Passage]:
        return [make_passage("one", heading="Terms", page=3), make_passage("two")]

    server.script(searches("lease"), says("yes"))
    _ = [event async for event in agent.answer(QUESTION, [], search)]
    assert messages(server)[-1]["content"] == (
        "[1] Handbook, Terms, page 3\nAbout one.\n\n---\n\n[2] Handbook\nAbout two."
    )


async def test_the_model_reads_that_nothing_was_found(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(searches("roses"), says("no"))
    found = await events(agent, shelf)
    assert found[0] == Searched("roses", ())
    assert messages(server)[-1]["content"] == "No passage matches."


async def test_selection_and_chapter_stand_before_the_question(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    question = Question("Why?", selected_text="It expires.\n\nAlways.", chapter="Leases")
    server.script(says("So."))
    await events(agent, shelf, question)
    assert messages(server)[-1]["content"] == (
        "Chapter: Leases\n\nThe reader selected:\n\n> It expires.\n> \n> Always.\n\nWhy?"
    )


async def test_instructions_come_first_then_history_then_the_question(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    history = [PastTurn("user", "Hello"), PastTurn("assistant", "Hi [1]!")]
    server.script(says("yes"))
    await events(agent, shelf, history=history)
    system, *rest = messages(server)
    assert system["role"] == "system"
    assert rest == [
        {"role": "user", "content": "Hello"},
        {"role": "assistant", "content": "Hi!"},  # its [1] was another passage
        {"role": "user", "content": "What is a lease?"},
    ]


def past(role: Literal["user", "assistant"], tokens: int) -> PastTurn:
    return PastTurn(role, "abc" * tokens)


@pytest.mark.parametrize(
    ("history", "kept"),
    [
        ([past("user", 400), past("assistant", 400)], 2),
        ([past("user", 400), past("assistant", 400), past("user", 400)], 1),
        ([past("user", 5000), past("assistant", 10), past("user", 10)], 1),
        ([past("user", 10), past("assistant", 0), past("user", 10)], 2),
        ([past("assistant", 10)], 0),
        ([PastTurn("user", "租" * 990)], 1),
        ([PastTurn("user", "租" * 1000)], 0),
    ],
)
async def test_the_newest_history_that_fits_is_kept_from_a_question_on(
    server: OpenAIServer, agent: Agent, shelf: Shelf, history: list[PastTurn], kept: int
):
    server.script(says("yes"))
    await events(agent, shelf, history=history)
    sent = messages(server)[1:-1]
    assert len(sent) == kept
    assert not sent or sent[0]["role"] == "user"


async def test_what_the_model_said_before_a_search_is_read_back_whole(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    look = [chunk({"content": "Look\ud83d"}), *searches("lease").steps]
    server.script(Stream(look), says("yes"))
    await events(agent, shelf)
    said, result = messages(server)[-2:]
    assert said["content"] == "Look\ufffd"
    assert [call["id"] for call in said["tool_calls"]] == [result["tool_call_id"]] == ["call_0"]


# --- tools ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("search_documents", "{"),
        ("search_documents", ""),
        ("search_documents", "[" * 100_000),
        ("search_documents", '"lease"'),
        ("search_documents", '{"query": 1}'),
        ("search_documents", '{"query": " "}'),
        ("drop_tables", '{"query": "lease"}'),
    ],
)
async def test_a_wrong_call_goes_back_to_the_model(
    server: OpenAIServer, agent: Agent, shelf: Shelf, name: str, arguments: str
):
    call = tool_delta(0, id="x", name=name, arguments=arguments)
    server.script(Stream([call, TOOL_CALLS]), searches("lease"), says("yes [1]"))
    assert text_of(await events(agent, shelf)) == "yes [1]"
    assert messages(server, 1)[-1]["content"].startswith("Error: ")
    assert shelf.queries == ["lease"]


async def test_all_searches_of_a_round_are_answered(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(searches("lease", "run"), says("yes"))
    await events(agent, shelf)
    assert shelf.queries == ["lease", "run"]
    assert [message["tool_call_id"] for message in messages(server)[-2:]] == ["call_0", "call_1"]


async def test_searches_of_a_reply_are_bounded(server: OpenAIServer, agent: Agent, shelf: Shelf):
    server.script(searches(*["lease"] * (MAX_SEARCHES + 1)), says("yes"))
    await events(agent, shelf)
    assert len(shelf.queries) == MAX_SEARCHES
    assert messages(server)[-1]["content"].startswith("Error: no more searches")


async def test_the_last_round_has_no_tools(server: OpenAIServer, agent: Agent, shelf: Shelf):
    server.script(*[searches("lease")] * MAX_ROUNDS, says("At last."))
    assert text_of(await events(agent, shelf)) == "At last."
    offered = ["tools" in request.body for request in server.requests]
    assert offered == [True] * MAX_ROUNDS + [False]


async def test_a_call_where_no_tool_was_offered_is_not_answered(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(*[searches("lease")] * (MAX_ROUNDS + 1))
    with pytest.raises(ModelUnavailable, match="empty reply"):
        await events(agent, shelf)
    assert len(shelf.queries) == MAX_ROUNDS


async def test_a_query_can_be_stored(server: OpenAIServer, agent: Agent, shelf: Shelf):
    arguments = '{"query": " \\ud83d\\ude00 \\ud83d\\u0000 ' + "x" * 2000 + '"}'
    call = tool_delta(0, id="x", name="search_documents", arguments=arguments)
    server.script(Stream([call, TOOL_CALLS]), says("yes"))
    await events(agent, shelf)
    assert shelf.queries[0].startswith("\U0001f600 \ufffd\ufffd x")
    assert len(shelf.queries[0]) == MAX_QUERY_CHARS


@pytest.mark.parametrize("error", [IndexUnavailable("away"), EmbedderUnavailable("away")])
async def test_a_search_that_fails_ends_the_reply(
    server: OpenAIServer, agent: Agent, error: PortError
):
    async def search(query: str) -> Sequence[Passage]:
        raise error

    server.script(searches("lease"))
    with pytest.raises(type(error)):
        await anext(agent.answer(QUESTION, [], search))


# --- what can go wrong ----------------------------------------------------------------


@pytest.mark.parametrize("pieces", [(), (" ", "\n"), ("[7]",)])
async def test_an_empty_reply_is_an_error(
    server: OpenAIServer, agent: Agent, shelf: Shelf, pieces: tuple[str, ...]
):
    server.script(says(*pieces))
    with pytest.raises(ModelUnavailable, match=r"^The model sent an empty reply\.$"):
        await events(agent, shelf)


async def test_a_refusal_passes_through(server: OpenAIServer, agent: Agent, shelf: Shelf):
    server.script(Stream([chunk({"refusal": "I can't"})]))
    with pytest.raises(ModelRefused):
        await events(agent, shelf)


async def test_what_was_said_before_a_break_was_sent(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(Stream([chunk({"content": "word"}), Drop()]))
    reply = agent.answer(QUESTION, [], shelf)
    assert await anext(reply) == Delta("word")
    with pytest.raises(ModelUnavailable):
        await anext(reply)


async def test_closing_the_reply_closes_the_models_stream(
    server: OpenAIServer, agent: Agent, shelf: Shelf
):
    server.script(says("word", asyncio.Event()))
    async with aclosing(agent.answer(QUESTION, [], shelf)) as reply:
        await anext(reply)
    await server.requests[0].gone.wait()


class Script:
    """A model that sends the given events, also such as break the port's promise."""

    name = "script"

    def __init__(self, *events: ModelEvent) -> None:
        self._events = events

    async def stream(
        self, turns: Sequence[Turn], tools: Sequence[Tool]
    ) -> AsyncGenerator[ModelEvent]:
        for event in self._events:
            yield event

    async def close(self) -> None:
        pass


async def test_a_model_that_ends_without_finishing_has_failed(shelf: Shelf):
    agent = Agent(Script(TextPiece("word")), history_budget_tokens=0)
    with pytest.raises(ModelUnavailable):
        await events(agent, shelf)


# --- well-formed text -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("pieces", "expected"),
    [
        (["a\ud83d", "\ude00b"], "a\U0001f600b"),
        (["\ud83d", "\ude00"], "\U0001f600"),
        (["\ud83d", "b"], "\ufffdb"),
        (["\ude00", "\ud83d"], "\ufffd\ufffd"),
        (["a\0b"], "a\ufffdb"),
    ],
)
async def test_text_is_well_formed(
    server: OpenAIServer, agent: Agent, shelf: Shelf, pieces: list[str], expected: str
):
    server.script(says(*pieces))
    assert text_of(await events(agent, shelf)) == expected


units = st.text(st.sampled_from("a\0 [1]\ud83d\ude00\U0001f600"))


@given(st.lists(units.filter(bool), min_size=1))
def test_text_is_well_formed_wherever_it_is_cut(pieces: list[str]):
    async def deltas(*pieces: str) -> str:
        script = Script(TextPiece("|"), *map(TextPiece, pieces), Finished("stop"))
        agent = Agent(script, history_budget_tokens=0)
        return text_of(await events(agent, Shelf()))

    text = asyncio.run(deltas(*pieces))
    assert text == asyncio.run(deltas("".join(pieces)))
    assert "\0" not in text
    text.encode()  # raises where a half is left


@given(st.text() | units)
def test_well_formed_text_has_no_halves_and_as_many_characters(text: str):
    whole = well_formed(text)
    whole.encode()  # raises where a half is left
    assert len(whole.encode("utf-16-le")) == len(text.encode("utf-16-le", "surrogatepass"))
    assert well_formed(whole) == whole
