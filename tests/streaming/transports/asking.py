"""What the tests of transports ask for."""

import json
from collections.abc import AsyncGenerator
from email import message_from_bytes
from typing import Any
from uuid import uuid4

from tests.streaming.scripted import ScriptedModel
from tests.streaming.wire import (
    MULTIPART,
    SEND,
    Http,
    Served,
    opened,
)

ELSEWHERE = "https://elsewhere.example"
"An origin whose pages may open sockets."


def message(content: str = "Question", **more: str) -> dict[str, str]:
    return {"messageId": str(uuid4()), "content": content, **more}


async def ended(server: Served, key: str, voices: ScriptedModel, text: str = "Done.") -> str:
    """Have a reply written, and give its id."""
    voices["Ended"].finish(text)
    stream = await Http.ask(server.port, key, SEND, input=message("Ended"))
    return (await stream.rest())[-1]["reply"]["id"]


async def all_of(
    kind: str, server: Served, key: str, query: str, **variables: Any
) -> list[dict[str, Any]]:
    """Subscribe, and give all payloads."""
    if kind == "socket":
        async with opened(server.port) as socket:
            await socket.init(sessionId=key)
            await socket.subscribe("1", query, **variables)
            payloads: list[dict[str, Any]] = []
            while (said := await socket.receive())["type"] == "next":
                payloads.append(said["payload"])
            if said["type"] == "error":
                payloads.append({"errors": said["payload"]})
            return payloads
    if kind == "sse":
        stream = await Http.ask(server.port, key, query, **variables)
        assert stream.headers["content-type"].startswith("text/event-stream")
        events = [event async for event in _events(stream)]
        assert events[-1][0] == "complete"
        return [data for kind, data in events if kind == "next"]
    stream = await Http.ask(server.port, key, query, accept=MULTIPART, **variables)
    assert stream.headers["content-type"].startswith("multipart/mixed")
    parts = await parts_of(stream)
    return [part["payload"] for part in parts if part.get("payload")]


async def _events(stream: Http) -> AsyncGenerator[tuple[str, Any]]:
    while event := await stream.sse():
        yield event
    stream.abort()


async def parts_of(stream: Http) -> list[dict[str, Any]]:
    """Read the parts of a multipart answer, as RFC 2046 frames them: nothing before or after."""
    head = f"Content-Type: {stream.headers['content-type']}\r\n\r\n".encode()
    message: Any = message_from_bytes(head + await stream.body())
    assert (message.defects, (message.preamble or "").strip(), message.epilogue) == ([], "", "")
    parts = message.get_payload()
    assert {part.get_content_type() for part in parts} == {"application/json"}
    return [json.loads(part.get_payload()) for part in parts]
