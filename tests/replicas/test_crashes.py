"""`kill -9` of the process that writes a reply, at five points of the reply's life.

Each point is hit exactly: a lock that the test holds, or a gate in the model's answer, keeps
the server there until it is dead.
"""

import asyncio
import time
from asyncio import Event
from typing import Any
from uuid import uuid4

import pytest

from tests.openai_server import OpenAIServer, Silence, says
from tests.people import Person
from tests.replicas.browsers import Browser, Page
from tests.replicas.conftest import LEASE_SECONDS
from tests.replicas.conversations import messages, reads, send
from tests.replicas.pairs import Pair, Rows

pytestmark = pytest.mark.asyncio(loop_scope="session")

LATE_SECONDS = LEASE_SECONDS + 5
LOCK_AUDIT = "LOCK TABLE audit_logs IN ACCESS EXCLUSIVE MODE"
"What a turn's transaction writes last."
INSERT_AUDIT = "INSERT INTO audit_logs"
LOCK_MESSAGES = "LOCK TABLE chat_messages IN ACCESS EXCLUSIVE MODE"


class Scene:
    """A session with one turn, sent to A; and somebody who looks at it on B."""

    def __init__(self, pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, key: str):
        self.pair, self.browser, self.openai, self.rows, self.key = pair, browser, openai, rows, key
        self.session_id = str(uuid4())
        self.message = {
            "sessionId": self.session_id,
            "messageId": str(uuid4()),
            "content": "Tell me.",
        }
        self.asked_before = len(openai.requests_to("chat"))
        self.death = 0.0

    @property
    def asked(self) -> int:
        """Count what the model was asked."""
        return len(self.openai.requests_to("chat")) - self.asked_before

    @property
    def person(self) -> Person:
        return self.pair.b.person(self.key)

    async def sender(self) -> Page:
        """Send the turn, and wait until it has begun."""
        page = await self.sending()
        await page.started()
        return page

    async def sending(self) -> Page:
        page = await self.browser.open("ws", self.pair.a, key=self.key)
        await page.send(self.message)
        return page

    async def follower(self) -> Page:
        page = await self.browser.open("ws", self.pair.b, key=self.key)
        await page.follow(self.message["messageId"])
        await page.started()
        return page

    async def kill(self) -> None:
        await self.pair.a.kill()
        self.death = time.monotonic()

    async def is_buried(self, sender: Page, follower: Page, text: str) -> None:
        """See that the reply was lost with its server, and nothing else was."""
        started = await sender.started()
        assert started["userMessage"]["id"] == self.message["messageId"]
        reply_id = started["reply"]["id"]
        seen, told = await asyncio.gather(
            reads(self.person, self.session_id, self.death), follower.ended()
        )
        assert seen[-1][0] < LATE_SECONDS, seen
        assert time.monotonic() - self.death < LATE_SECONDS
        reply = told["reply"]
        assert reply["id"] == reply_id
        assert (reply["status"], reply["content"], told["content"]) == ("INTERRUPTED", text, text)
        assert reply["error"] == {"code": "INTERRUPTED", "retryable": True}
        assert await self.rows.stored(reply_id) == ("INTERRUPTED", text.encode(), len(text))

        # The sender comes back, as its client does by itself, and is told the same.
        await sender.reconnect("ws", self.pair.b)
        await sender.send(self.message)
        assert (await sender.ended())["reply"] == reply
        await self.is_not_doubled(reply)
        await self.takes_more(["INTERRUPTED"])

    async def is_not_doubled(self, reply: Any) -> None:
        asked = self.asked
        again = await send(self.person, self.message)
        assert again["reply"] == reply
        assert self.asked == asked
        assert await self.rows.of(self.person.viewer) == {
            "users": 1,
            "chat_sessions": 1,
            "chat_messages": 2,
            "audit_logs": 1,
        }

    async def takes_more(self, statuses: list[str]) -> None:
        self.openai.script(says("Here I am."))
        message = {"sessionId": self.session_id, "messageId": str(uuid4()), "content": "Hello?"}
        sent = await send(self.person, message)
        assert (sent["reply"]["status"], sent["reply"]["content"]) == ("COMPLETE", "Here I am.")
        found = await messages(self.person, self.session_id)
        assert found
        assert [each["status"] for each in found if each["role"] == "ASSISTANT"] == [
            *statuses,
            "COMPLETE",
        ]
        assert [each["role"] for each in found] == ["USER", "ASSISTANT"] * 2
        assert sent["session"]["messageCount"] == 4


@pytest.fixture
def scene(pair: Pair, browser: Browser, openai: OpenAIServer, rows: Rows, key: str) -> Scene:
    return Scene(pair, browser, openai, rows, key)


async def test_killed_before_the_beginning_is_committed(scene: Scene):
    async with scene.rows.held(LOCK_AUDIT):
        sender = await scene.sending()
        held = await scene.rows.waiting(INSERT_AUDIT)
        await scene.kill()
        await sender.event("closed")
    await scene.rows.gone(held)

    assert not sender.all("started")
    assert set((await scene.rows.of(scene.person.viewer)).values()) == {0}
    assert await messages(scene.person, scene.session_id) is None
    stranger = await scene.browser.open("ws", scene.pair.b, key=scene.key)
    await stranger.follow(scene.message["messageId"])
    assert (await stranger.event("rejected"))["error"]["__typename"] == "NotFound"
    assert scene.asked == 0

    scene.openai.script(says("At last."))
    await sender.reconnect("ws", scene.pair.b)
    await sender.send(scene.message)
    reply = (await sender.ended())["reply"]
    assert (reply["status"], reply["content"]) == ("COMPLETE", "At last.")
    assert scene.asked == 1
    await scene.is_not_doubled(reply)
    await scene.takes_more(["COMPLETE"])


async def test_killed_after_the_beginning_is_committed(scene: Scene):
    async with scene.rows.held(LOCK_AUDIT):
        sender = await scene.sending()
        await scene.rows.waiting(INSERT_AUDIT)
        # Whoever waits for this is next once the beginning is committed, before all else.
        next_in_line = asyncio.create_task(_hold(scene, LOCK_MESSAGES, until=sender))
        await scene.rows.waiting(LOCK_MESSAGES)
    await next_in_line
    follower = await scene.follower()
    assert scene.asked == 0
    await scene.is_buried(sender, follower, "")


async def _hold(scene: Scene, statement: str, until: Page) -> None:
    """Hold a lock until a page's reply has begun and its server is dead."""
    async with scene.rows.held(statement):
        await until.started()
        held = await scene.rows.waiting("")
        await scene.kill()
    await scene.rows.gone(held)


async def test_killed_before_the_first_token(scene: Scene):
    scene.openai.script(silence := Silence())
    sender = await scene.sender()
    follower = await scene.follower()
    await silence.asked.wait()
    await scene.kill()
    await scene.is_buried(sender, follower, "")
    assert scene.asked == 2  # once for what was lost, once for what came after


async def test_killed_in_mid_stream(scene: Scene):
    stored, seen, more = "Half of a sentence", ", and some more", Event()
    scene.openai.script(says(stored, more, seen, Event(), " that nobody heard."))
    sender = await scene.sender()
    follower = await scene.follower()
    await follower.has(len(stored))
    more.set()
    await sender.has(len(stored + seen))
    await scene.kill()
    # The last second of what A's reader saw may be lost; what another replica saw may not.
    reply_id = (await sender.started())["reply"]["id"]
    _, text, _ = await scene.rows.stored(reply_id)
    assert text.decode() in (stored, stored + seen)
    await scene.is_buried(sender, follower, text.decode())


async def test_killed_before_the_end_is_stored(scene: Scene):
    text, last = "All that there is to say", Event()
    scene.openai.script(says(text, last, "."))
    sender = await scene.sender()
    follower = await scene.follower()
    await follower.has(len(text))
    reply_id = (await sender.started())["reply"]["id"]
    lock = "SELECT 1 FROM chat_messages WHERE id = CAST(:id AS uuid) FOR UPDATE"
    async with scene.rows.held(lock, id=reply_id):
        last.set()
        held = await scene.rows.waiting("UPDATE chat_messages")
        await scene.kill()
        # Else Postgres would still do what it was told: the statement has reached it.
        await scene.rows.terminate(held)
    assert not sender.all("ended")
    await scene.is_buried(sender, follower, text)


async def test_an_end_that_reached_postgres_is_stored_though_its_server_died(scene: Scene):
    text, last = "All that there is to say", Event()
    scene.openai.script(says(text, last, "."))
    sender = await scene.sender()
    follower = await scene.follower()
    await follower.has(len(text))
    reply_id = (await sender.started())["reply"]["id"]
    lock = "SELECT 1 FROM chat_messages WHERE id = CAST(:id AS uuid) FOR UPDATE"
    async with scene.rows.held(lock, id=reply_id):
        last.set()
        held = await scene.rows.waiting("UPDATE chat_messages")
        await scene.kill()
    await scene.rows.gone(held)
    reply = (await follower.ended())["reply"]
    assert (reply["status"], reply["content"]) == ("COMPLETE", text + ".")
    await sender.reconnect("ws", scene.pair.b)
    await sender.send(scene.message)
    ended = await sender.ended()
    assert ended["reply"] == reply
    assert ended["content"] == text + "."
    await scene.is_not_doubled(reply)


async def test_a_sender_that_sends_again_by_itself_is_told_and_asks_only_once(scene: Scene):
    scene.openai.script(says("Half of a sentence", Event(), " that nobody heard."))
    sender = await scene.browser.open("ws", scene.pair.a, scene.pair.b, key=scene.key, retries=20)
    await sender.send(scene.message)
    await sender.has(len("Half of a sentence"))
    await scene.kill()
    reply = (await sender.ended())["reply"]
    assert (reply["status"], reply["error"]["retryable"]) == ("INTERRUPTED", True)
    assert "Half of a sentence".startswith(reply["content"])
    assert len(sender.all("started")) == 2
    assert time.monotonic() - scene.death < LATE_SECONDS
    await scene.is_not_doubled(reply)
    assert scene.asked == 1
