"""A reply is stopped on one replica while another one writes it."""

import time
from asyncio import Event, timeout
from uuid import uuid4

import pytest

from tests.openai_server import OpenAIServer, says
from tests.replicas.browsers import Browser
from tests.replicas.conversations import messages, stop
from tests.replicas.pairs import Pair, Rows

pytestmark = pytest.mark.asyncio(loop_scope="session")

STOP_SECONDS = 2.0
"A tick of A's and one of B's, on a machine that does other things too."


async def test_stopped_from_b_what_a_runs(
    pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, key: str
):
    more = Event()
    openai.script(says("Once upon ", more, "a time", Event(), ", and so on."))
    reader = await browser.open("sse", pair.a, key=key)
    await reader.send({"messageId": str(uuid4()), "content": "Tell me a story."})
    started = await reader.started()
    reply_id = started["reply"]["id"]
    elsewhere = await browser.open("ws", pair.b, key=key)
    await elsewhere.follow(reply_id)
    await elsewhere.started()
    more.set()
    await reader.has(len("Once upon a time"))

    begun = time.monotonic()
    stopped = (await stop(pair.b.person(key), reply_id))["reply"]
    assert time.monotonic() - begun < STOP_SECONDS
    assert (stopped["status"], stopped["content"]) == ("STOPPED", "Once upon a time")
    assert stopped["error"] is None
    for page in (reader, elsewhere):
        ended = await page.ended()
        assert ended["reply"] == stopped
        assert ended["content"] == "Once upon a time"
    async with timeout(STOP_SECONDS):
        await openai.requests_to("chat")[-1].gone.wait()  # nobody pays for the rest
    status, text, _ = await rows.stored(reply_id)
    assert (status, text) == ("STOPPED", b"Once upon a time")

    for server in (pair.a, pair.b):
        assert (await stop(server.person(key), reply_id))["reply"] == stopped
    found = await messages(pair.a.person(key), stopped["session"]["id"])
    assert found
    assert found[-1] == stopped


async def test_stopped_from_b_before_the_first_token(
    pair: Pair, browser: Browser, openai: OpenAIServer, key: str
):
    openai.script(says(Event(), "Never said."))
    reader = await browser.open("ws", pair.a, key=key)
    await reader.send({"messageId": str(uuid4()), "content": "Tell me a story."})
    reply_id = (await reader.started())["reply"]["id"]
    begun = time.monotonic()
    stopped = (await stop(pair.b.person(key), reply_id))["reply"]
    assert time.monotonic() - begun < STOP_SECONDS
    assert (stopped["status"], stopped["content"]) == ("STOPPED", "")
    assert (await reader.ended())["reply"] == stopped
