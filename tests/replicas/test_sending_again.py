"""The same message, sent many times at once over both replicas and all ways of sending."""

import asyncio
from asyncio import Event
from typing import Any
from uuid import uuid4

import pytest

from tests.openai_server import OpenAIServer, says
from tests.replicas.browsers import Browser, Page, Transport
from tests.replicas.conversations import send
from tests.replicas.pairs import Pair, Rows

pytestmark = pytest.mark.asyncio(loop_scope="session")

ANSWER = "There is one answer."
LOCK = "LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE"


@pytest.mark.parametrize("is_held", [False, True], ids=["as it comes", "all at one moment"])
async def test_50_at_once_are_one(
    is_held: bool, pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, key: str
):
    """With `is_held`, the first one can't commit before many others collide with it."""
    asked, last = len(openai.requests_to("chat")), Event()
    openai.script(says("There is ", last, "one answer."), *[says("Asked twice.")] * 3)
    message = {"messageId": str(uuid4()), "content": "How many are you?"}
    servers = (pair.a, pair.b)
    transports: list[Transport] = ["ws", "sse"]
    pages = await asyncio.gather(
        *(
            browser.open(transport, servers[n % 2], key=key)
            for transport in transports
            for n in range(15)
        )
    )

    async def by_subscription(page: Page) -> Any:
        await page.send(message)
        started = await page.started()
        ended = await page.ended()
        assert ended["content"] == ANSWER
        return {"userMessage": started["userMessage"], "reply": ended["reply"]}

    async def by_mutation(n: int) -> Any:
        sent = await send(servers[n % 2].person(key), message)
        return {name: sent[name] for name in ("userMessage", "reply")}

    async def all_at_once() -> list[Any]:
        return await asyncio.gather(
            *(by_subscription(page) for page in pages), *(by_mutation(n) for n in range(20))
        )

    if is_held:
        async with rows.held(LOCK):
            sending = asyncio.create_task(all_at_once())
            await rows.waiting("INSERT INTO", at_least=10)
    else:
        sending = asyncio.create_task(all_at_once())
    await pages[0].has(len("There is"))
    last.set()
    answers = await sending

    assert len(answers) == 50
    assert all(answer == answers[0] for answer in answers)
    assert answers[0]["userMessage"]["id"] == message["messageId"]
    assert answers[0]["reply"]["status"] == "COMPLETE"
    assert answers[0]["reply"]["content"] == ANSWER
    assert len(openai.requests_to("chat")) == asked + 1
    assert await rows.of(pair.a.person(key).viewer) == {
        "users": 1,
        "chat_sessions": 1,
        "chat_messages": 2,
        "audit_logs": 1,
    }
