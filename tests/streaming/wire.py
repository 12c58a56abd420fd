"""A server on a loopback socket, and clients that see every byte of what it sends."""

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Self
from urllib.parse import urlencode
from uuid import uuid4

import pytest
import uvicorn
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.typing import Origin, Subprotocol

from db.engine import Database
from graphql_api.app import create_app
from graphql_api.services import Services
from graphql_api.settings import Settings
from tests.operations import PATIENCE_SECONDS, until
from tests.streaming.scripted import ScriptedModel

EVENT = """{
  __typename
  ... on ReplyStarted { userMessage { id content } reply { id content status } }
  ... on ReplySearched { query }
  ... on ReplyDelta { offset text }
  ... on ReplyEnded { reply { id content status } }
  ... on ReplyRejected {
    error {
      __typename message ... on InvalidInput { field } ... on ReplyInProgress { reply { id } }
    }
  }
}"""
SEND = f"""subscription ($input: SendMessageInput!, $offset: Int = 0) {{
  event: sendMessage(input: $input, offset: $offset) {EVENT}
}}"""
FOLLOW = f"""subscription ($id: ID!, $offset: Int = 0) {{
  event: reply(messageId: $id, offset: $offset) {EVENT}
}}"""
PROGRESS = (
    "subscription ($id: ID!) { event: documentProgress(documentId: $id) { id status chunkCount } }"
)
EVENT_STREAM = "text/event-stream"
MULTIPART = "multipart/mixed;subscriptionSpec=1.0, application/json"


class _Server(uvicorn.Server):
    """A server inside the test's own loop, which leaves signals alone."""

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


@dataclass(frozen=True)
class Served:
    """A server that listens, and its parts."""

    port: int
    settings: Settings
    database: Database
    services: Services
    model: ScriptedModel

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@asynccontextmanager
async def served(settings: Settings, database: Database) -> AsyncGenerator[Served]:
    """Serve over a database, with a model that says what the test tells it."""
    model = ScriptedModel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("graphql_api.app._model", partial(_the_same, model))
        app = create_app(settings, database)
        listening = socket.create_server(("127.0.0.1", 0))
        # As `graphql_api.serve` has it.
        config = uvicorn.Config(
            app, log_config=None, ws_per_message_deflate=False, timeout_graceful_shutdown=2
        )
        server = _Server(config)
        serving = asyncio.create_task(server.serve([listening]))
        await until(lambda: server.started or serving.done())
    try:
        port = listening.getsockname()[1]
        yield Served(port, settings, database, app.state.services, model)
    finally:
        server.should_exit = True
        await serving


@asynccontextmanager
async def another(beside: Served, **changed: Any) -> AsyncGenerator[Served]:
    """Serve once more over the same database."""
    folder = beside.settings.data_dir.parent / uuid4().hex
    settings = beside.settings.model_copy(update={"data_dir": folder, **changed})
    async with served(settings, beside.database) as other:
        other.model.voices = beside.model.voices
        yield other


def _the_same(model: ScriptedModel, _: Settings) -> ScriptedModel:
    return model


# --- HTTP -----------------------------------------------------------------------------


class Http:
    """One request on a connection of its own; the answer as it comes."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.status = 0
        self.headers: dict[str, str] = {}
        self._buffer = b""

    @classmethod
    async def ask(
        cls,
        port: int,
        key: str | None,
        query: str,
        /,
        *,
        accept: str = EVENT_STREAM,
        method: str = "POST",
        headers: Mapping[str, str] | None = None,
        **variables: Any,
    ) -> Self:
        """Send an operation, and wait for the head of the answer."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        path, body = "/graphql", b""
        if method == "POST":
            body = json.dumps({"query": query, "variables": variables}).encode()
        else:
            path += "?" + urlencode({"query": query, "variables": json.dumps(variables)})
        fields = {"Host": f"127.0.0.1:{port}", "Accept": accept}
        fields |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        fields |= {"X-Session-ID": key} if key else {}
        fields |= dict(headers or {})
        lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {fields[name]}" for name in fields)]
        writer.write("\r\n".join([*lines, "", ""]).encode() + body)
        self = cls(reader, writer)
        async with asyncio.timeout(PATIENCE_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").strip().split("\r\n")
        self.status = int(head[0].split()[1])
        self.headers = {
            name.lower(): value.strip() for name, _, value in (x.partition(":") for x in head[1:])
        }
        return self

    async def chunk(self) -> bytes:
        """Give the next piece of the body, or nothing at its end."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            if length := self.headers.pop("content-length", None):
                return await self.reader.readexactly(int(length))
            if self.headers.get("transfer-encoding") != "chunked":
                return b""
            size = int((await self.reader.readuntil(b"\r\n")).strip(), 16)
            data = await self.reader.readexactly(size)
            await self.reader.readexactly(2)
            return data

    async def body(self) -> bytes:
        body = b""
        while data := await self.chunk():
            body += data
        self.abort()
        return body

    async def json(self) -> Any:
        return json.loads(await self.body())

    async def until(self, mark: bytes) -> bytes | None:
        """Read on up to a mark, which is left out; null at the end."""
        while mark not in self._buffer:
            data = await self.chunk()
            if not data:
                return None
            self._buffer += data
        part, _, self._buffer = self._buffer.partition(mark)
        return part

    def abort(self) -> None:
        """Vanish, without a word."""
        self.writer.transport.abort()

    # --- Server-Sent Events ---

    async def sse(self) -> tuple[str, Any] | None:
        """Give the next event and its data; `:` for a comment; null at the end."""
        block = await self.until(b"\n\n")
        if block is None:
            return None
        if block.startswith(b":"):
            return ":", block.decode()
        fields = dict(line.split(": ", 1) for line in block.decode().split("\n"))
        data = fields.get("data", "")
        return fields["event"], json.loads(data) if data else None

    async def next(self) -> Any:
        """Give what the next event is about; fails where it is no `next` without errors."""
        event = await self.sse()
        while event and event[0] == ":":
            event = await self.sse()
        assert event
        kind, data = event
        assert kind == "next", event
        assert "errors" not in data, data
        return data["data"]["event"]

    async def rest(self) -> list[Any]:
        """Give all events that are still to come, up to `complete` and the end."""
        events: list[Any] = []
        while event := await self.sse():
            kind, data = event
            if kind == "next":
                events.append(data["data"]["event"] if data.get("data") else data)
            elif kind == "complete":
                assert await self.sse() is None
                break
        self.abort()
        return events

    async def has(self, text: str) -> str:
        """Read on until this was told; gives all of the text since."""
        told = ""
        while text not in told:
            event = await self.next()
            told += event.get("text", "")
        return told


# --- sockets --------------------------------------------------------------------------


class Socket:
    """A client that speaks graphql-transport-ws."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection

    async def send(self, message: Any) -> None:
        await self.connection.send(message if isinstance(message, str) else json.dumps(message))

    async def receive(self) -> Any:
        async with asyncio.timeout(PATIENCE_SECONDS):
            return json.loads(await self.connection.recv())

    async def init(self, **payload: Any) -> None:
        await self.send({"type": "connection_init", "payload": payload})
        assert (await self.receive())["type"] == "connection_ack"

    async def subscribe(self, id: str, query: str, /, **variables: Any) -> None:
        payload = {"query": query, "variables": variables}
        await self.send({"type": "subscribe", "id": id, "payload": payload})

    async def next(self, id: str = "1") -> Any:
        message = await self.receive()
        assert (message["type"], message["id"]) == ("next", id), message
        assert "errors" not in message["payload"], message
        return message["payload"]["data"]["event"]

    async def rest(self, id: str = "1") -> list[Any]:
        events: list[Any] = []
        while True:
            message = await self.receive()
            assert message["id"] == id, message
            if message["type"] == "complete":
                return events
            assert message["type"] == "next", message
            events.append(message["payload"]["data"]["event"])

    async def has(self, text: str, id: str = "1") -> None:
        told = ""
        while text not in told:
            told += (await self.next(id)).get("text", "")

    async def close_code(self) -> int:
        """Wait until the server closes; whatever it says before is passed over."""
        while True:
            try:
                await self.receive()
            except ConnectionClosed as closed:
                return closed.rcvd.code if closed.rcvd else 1006


@asynccontextmanager
async def opened(
    port: int, *, origin: str | None = None, headers: Mapping[str, str] | None = None
) -> AsyncGenerator[Socket]:
    async with connect(
        f"ws://127.0.0.1:{port}/graphql",
        subprotocols=[Subprotocol("graphql-transport-ws")],
        origin=Origin(origin) if origin else None,
        additional_headers=headers,
        proxy=None,
    ) as connection:
        yield Socket(connection)
