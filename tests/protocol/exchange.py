"""Requests written by hand, down to the last byte, and what is answered.

    answer = await exchange(port, body=b"null")
    check_refused(answer, 400, "BAD_USER_INPUT")

Nothing is added that was not said: a header given as null is left out.
"""

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlencode
from uuid import uuid4

from graphql_api.errors import ErrorCode
from tests.operations import PATIENCE_SECONDS
from tests.streaming.wire import Http

JSON = "application/json"
GRAPHQL = "application/graphql-response+json"
CODES = frozenset(ErrorCode.__members__)

Headers = Mapping[str, str | None]


@dataclass(frozen=True)
class Answer:
    """A whole answer. The names of its headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def text(self) -> str:
        return self.content.decode()

    @property
    def json(self) -> Any:
        return json.loads(self.content)

    @property
    def media_type(self) -> str:
        return self.headers.get("content-type", "").partition(";")[0]

    @property
    def codes(self) -> list[str]:
        """Give the codes of all errors, of which there may be none."""
        return [error["extensions"]["code"] for error in self.json.get("errors", [])]


class Exchange(Http):
    """One request on a connection of its own, which may be sent in pieces."""

    @classmethod
    async def begin(
        cls, port: int, *, method: str = "POST", target: str = "/graphql", headers: Headers
    ) -> Self:
        """Send the head of a request."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=2**24)
        fields = {"Host": f"127.0.0.1:{port}", **headers}
        lines = [f"{name}: {value}" for name, value in fields.items() if value is not None]
        head = "\r\n".join([f"{method} {target} HTTP/1.1", *lines, "", ""])
        writer.write(head.encode("latin-1"))
        return cls(reader, writer)

    def send(self, data: bytes) -> None:
        self.writer.write(data)

    def send_chunk(self, data: bytes) -> None:
        """Send a piece of a body whose length was not said; an empty one ends it."""
        self.send(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    async def answer(self) -> Answer:
        """Read the whole answer, whether or not the request has been sent to its end."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                status, *lines = head.strip().split("\r\n")
                fields = [line.partition(":") for line in lines]
                self.headers = {name.lower(): value.strip() for name, _, value in fields}
                headers = dict(self.headers)
                return Answer(int(status.split()[1]), headers, await self.body())
        finally:
            self.abort()


async def exchange(
    port: int,
    *,
    method: str = "POST",
    target: str = "/graphql",
    headers: Headers | None = None,
    body: bytes = b"",
) -> Answer:
    """Send a request as someone nobody knows. What has no Content-Type said is JSON."""
    fields: dict[str, str | None] = {"X-Session-ID": str(uuid4())}
    if method == "POST":
        fields |= {"Content-Type": JSON, "Content-Length": str(len(body))}
    sent = await Exchange.begin(
        port, method=method, target=target, headers={**fields, **(headers or {})}
    )
    sent.send(body)
    return await sent.answer()


async def post(port: int, query: str, /, headers: Headers | None = None, **more: Any) -> Answer:
    """Send an operation; `more` are the other members of the request."""
    body = json.dumps({"query": query, **more}).encode()
    return await exchange(port, headers=headers, body=body)


async def get(port: int, query: str, /, headers: Headers | None = None, **more: Any) -> Answer:
    return await exchange(port, method="GET", target=address(query, **more), headers=headers)


def address(query: str | None, **more: Any) -> str:
    """Give the path of an operation that is asked by GET. What is no text is written as JSON."""
    members = {"query": query, **more}
    texts = {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in members.items()
        if value is not None
    }
    return f"/graphql?{urlencode(texts)}"


def check_refused(answer: Answer, status: int, code: str | None = None) -> None:
    """See that a request was refused in GraphQL's own form; without `code` by any but INTERNAL."""
    assert answer.status == status, answer
    assert answer.media_type in (JSON, GRAPHQL), answer
    assert "data" not in answer.json
    assert all(error["message"] for error in answer.json["errors"])
    assert answer.codes, answer
    assert set(answer.codes) <= ({code} if code else CODES - {"INTERNAL"}), answer
