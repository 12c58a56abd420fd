"""Operations whose document is named instead of sent."""

import json
from hashlib import sha256
from typing import Any

from tests.protocol.exchange import Answer, address, exchange
from tests.streaming.wire import Served

FOLLOW = "subscription ($id: ID!) { event: reply(messageId: $id) { __typename } }"
REJECTED = {"__typename": "ReplyRejected"}
VIEWER = {"data": {"viewer": {"isAnonymous": True}}}


def hash_of(text: str) -> str:
    return sha256(text.encode()).hexdigest()


def named(text: str, **changed: Any) -> dict[str, Any]:
    """Make the extensions that name a document by its hash."""
    return {"persistedQuery": {"version": 1, "sha256Hash": hash_of(text), **changed}}


async def ask(server: Served, **members: Any) -> Answer:
    """Send a request of these members."""
    return await exchange(server.port, body=json.dumps(members).encode())


async def get_named(server: Served, query: str) -> Answer:
    """Ask for a document by GET and its hash alone."""
    target = address(None, extensions=named(query))
    return await exchange(server.port, method="GET", target=target)
