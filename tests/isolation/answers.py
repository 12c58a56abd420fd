"""What is answered, over every transport, and all of it that two answers may be compared by.

What differs from one answer to the next is taken out: the name that was asked for, ids, times,
and how a reply was cut into pieces. The end of a reply has it whole.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.isolation.servers import port_of
from tests.people import Parley, Person
from tests.streaming.wire import EVENT_STREAM, MULTIPART, opened

WAYS = {
    "query": ("post", "get", "socket"),
    "mutation": ("post", "socket"),
    "subscription": ("events", "multipart", "socket"),
}
"How each kind of operation can be sent; the first is the usual one."

_ACCEPTED = {"events": EVENT_STREAM, "multipart": MULTIPART}
_VARYING = {"date", "content-length", "x-request-id", "server"}
"Headers. A length says no more than the body, in which a time may be shorter than another."
_BETWEEN = {"text/event-stream": "\n\n", "multipart/mixed": "\r\n--graphql"}
"What stands between the events of a stream."
_PIECE = re.compile(r"ReplyDelta|^event: delta$|^:|^\s*\{\}\s*$", re.MULTILINE)
_LENGTH = re.compile(r"Content-Length: \d+\r\n", re.IGNORECASE)
_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|\+00:00)")
_ID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


@dataclass(frozen=True)
class Answer:
    """A whole answer. A socket's is the list of its messages, and has neither status nor head."""

    body: str
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(cls, response: httpx2.Response) -> "Answer":
        headers = {name.lower(): value for name, value in response.headers.items()}
        return cls(response.text, response.status_code, headers)

    def without(self, name: str) -> str:
        """Give what may be compared with the answer to another name."""
        kept = {each: self.headers[each] for each in sorted(self.headers.keys() - _VARYING)}
        head = f"{self.status} {json.dumps(kept)}"
        text = f"{head}\n{self._in_one_piece()}".replace(name, "(given)")
        return _without_ids(_TIME.sub("(time)", text))

    def _in_one_piece(self) -> str:
        """Give the body without the pieces of a reply, and without signs of life."""
        media = self.headers.get("content-type", "").partition(";")[0]
        if media not in _BETWEEN:
            return self.body
        events = self.body.split(_BETWEEN[media])
        told = (_LENGTH.sub("", each) for each in events if not _PIECE.search(each))
        return _BETWEEN[media].join(told)


def _without_ids(text: str) -> str:
    """Put a number for each id, the same for the same, so that only which are equal is left."""
    seen: dict[str, str] = {}
    return _ID.sub(lambda found: seen.setdefault(found[0], f"(id {len(seen)})"), text)


async def answered(
    parley: Parley, person: Person, way: str, query: str, **variables: Any
) -> Answer:
    """Send an operation in one of its ways, and wait for all of the answer."""
    if way == "socket":
        return await _over_socket(parley, person, query, variables)
    if way == "get":
        asked = {"query": query, "variables": json.dumps(variables)}
        return Answer.of(await person.http.get("/graphql", params=asked, headers=person.headers))
    accept = _ACCEPTED.get(way, "application/json")
    response = await person.http.post(
        "/graphql",
        json={"query": query, "variables": variables},
        headers={**person.headers, "Accept": accept},
    )
    return Answer.of(response)


async def _over_socket(
    parley: Parley, person: Person, query: str, variables: dict[str, Any]
) -> Answer:
    messages: list[Any] = []
    async with opened(port_of(parley)) as socket:
        await socket.init(**person.headers)
        await socket.subscribe("1", query, **variables)
        while not messages or messages[-1]["type"] == "next":
            messages.append(await socket.receive())
    told = (json.dumps(each) for each in messages)
    return Answer("\n".join(each for each in told if not _PIECE.search(each)))


async def sent(person: Person, method: str, url: str, **more: Any) -> Answer:
    """Send a request to a REST route."""
    headers = {**person.headers, **more.pop("headers", {})}
    return Answer.of(await person.http.request(method, url, headers=headers, **more))
