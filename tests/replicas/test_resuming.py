"""A reader whose connection breaks goes on, on any replica, at any time, after what it has."""

from asyncio import Event
from signal import SIGTERM
from uuid import uuid4

import pytest

from tests.openai_server import OpenAIServer, says
from tests.replicas.browsers import Browser, Transport
from tests.replicas.pairs import Pair, Rows
from tests.replicas.texts import joined, pieces, units

pytestmark = pytest.mark.asyncio(loop_scope="session")

DELTAS = 500
PIECES = pieces(DELTAS)
WHOLE = joined(PIECES)
AT = units(WHOLE) * 2 // 5
FIRST = PIECES[:300]
HELD_BACK = 1
"The space at the end of the first part: a citation may follow, and take it along."


@pytest.mark.parametrize("transport", ["ws", "sse"])
async def test_a_reply_that_broke_off_at_40_percent_is_whole(
    transport: Transport,
    pair: Pair,
    browser: Browser,
    openai: OpenAIServer,
    rows: Rows,
    key: str,
):
    last = Event()
    openai.script(says(*FIRST, last, *PIECES[300:]))
    page = await browser.open(transport, pair.a, key=key)
    await page.send({"messageId": str(uuid4()), "content": "Tell me."}, dropAt=AT)
    reply_id = (await page.started())["reply"]["id"]
    dropped = await page.event("dropped")
    assert AT <= dropped["length"] < units(joined(FIRST))

    await page.reconnect(transport, pair.b)
    await page.follow(reply_id)
    assert (await page.started())["reply"]["status"] == "STREAMING"
    await page.has(units(joined(FIRST)) - HELD_BACK)
    last.set()
    ended = await page.ended()

    status, stored, length = await rows.stored(reply_id)
    assert (status, stored.decode(), length) == ("COMPLETE", WHOLE, units(WHOLE))
    assert ended["content"].encode() == stored
    assert ended["reply"]["content"].encode() == stored
    assert page.text.encode() == stored


async def test_what_broke_off_is_whole_after_the_end_and_after_a_restart_of_both(
    pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, key: str
):
    last = Event()
    openai.script(says(*FIRST, last, *PIECES[300:]))
    pages = [await browser.open(transport, pair.a, key=key) for transport in ("ws", "sse") * 2]
    message = {"messageId": str(uuid4()), "content": "Tell me."}
    await pages[0].send(message, dropAt=AT)
    reply_id = (await pages[0].started())["reply"]["id"]
    for number, page in enumerate(pages[1:], 1):
        await page.follow(reply_id, dropAt=AT + number)
    for page in pages:
        await page.event("dropped")
    last.set()
    witness = await browser.open("ws", pair.b, key=key)
    await witness.follow(reply_id)
    assert (await witness.ended())["content"] == WHOLE
    _, stored, _ = await rows.stored(reply_id)
    assert stored.decode() == WHOLE

    for page, transport in zip(pages[:2], ("ws", "sse"), strict=True):
        await page.reconnect(transport, pair.b)
        await page.follow(reply_id)
        assert (await page.ended())["content"].encode() == page.text.encode() == stored

    asked = len(openai.requests_to("chat"))
    for server in (pair.a, pair.b):
        server.process.send(SIGTERM)
    for server in (pair.a, pair.b):
        assert (await server.process.ended()).code == 0
    await pair.ready()
    for page, transport, server in zip(pages[2:], ("ws", "sse"), (pair.a, pair.b), strict=True):
        await page.reconnect(transport, server)
        await page.send(message)  # what a client that only knows its message does
        assert (await page.ended())["content"].encode() == page.text.encode() == stored
    assert len(openai.requests_to("chat")) == asked
