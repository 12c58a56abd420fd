"""SIGTERM to a server with replies under way, event streams and sockets open."""

import asyncio
import signal
import time
from asyncio import Event
from typing import Any
from uuid import uuid4

import pytest

from tests.openai_server import OpenAIServer, says
from tests.replicas.browsers import Browser, Page, Transport
from tests.replicas.conftest import GRACE_SECONDS
from tests.replicas.conversations import SEND, send
from tests.replicas.pairs import Pair, Rows

pytestmark = pytest.mark.asyncio(loop_scope="session")

IN_TIME_SECONDS = GRACE_SECONDS + 5
HALF = "Half of a sentence"


def message(content: str = "Tell me.") -> dict[str, Any]:
    return {"messageId": str(uuid4()), "content": content}


async def test_sigterm_with_all_that_can_be_open(
    pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, key: str
):
    quick = Event()

    async def reading(transport: Transport, sent: dict[str, Any]) -> Page:
        page = await browser.open(transport, pair.a, key=key)
        await page.send(sent)
        await page.has(len(HALF))
        return page

    openai.script(says(HALF, Event(), " that nobody heard."))
    lost = await reading("sse", lost_message := message())
    lost_too = await reading("ws", lost_message)
    openai.script(says(HALF, quick, ", and the other half."))
    saved = await reading("ws", message())
    idle = await browser.open("ws", pair.a, key=key)
    latecomer = await browser.open("ws", pair.a, key=key)
    left = await send(pair.b.person(key), message())
    stranger = await browser.open("sse", pair.a, key=key)

    begun = time.monotonic()
    pair.a.process.send(signal.SIGTERM)

    # While it drains: no new turns, and old ones can end.
    answer = await _refused(pair, key)
    assert answer.headers["retry-after"].isdigit()
    [error] = answer.json()["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    await latecomer.send(message())
    [error] = (await latecomer.event("error"))["errors"]
    assert error["extensions"]["code"] == "UNAVAILABLE"
    await stranger.follow(left["reply"]["id"])
    assert (await stranger.ended())["reply"] == left["reply"]
    assert time.monotonic() - begun < GRACE_SECONDS, "too slow to see it drain"
    quick.set()
    ended = await saved.ended()
    assert (ended["reply"]["status"], ended["content"]) == (
        "COMPLETE",
        HALF + ", and the other half.",
    )
    for page in (lost, lost_too):
        ended = await page.ended()
        assert time.monotonic() - begun >= GRACE_SECONDS
        assert ended["reply"]["status"] == "INTERRUPTED"
        assert ended["reply"]["error"] == {"code": "INTERRUPTED", "retryable": True}
        assert ended["reply"]["content"] == ended["content"] == HALF
    reply_id = ended["reply"]["id"]
    assert await rows.stored(reply_id) == ("INTERRUPTED", HALF.encode(), len(HALF))
    for page in (lost_too, saved, idle, latecomer):
        assert (await page.event("closed"))["code"] in (1001, 1012)

    stopped = await pair.a.process.ended(IN_TIME_SECONDS)
    assert time.monotonic() - begun < IN_TIME_SECONDS
    assert stopped.code == 0, stopped
    assert "Traceback" not in stopped.err


async def _refused(pair: Pair, key: str) -> Any:
    """Send new messages until one is refused: the signal takes a moment to be heard."""
    deadline = time.monotonic() + GRACE_SECONDS
    while True:
        answer = await pair.a.http.post(
            "/graphql",
            json={"query": SEND, "variables": {"input": message()}},
            headers={"X-Session-ID": key},
        )
        if answer.status_code != 200:
            assert answer.status_code == 503, answer.text
            return answer
        assert time.monotonic() < deadline, answer.text


@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_the_last_reply_to_end_is_told_before_its_reader_is_sent_away(
    transport: Transport, pair: Pair, browser: Browser, openai: OpenAIServer, key: str
):
    """Nothing else keeps the server from going down."""
    openai.script(says(HALF, last := Event(), ", and the other half."))
    page = await browser.open(transport, pair.a, key=key)
    await page.send(message())
    await page.has(len(HALF))
    pair.a.process.send(signal.SIGTERM)
    await _refused(pair, key)
    last.set()
    ended = await page.ended()
    assert ended["reply"]["status"] == "COMPLETE"
    assert ended["reply"]["content"] == ended["content"] == HALF + ", and the other half."
    assert (await pair.a.process.ended(IN_TIME_SECONDS)).code == 0


@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_a_client_with_retries_goes_on_at_the_other_replica(
    transport: Transport, pair: Pair, browser: Browser, openai: OpenAIServer, key: str
):
    """The reply is B's; its reader has it from A, until A is told to stop."""
    more, last = Event(), Event()
    openai.script(says(HALF, more, ", and some", last, ", and the rest 😀."))
    writer = await browser.open("ws", pair.b, key=key)
    await writer.send(message())
    reply_id = (await writer.started())["reply"]["id"]
    reader = await browser.open(transport, pair.a, pair.b, key=key, retries=20)
    await reader.follow(reply_id)
    await reader.has(len(HALF))
    begun = time.monotonic()
    pair.a.process.send(signal.SIGTERM)
    stopped = await pair.a.process.ended(IN_TIME_SECONDS)
    assert time.monotonic() - begun < IN_TIME_SECONDS
    assert (stopped.code, "Traceback" in stopped.err) == (0, False), stopped
    more.set()
    await reader.has(len(HALF + ", and some"))
    assert len(reader.all("started")) >= 2
    last.set()
    ended = await reader.ended()
    whole = HALF + ", and some, and the rest 😀."
    assert ended["reply"]["content"] == ended["content"] == reader.text == whole
    if transport == "ws":
        assert {event["code"] for event in reader.all("closed")} <= {1001, 1012}


async def test_two_servers_stop_at_once(
    pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, key: str
):
    openai.script(says(HALF, Event(), " that nobody heard."))
    writer = await browser.open("ws", pair.a, key=key)
    await writer.send(message())
    reply_id = (await writer.started())["reply"]["id"]
    follower = await browser.open("sse", pair.b, key=key)
    await follower.follow(reply_id)
    await follower.has(len(HALF))
    begun = time.monotonic()
    for server in (pair.a, pair.b):
        server.process.send(signal.SIGTERM)
    for stopped in await asyncio.gather(
        *(server.process.ended(IN_TIME_SECONDS) for server in (pair.a, pair.b))
    ):
        assert (stopped.code, "Traceback" in stopped.err) == (0, False), stopped
    assert time.monotonic() - begun < IN_TIME_SECONDS
    assert await rows.stored(reply_id) == ("INTERRUPTED", HALF.encode(), len(HALF))
