import asyncio
import time
import traceback
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest

from rag.agent import SEARCH_DOCUMENTS
from rag.openai_model import OPENAI_URL, OpenAIModel, openai_client
from rag.ports import (
    AssistantTurn,
    ContextTooLong,
    Finished,
    ModelError,
    ModelEvent,
    ModelRefused,
    ModelTimeout,
    ModelUnavailable,
    SystemTurn,
    TextPiece,
    Tool,
    ToolCall,
    ToolTurn,
    Turn,
    Usage,
    UserTurn,
)
from tests.openai_server import (
    CONTEXT_TOO_LONG,
    UNAUTHORIZED,
    Answer,
    Drop,
    HangUp,
    OpenAIServer,
    Silence,
    Step,
    Stream,
    chunk,
    failure,
    openai_server,
    says,
    searches,
    tool_delta,
    usage,
)

KEY = "sk-never-in-a-log"
ASK = [UserTurn("What is a lease?", "What is a lease?")]
STOP = chunk(finish_reason="stop")
SOON = 0.5
"Seconds of silence that a test waits for; nothing else in these tests takes time."


@pytest.fixture
async def server() -> AsyncGenerator[OpenAIServer]:
    async with openai_server() as server:
        yield server


@pytest.fixture
async def model(server: OpenAIServer) -> AsyncGenerator[OpenAIModel]:
    model = OpenAIModel.connect(api_key=KEY, base_url=server.url, model="test-model")
    yield model
    await model.close()


@pytest.fixture
async def hasty(server: OpenAIServer) -> AsyncGenerator[OpenAIModel]:
    """A model that takes silence badly, and tries once."""
    model = OpenAIModel.connect(
        api_key=KEY, base_url=server.url, model="test-model", silence_seconds=SOON, max_retries=0
    )
    yield model
    await model.close()


async def events(
    model: OpenAIModel, turns: Sequence[Turn] = ASK, tools: Sequence[Tool] = ()
) -> list[ModelEvent]:
    return [event async for event in model.stream(turns, tools)]


async def tool_calls(model: OpenAIModel, server: OpenAIServer, *steps: Step) -> list[ToolCall]:
    server.script(Stream(steps))
    found = await events(model, tools=[SEARCH_DOCUMENTS])
    assert found[-1] == Finished("tool_calls")
    return [event for event in found if isinstance(event, ToolCall)]


# --- what is sent ---------------------------------------------------------------------


async def test_turns_become_messages(server: OpenAIServer, model: OpenAIModel):
    call = ToolCall("call_0", "search_documents", '{"query": "lease"}')
    turns = [
        SystemTurn("Be brief."),
        *ASK,
        AssistantTurn("A moment."),
        AssistantTurn("", [call]),
        ToolTurn("call_0", "[1] Leases"),
    ]
    await events(model, turns)
    function = {"name": "search_documents", "arguments": '{"query": "lease"}'}
    assert server.requests[0].body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "What is a lease?"},
        {"role": "assistant", "content": "A moment."},
        {
            "role": "assistant",
            "content": None,
            "tool_calls": [{"id": "call_0", "type": "function", "function": function}],
        },
        {"role": "tool", "tool_call_id": "call_0", "content": "[1] Leases"},
    ]


async def test_usage_is_asked_for(server: OpenAIServer, model: OpenAIModel):
    await events(model)
    body = server.requests[0].body
    assert body["stream_options"] == {"include_usage": True}
    assert (body["model"], body["stream"], "tools" in body) == ("test-model", True, False)


async def test_tools_are_offered_as_functions(server: OpenAIServer, model: OpenAIModel):
    await events(model, tools=[SEARCH_DOCUMENTS])
    [tool] = server.requests[0].body["tools"]
    assert tool["type"] == "function"
    assert tool["function"]["name"] == "search_documents"
    assert tool["function"]["parameters"]["required"] == ["query"]


@pytest.mark.parametrize("arguments", ["{", "[1]", "", '"\ud83d'])
async def test_unreadable_arguments_are_not_sent_back(
    server: OpenAIServer, model: OpenAIModel, arguments: str
):
    call = ToolCall("call_0", "search_documents", arguments)
    await events(model, [*ASK, AssistantTurn("", [call]), ToolTurn("call_0", "Error")])
    sent = server.requests[0].body["messages"][1]["tool_calls"][0]
    assert sent["function"]["arguments"] == "{}"


async def test_an_empty_key_is_for_servers_that_ask_for_none(server: OpenAIServer):
    model = OpenAIModel.connect(api_key="", base_url=server.url, model="local")
    await events(model)
    await model.close()
    assert server.requests[0].headers["authorization"] == "Bearer none"


async def test_the_environment_does_not_choose_the_server(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_BASE_URL", "https://elsewhere.example/v1")
    async with openai_client(KEY) as client:
        assert str(client.base_url).rstrip("/") == OPENAI_URL


# --- what comes back ------------------------------------------------------------------


async def test_text_then_usage_then_the_end(server: OpenAIServer, model: OpenAIModel):
    server.script(says("A lease ", "expires.", tokens=(20, 4)))
    assert await events(model) == [
        TextPiece("A lease "),
        TextPiece("expires."),
        Usage(20, 4),
        Finished("stop"),
    ]


async def test_text_comes_as_it_is_written(server: OpenAIServer, model: OpenAIModel):
    gate = asyncio.Event()
    server.script(says("first", gate, "second"))
    async with aclosing(model.stream(ASK, [])) as stream:
        assert await anext(stream) == TextPiece("first")
        gate.set()
        assert await anext(stream) == TextPiece("second")


async def test_without_usage_none_is_made_up(server: OpenAIServer, model: OpenAIModel):
    server.script(says("yes", tokens=None))
    assert await events(model) == [TextPiece("yes"), Finished("stop")]


async def test_a_reply_cut_at_its_limit_is_finished(server: OpenAIServer, model: OpenAIModel):
    server.script(says("A lease is", finish_reason="length", tokens=None))
    assert await events(model) == [TextPiece("A lease is"), Finished("length")]


async def test_halves_of_a_surrogate_pair_pass_through(server: OpenAIServer, model: OpenAIModel):
    server.script(says("\ud83d", "\ude00\0", tokens=None))
    assert await events(model) == [TextPiece("\ud83d"), TextPiece("\ude00\0"), Finished("stop")]


async def test_odd_chunks_are_passed_over(server: OpenAIServer, model: OpenAIModel):
    odd = [
        ": keep-alive\n\n",
        chunk(choices=None),
        chunk(choices=[], prompt_filter_results=[]),
        chunk(usage=None, unknown={"a": 1}),
        chunk({"role": "assistant", "content": None, "reasoning_content": "hm"}),
        chunk(choices=[{"index": 0, "delta": None, "finish_reason": None}]),
    ]
    server.script(Stream([*odd, chunk({"content": "yes"}), STOP]))
    assert await events(model) == [TextPiece("yes"), Finished("stop")]


async def test_a_running_usage_counts_once(server: OpenAIServer, model: OpenAIModel):
    counts = {"prompt_tokens": 9, "completion_tokens": 1, "total_tokens": 10}
    server.script(Stream([chunk({"content": "yes"}, usage=counts), STOP, usage(9, 2)]))
    assert (await events(model))[1:] == [Usage(9, 2), Finished("stop")]


async def test_a_stream_may_end_without_done(server: OpenAIServer, model: OpenAIModel):
    server.script(Stream([chunk({"content": "yes"}), STOP], done=False))
    assert await events(model) == [TextPiece("yes"), Finished("stop")]


# --- tool calls -----------------------------------------------------------------------


async def test_a_tool_call_comes_whole(server: OpenAIServer, model: OpenAIModel):
    server.script(searches("lease"))
    assert await events(model) == [
        ToolCall("call_0", "search_documents", '{"query": "lease"}'),
        Usage(5, 3),
        Finished("tool_calls"),
    ]


@pytest.mark.parametrize("cut", range(len('{"query":"a"}')))
async def test_arguments_may_be_split_anywhere(server: OpenAIServer, model: OpenAIModel, cut: int):
    arguments = '{"query":"a"}'
    calls = await tool_calls(
        model,
        server,
        tool_delta(0, id="x", name="search"),
        tool_delta(0, arguments=arguments[:cut]),
        tool_delta(0, arguments=arguments[cut:]),
        STOP,
    )
    assert calls == [ToolCall("x", "search", arguments)]


async def test_a_name_may_be_split(server: OpenAIServer, model: OpenAIModel):
    calls = await tool_calls(
        model,
        server,
        tool_delta(0, id="x", name="sea"),
        tool_delta(0, name="rch", arguments="0"),
        STOP,
    )
    assert calls == [ToolCall("x", "search", "0")]


async def test_calls_may_be_interleaved(server: OpenAIServer, model: OpenAIModel):
    calls = await tool_calls(
        model,
        server,
        tool_delta(0, id="x", name="search"),
        tool_delta(1, id="y", name="search"),
        tool_delta(1, arguments="1"),
        tool_delta(0, arguments="0"),
        STOP,
    )
    assert calls == [ToolCall("x", "search", "0"), ToolCall("y", "search", "1")]


async def test_whole_calls_without_an_index_are_told_apart(
    server: OpenAIServer, model: OpenAIModel
):
    calls = await tool_calls(
        model,
        server,
        tool_delta(None, id="x", name="search", arguments="0"),
        tool_delta(None, id="y", name="search", arguments="1"),
        STOP,
    )
    assert calls == [ToolCall("x", "search", "0"), ToolCall("y", "search", "1")]


async def test_calls_with_neither_index_nor_id_get_ids(server: OpenAIServer, model: OpenAIModel):
    calls = await tool_calls(
        model,
        server,
        tool_delta(None, name="search", arguments="0"),
        tool_delta(None, name="search", arguments="1"),
        STOP,
    )
    assert [call.arguments for call in calls] == ["0", "1"]
    assert len({call.id for call in calls if call.id}) == 2


async def test_pieces_without_an_index_go_on_with_the_last_call(
    server: OpenAIServer, model: OpenAIModel
):
    calls = await tool_calls(
        model,
        server,
        tool_delta(None, id="x", name="search"),
        tool_delta(None, arguments='{"query"'),
        tool_delta(None, arguments=':"a"}'),
        STOP,
    )
    assert calls == [ToolCall("x", "search", '{"query":"a"}')]


async def test_calls_of_the_same_index_are_told_apart_by_id(
    server: OpenAIServer, model: OpenAIModel
):
    calls = await tool_calls(
        model,
        server,
        tool_delta(0, id="x", name="search", arguments="0"),
        tool_delta(0, id="y", name="search", arguments="1"),
        STOP,
    )
    assert calls == [ToolCall("x", "search", "0"), ToolCall("y", "search", "1")]


async def test_a_repeated_name_is_one_name(server: OpenAIServer, model: OpenAIModel):
    calls = await tool_calls(
        model,
        server,
        tool_delta(0, id="x", name="search", arguments="0"),
        tool_delta(0, id="x", name="search", arguments="1"),
        STOP,
    )
    assert calls == [ToolCall("x", "search", "01")]


# --- failures before the first event --------------------------------------------------


async def test_a_rate_limit_is_waited_for(server: OpenAIServer, model: OpenAIModel):
    server.script(failure(429, retry_after=0.6), says("yes"))
    started = time.monotonic()
    assert (await events(model))[0] == TextPiece("yes")
    assert time.monotonic() - started >= 0.6  # the client's own first pause is 0.5 at most


@pytest.mark.parametrize("first", [failure(500, retry_after=0.01), HangUp()])
async def test_a_request_that_failed_is_repeated(
    server: OpenAIServer, model: OpenAIModel, first: Answer | HangUp
):
    server.script(first, says("yes"))
    assert (await events(model))[0] == TextPiece("yes")


async def test_attempts_are_bounded(server: OpenAIServer, model: OpenAIModel):
    server.script(*[failure(503, retry_after=0.01)] * 5)
    with pytest.raises(ModelUnavailable, match="HTTP 503"):
        await events(model)
    assert len(server.requests) == 3


async def test_a_long_pause_is_not_waited_for(server: OpenAIServer):
    model = OpenAIModel.connect(
        api_key=KEY, base_url=server.url, model="test-model", silence_seconds=SOON
    )
    server.script(failure(429, retry_after=100))
    with pytest.raises(ModelTimeout):
        await events(model)
    await model.close()


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (CONTEXT_TOO_LONG, ContextTooLong),
        (failure(400, message="This model's maximum context length is 4096"), ContextTooLong),
        (failure(400, code="content_filter"), ModelRefused),
        (failure(400, code="invalid_request"), ModelUnavailable),
        (failure(403), ModelUnavailable),
        (failure(404, code="model_not_found"), ModelUnavailable),
        (Answer(200, {"not": "a stream"}), ModelUnavailable),
        (Answer(400, "not an object"), ModelUnavailable),
    ],
)
async def test_an_answer_that_is_no_stream_is_an_error(
    server: OpenAIServer, model: OpenAIModel, answer: Answer, expected: type[ModelError]
):
    server.script(answer)
    with pytest.raises(expected):
        await events(model)
    assert len(server.requests) == 1


async def test_no_error_repeats_the_key(server: OpenAIServer, model: OpenAIModel):
    server.script(UNAUTHORIZED)
    with pytest.raises(ModelUnavailable, match=r"HTTP 401 \(invalid_api_key\)") as caught:
        await events(model)
    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_a_key_that_is_no_header_value_is_not_repeated(server: OpenAIServer):
    model = OpenAIModel.connect(
        api_key=KEY + "\n", base_url=server.url, model="test-model", max_retries=0
    )
    with pytest.raises(ModelUnavailable) as caught:
        await events(model)
    await model.close()
    assert KEY not in "".join(traceback.format_exception(caught.value))


async def test_a_server_that_is_away_is_unavailable():
    async with openai_server() as server:
        url = server.url
    model = OpenAIModel.connect(api_key=KEY, base_url=url, model="m", max_retries=0)
    with pytest.raises(ModelUnavailable, match="ConnectError"):
        await events(model)
    await model.close()


async def test_a_server_that_never_answers_times_out(server: OpenAIServer, hasty: OpenAIModel):
    server.script(Silence())
    with pytest.raises(ModelTimeout):
        await events(hasty)
    await server.requests[0].gone.wait()


# --- failures in the stream -----------------------------------------------------------


async def breaks(model: OpenAIModel, server: OpenAIServer, *steps: Step, done: bool = True) -> Any:
    """Stream a word and then the steps; give the error that ends it, after the word has come."""
    server.script(Stream([chunk({"content": "word"}), *steps], done=done))
    seen: list[ModelEvent] = []

    async def read() -> None:
        async for event in model.stream(ASK, []):
            seen.append(event)  # noqa: PERF401 - what came before the error counts

    with pytest.raises(ModelError) as caught:
        await read()
    assert seen == [TextPiece("word")]
    assert len(server.requests) == 1
    return caught.type


async def test_a_dropped_connection_is_not_repeated(server: OpenAIServer, model: OpenAIModel):
    assert await breaks(model, server, Drop()) is ModelUnavailable


@pytest.mark.parametrize("done", [True, False])
async def test_a_stream_without_a_finish_reason_is_broken(
    server: OpenAIServer, model: OpenAIModel, done: bool
):
    assert await breaks(model, server, done=done) is ModelUnavailable


async def test_silence_is_a_timeout(server: OpenAIServer, hasty: OpenAIModel):
    assert await breaks(hasty, server, asyncio.Event()) is ModelTimeout


@pytest.mark.parametrize(
    ("code", "expected"),
    [("server_error", ModelUnavailable), ("context_length_exceeded", ContextTooLong)],
)
async def test_an_error_event_ends_the_stream(
    server: OpenAIServer, model: OpenAIModel, code: str, expected: type[ModelError]
):
    assert await breaks(model, server, failure(500, code=code).body) is expected


@pytest.mark.parametrize("text", ["data: {\n\n", "data: 1\n\n", 'data: {"choices": [1]}\n\n'])
async def test_what_is_no_chunk_ends_the_stream(
    server: OpenAIServer, model: OpenAIModel, text: str
):
    assert await breaks(model, server, text) is ModelUnavailable


async def test_a_refusal_is_told(server: OpenAIServer, model: OpenAIModel):
    assert await breaks(model, server, chunk({"refusal": "I can't"}), STOP) is ModelRefused


async def test_a_content_filter_is_told(server: OpenAIServer, model: OpenAIModel):
    assert await breaks(model, server, chunk(finish_reason="content_filter")) is ModelRefused


# --- leaving early --------------------------------------------------------------------


async def test_closing_the_stream_closes_the_connection(server: OpenAIServer, model: OpenAIModel):
    server.script(says("word", asyncio.Event()))
    async with aclosing(model.stream(ASK, [])) as stream:
        await anext(stream)
    await server.requests[0].gone.wait()


async def test_cancelling_closes_the_connection(server: OpenAIServer, model: OpenAIModel):
    server.script(says("word", asyncio.Event()))
    begun = asyncio.Event()

    async def read() -> None:
        async with aclosing(model.stream(ASK, [])) as stream:
            async for _ in stream:
                begun.set()

    task = asyncio.create_task(read())
    await begun.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await server.requests[0].gone.wait()


async def test_cancelling_before_the_first_event_closes_the_connection(
    server: OpenAIServer, model: OpenAIModel
):
    silence = Silence()
    server.script(silence)
    task = asyncio.create_task(events(model))
    await silence.asked.wait()
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()
    await server.requests[0].gone.wait()
