"""A server on loopback that speaks OpenAI's API, for tests that go through the real client.

    async with openai_server() as server:
        server.script(failure(429, retry_after=0), says("Leases ", gate, "expire [1]."))
        model = OpenAIModel.connect(api_key="k", base_url=server.url, model="m")

Each chat request takes the next behaviour of the script. With none left it searches with the
user's question if tools are offered, and then answers from the first passage, citing `[1]`.
Nothing here sleeps: an `asyncio.Event` among the steps of a stream holds it until it is set.
"""

import asyncio
import base64
import hashlib
import json
import math
import re
import struct
from collections import deque
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, Literal, assert_never

Json = Mapping[str, Any]


class Drop:
    """The connection breaks in the middle of a chunk."""


Step = Json | str | asyncio.Event | Drop
"A chunk as JSON, raw text as it goes over the wire, a gate, or the end of the connection."


@dataclass(frozen=True)
class Stream:
    """Answers 200 and streams. Where `done` is false the stream ends without `[DONE]`."""

    steps: Sequence[Step]
    done: bool = True


@dataclass(frozen=True)
class Answer:
    """Answers in one piece."""

    status: int
    body: Any
    headers: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class HangUp:
    """Closes the connection without an answer."""


@dataclass(frozen=True)
class Silence:
    """Reads the request, sets `asked`, and says nothing until the client has gone."""

    asked: asyncio.Event = field(default_factory=asyncio.Event)


Behaviour = Stream | Answer | HangUp | Silence


@dataclass(frozen=True)
class Request:
    path: str
    headers: Mapping[str, str]
    body: Any
    gone: asyncio.Event = field(default_factory=asyncio.Event)
    "Set when the client closes the connection before it has the whole answer."


# --- chunks and behaviours ------------------------------------------------------------


def chunk(delta: Json | None = None, finish_reason: str | None = None, **others: Any) -> Json:
    choice = {"index": 0, "delta": delta or {}, "finish_reason": finish_reason}
    return {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 0,
        "model": "test-model",
        "choices": [choice],
    } | others


def usage(prompt_tokens: int, completion_tokens: int) -> Json:
    counts = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    return chunk(choices=[], usage=counts)


def tool_delta(
    index: int | None, *, id: str | None = None, name: str | None = None, arguments: str = ""
) -> Json:
    """Make a piece of a tool call. What is null is left out."""
    function = {"arguments": arguments} | ({"name": name} if name is not None else {})
    call: dict[str, Any] = {"function": function}
    if index is not None:
        call["index"] = index
    if id is not None:
        call |= {"id": id, "type": "function"}
    return chunk({"tool_calls": [call]})


def says(
    *pieces: str | asyncio.Event,
    finish_reason: str = "stop",
    tokens: tuple[int, int] | None = (11, 7),
) -> Stream:
    """Stream text, waiting at each event; `tokens` are those of prompt and completion."""
    steps: list[Step] = [chunk({"role": "assistant", "content": ""})]
    steps += [chunk({"content": piece}) if isinstance(piece, str) else piece for piece in pieces]
    steps.append(chunk(finish_reason=finish_reason))
    return Stream([*steps, usage(*tokens)] if tokens else steps)


def searches(*queries: str, tokens: tuple[int, int] | None = (5, 3)) -> Stream:
    """Call search_documents once for each query."""
    steps: list[Step] = []
    for index, query in enumerate(queries):
        arguments = json.dumps({"query": query})
        half = len(arguments) // 2
        steps += [
            tool_delta(index, id=f"call_{index}", name="search_documents"),
            tool_delta(index, arguments=arguments[:half]),
            tool_delta(index, arguments=arguments[half:]),
        ]
    steps.append(chunk(finish_reason="tool_calls"))
    return Stream([*steps, usage(*tokens)] if tokens else steps)


def failure(
    status: int, *, code: str | None = None, message: str = "no", retry_after: float | None = None
) -> Answer:
    """Answer with an error, as OpenAI words them."""
    error = {"message": message, "type": "error", "param": None, "code": code}
    headers = {} if retry_after is None else {"Retry-After": f"{retry_after:g}"}
    return Answer(status, {"error": error}, headers)


CONTEXT_TOO_LONG = failure(400, code="context_length_exceeded")
UNAUTHORIZED = failure(401, code="invalid_api_key", message="Incorrect API key provided: ")
"Repeats the request's key after its message, as some gateways do."


# --- the server -----------------------------------------------------------------------


class OpenAIServer:
    """Records what it is asked. `dimension` is that of the vectors it makes from words."""

    def __init__(self) -> None:
        self.url = ""
        self.requests: list[Request] = []
        self.dimension = 1536
        self._scripts: dict[str, deque[Behaviour]] = {"chat": deque(), "embeddings": deque()}
        self._connections: dict[asyncio.Task[None], asyncio.StreamWriter] = {}

    def script(self, *behaviours: Behaviour, to: Literal["chat", "embeddings"] = "chat") -> None:
        """Append to what the next requests get."""
        self._scripts[to].extend(behaviours)

    def requests_to(self, path: Literal["chat", "embeddings"]) -> list[Request]:
        return [request for request in self.requests if path in request.path]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._connections[task] = writer
        try:
            while request := await _read_request(reader):
                self.requests.append(request)
                behaviour = self._behaviour(request)
                watch = asyncio.create_task(_watch(reader, request))
                try:
                    if not await _behave(behaviour, request, writer):
                        return
                finally:
                    watch.cancel()
                    await asyncio.wait([watch])
        except (ConnectionError, asyncio.IncompleteReadError):
            pass  # the client went away
        finally:
            del self._connections[task]
            writer.transport.abort()
            with suppress(ConnectionError):
                await writer.wait_closed()

    async def close(self) -> None:
        connections = dict(self._connections)
        for writer in connections.values():
            writer.transport.abort()  # what waits in a request sees its client go
        await asyncio.gather(*connections)

    def _behaviour(self, request: Request) -> Behaviour:
        kind = "embeddings" if request.path.endswith("/embeddings") else "chat"
        if script := self._scripts[kind]:
            behaviour = script.popleft()
            if behaviour is UNAUTHORIZED:
                message = UNAUTHORIZED.body["error"]["message"] + request.headers["authorization"]
                return failure(401, code="invalid_api_key", message=message)
            return behaviour
        if kind == "embeddings":
            return embeddings(request.body, self.dimension)
        return _default_reply(request.body)


@asynccontextmanager
async def openai_server() -> AsyncGenerator[OpenAIServer]:
    server = OpenAIServer()
    listener = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"http://127.0.0.1:{port}/v1"
    try:
        yield server
    finally:
        listener.close()
        await server.close()
        await listener.wait_closed()


async def _read_request(reader: asyncio.StreamReader) -> Request | None:
    head = await reader.readuntil(b"\r\n\r\n")
    request_line, *lines = head.decode("latin-1").strip().split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Request(request_line.split(" ")[1], headers, json.loads(body))


async def _watch(reader: asyncio.StreamReader, request: Request) -> None:
    # A client sends nothing more before it has its answer: what can be read is the end.
    with suppress(ConnectionError):
        await reader.read(1)
    request.gone.set()


async def _behave(behaviour: Behaviour, request: Request, writer: asyncio.StreamWriter) -> bool:
    """Answer a request, and tell whether the connection goes on."""
    match behaviour:
        case HangUp():
            return False
        case Silence(asked):
            asked.set()
            await request.gone.wait()
            return False
        case Answer(status, body, headers):
            content = json.dumps(body).encode()
            head = {"Content-Type": "application/json", "Content-Length": str(len(content))}
            writer.write(_head(status, head | dict(headers)) + content)
            await writer.drain()
            return True
        case Stream():
            return await _stream(behaviour, request, writer)
        case _:
            assert_never(behaviour)


async def _stream(stream: Stream, request: Request, writer: asyncio.StreamWriter) -> bool:
    head = {"Content-Type": "text/event-stream", "Transfer-Encoding": "chunked"}
    writer.write(_head(200, head))
    for step in [*stream.steps, "data: [DONE]\n\n"] if stream.done else stream.steps:
        match step:
            case asyncio.Event():
                if not await _set_or_gone(step, request):
                    return False
                continue
            case Drop():
                writer.write(b"ff\r\ndata: {")
                await writer.drain()
                writer.close()
                return False
            case str():
                event = step
            case _:
                event = f"data: {json.dumps(step)}\n\n"
        content = event.encode()
        writer.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")
        await writer.drain()
    writer.write(b"0\r\n\r\n")
    await writer.drain()
    return True


async def _set_or_gone(gate: asyncio.Event, request: Request) -> bool:
    waits = [asyncio.create_task(event.wait()) for event in (gate, request.gone)]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
    return gate.is_set()


def _head(status: int, headers: Mapping[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Scripted", *(f"{name}: {headers[name]}" for name in headers)]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


# --- what it does unscripted ----------------------------------------------------------


def _default_reply(body: Any) -> Stream:
    messages: list[Any] = body["messages"]
    if body.get("tools") and messages[-1]["role"] == "user":
        return searches(messages[-1]["content"])
    found = messages[-1]["content"] if messages[-1]["role"] == "tool" else ""
    passage = re.match(r"\[1\] [^\n]*\n(.+)", found)
    if not passage:
        return says("The documents ", "do not answer this.")
    return says("The documents say: ", *re.findall(r"\S+\s*", passage[1][:200]), " [1]")


def embeddings(body: Any, dimension: int) -> Answer:
    """Make a vector from the words of each text, the nearer the more words two texts share."""
    data: list[Json] = []
    for index, text in enumerate(body["input"]):
        vector = vector_of(text, dimension)
        packed = base64.b64encode(struct.pack(f"<{dimension}f", *vector)).decode()
        value = packed if body.get("encoding_format") == "base64" else vector
        data.append({"object": "embedding", "index": index, "embedding": value})
    return Answer(
        200,
        {
            "object": "list",
            "model": body["model"],
            "data": data,
            "usage": {"prompt_tokens": 1, "total_tokens": 1},
        },
    )


def vector_of(text: str, dimension: int) -> list[float]:
    vector = [0.0] * dimension
    for word in re.findall(r"\w+", text.lower()):
        digest = hashlib.sha256(word.encode()).digest()
        vector[int.from_bytes(digest[:4]) % dimension] += 1.0
    length = math.hypot(*vector) or 1.0
    return [value / length for value in vector]
