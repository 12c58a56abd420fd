"""Replies while a language model writes them: busy, stopped, deleted, abandoned."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from graphql_api.settings import Settings
from tests.openai_server import OpenAIServer, says
from tests.operations import (
    DELETE_MESSAGE,
    DELETE_SESSION,
    PATIENCE_SECONDS,
    being_written,
    send,
    session,
    stop,
    until,
)
from tests.people import Parley, Person


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer) -> Settings:
    return settings.model_copy(
        update={
            "openai_base_url": model.url,
            "openai_model": "test-model",
            "shutdown_grace_seconds": 0.0,
        }
    )


class Writing:
    """A message whose reply has come half-way; `gate` lets the model go on."""

    def __init__(self, model: OpenAIServer, person: Person, text: str = "Half") -> None:
        self.gate = asyncio.Event()
        self.message: dict[str, Any] = {
            "content": "What is a lease?",
            "messageId": str(uuid4()),
            "sessionId": str(uuid4()),
        }
        model.script(says(text, self.gate, " and half."))
        self.sending = asyncio.create_task(send(person, **self.message))

    @property
    def session(self) -> str:
        return self.message["sessionId"]

    @property
    def id(self) -> str:
        return self.message["messageId"]

    async def sent(self) -> Any:
        """Wait for the answer to the message."""
        async with asyncio.timeout(PATIENCE_SECONDS):
            return await self.sending


@pytest.fixture
async def writing(model: OpenAIServer, alice: Person, parley: Parley) -> Writing:
    writing = Writing(model, alice)
    await being_written(parley, "Half")
    return writing


async def reply_of(person: Person, session_id: str) -> Any:
    return (await session(person, session_id))["messages"]["edges"][-1]["node"]


# --- busy -----------------------------------------------------------------------------


async def test_a_second_message_is_refused_while_the_first_is_answered(
    writing: Writing, alice: Person
):
    refused = await send(alice, "And a lock?", sessionId=writing.session)
    assert refused["__typename"] == "ReplyInProgress"
    assert refused["reply"]["status"] == "STREAMING"
    assert refused["reply"]["replyTo"]["id"] == writing.id
    writing.gate.set()
    sent = await writing.sending
    assert sent["reply"]["id"] == refused["reply"]["id"]
    assert sent["reply"]["content"] == "Half and half."
    assert (await session(alice, writing.session))["messageCount"] == 2


async def test_the_same_message_joins_its_reply_under_way(writing: Writing, alice: Person):
    joined = asyncio.create_task(send(alice, **writing.message))
    await asyncio.sleep(0)
    writing.gate.set()
    assert (await joined)["reply"] == (await writing.sent())["reply"]


async def test_an_interrupting_message_stops_the_first(
    writing: Writing, model: OpenAIServer, alice: Person
):
    model.script(says("A lock is not a lease."))
    second = await send(alice, "And a lock?", sessionId=writing.session, ifBusy="INTERRUPT")
    assert second["reply"]["content"] == "A lock is not a lease."
    first = (await writing.sent())["reply"]
    assert (first["status"], first["content"]) == ("STOPPED", "Half")
    assert second["session"]["messageCount"] == 4


async def test_other_sessions_are_not_busy(writing: Writing, model: OpenAIServer, alice: Person):
    model.script(says("Yes."))
    assert (await send(alice, "Are you there?"))["reply"]["content"] == "Yes."
    writing.gate.set()
    await writing.sent()


async def test_what_is_being_written_is_seen_by_all_reads(writing: Writing, alice: Person):
    seen = await session(alice, writing.session)
    assert seen["activeReply"]["status"] == "STREAMING"
    assert seen["messageCount"] == 2
    writing.gate.set()
    await writing.sent()
    seen = await session(alice, writing.session)
    assert seen["activeReply"] is None
    assert seen["messages"]["edges"][-1]["node"]["status"] == "COMPLETE"


# --- stopped and deleted --------------------------------------------------------------


@pytest.mark.parametrize("named", ["the reply", "the question"])
async def test_a_stopped_reply_keeps_what_there_was(named: str, writing: Writing, alice: Person):
    active = (await session(alice, writing.session))["activeReply"]
    stopped = await stop(alice, active["id"] if named == "the reply" else writing.id)
    assert stopped["reply"]["id"] == active["id"]
    assert (stopped["reply"]["status"], stopped["reply"]["content"]) == ("STOPPED", "Half")
    assert stopped["reply"]["error"] is None
    assert (await writing.sent())["reply"] == stopped["reply"]


async def test_the_model_is_told_when_a_reply_is_stopped(
    writing: Writing, model: OpenAIServer, alice: Person
):
    await stop(alice, writing.id)
    async with asyncio.timeout(10):
        await model.requests[-1].gone.wait()


async def test_an_ended_reply_is_not_stopped_again(writing: Writing, alice: Person):
    writing.gate.set()
    sent = await writing.sending
    assert (await stop(alice, sent["reply"]["id"]))["reply"]["status"] == "COMPLETE"


@pytest.mark.parametrize("id", [str(uuid4()), "no uuid"])
async def test_what_is_not_there_can_not_be_stopped(id: str, alice: Person):
    assert (await stop(alice, id))["__typename"] == "NotFound"


async def test_a_stopped_session_takes_the_next_message(
    writing: Writing, model: OpenAIServer, alice: Person
):
    await stop(alice, writing.id)
    model.script(says("A lock."))
    sent = await send(alice, "And a lock?", sessionId=writing.session)
    assert sent["reply"]["content"] == "A lock."
    told = model.requests[-1].body["messages"]
    assert [each["content"] for each in told[1:]] == ["What is a lease?", "Half", "And a lock?"]


async def test_deleting_a_session_stops_its_reply(writing: Writing, alice: Person, parley: Parley):
    deleted = await alice.ask(DELETE_SESSION, id=writing.session)
    assert deleted["deleteSession"]["deletedId"] == writing.session
    assert await session(alice, writing.session) is None
    sent = await writing.sending
    assert (sent["reply"]["status"], sent["reply"]["content"]) == ("STOPPED", "Half")
    assert not parley.services.running._runs


async def test_deleting_a_reply_stops_it(writing: Writing, alice: Person):
    active = (await session(alice, writing.session))["activeReply"]
    await alice.ask(DELETE_MESSAGE, id=active["id"])
    assert (await writing.sent())["reply"]["status"] == "STOPPED"
    left = await session(alice, writing.session)
    assert (left["messageCount"], left["messages"]["totalCount"]) == (1, 1)


async def test_deleting_a_question_leaves_its_reply_under_way(writing: Writing, alice: Person):
    await alice.ask(DELETE_MESSAGE, id=writing.id)
    writing.gate.set()
    assert (await writing.sent())["reply"]["status"] == "COMPLETE"
    left = await session(alice, writing.session)
    assert (left["messageCount"], left["messages"]["totalCount"]) == (1, 1)


CLEAR = """mutation ($id: ID!, $chapter: String) {
  clearHistory(input: {sessionId: $id, chapter: $chapter}) {
    ... on ClearHistorySuccess { deletedCount session { messageCount } }
  }
}"""


async def test_clearing_a_history_stops_its_reply(writing: Writing, alice: Person):
    cleared = (await alice.ask(CLEAR, id=writing.session))["clearHistory"]
    assert cleared == {"deletedCount": 2, "session": {"messageCount": 0}}
    assert (await writing.sent())["reply"]["status"] == "STOPPED"


async def test_clearing_another_chapter_leaves_the_reply_alone(writing: Writing, alice: Person):
    cleared = (await alice.ask(CLEAR, id=writing.session, chapter="Two"))["clearHistory"]
    assert cleared["deletedCount"] == 0
    writing.gate.set()
    assert (await writing.sent())["reply"]["status"] == "COMPLETE"


# --- abandoned ------------------------------------------------------------------------


async def test_a_client_that_goes_away_loses_nothing(
    writing: Writing, alice: Person, parley: Parley
):
    writing.sending.cancel()
    await asyncio.wait([writing.sending])
    assert (await session(alice, writing.session))["activeReply"]
    writing.gate.set()
    await until(lambda: not parley.services.running._runs)
    reply = await reply_of(alice, writing.session)
    assert (reply["status"], reply["content"]) == ("COMPLETE", "Half and half.")


async def test_a_client_that_goes_away_before_the_first_word_loses_nothing(
    model: OpenAIServer, alice: Person, parley: Parley
):
    writing = Writing(model, alice, text="")
    await until(lambda: bool(model.requests))
    writing.sending.cancel()
    await asyncio.wait([writing.sending])
    writing.gate.set()
    await until(lambda: not parley.services.running._runs)
    reply = await reply_of(alice, writing.session)
    assert (reply["status"], reply["content"].strip()) == ("COMPLETE", "and half.")
    assert (await send(alice, **writing.message))["reply"] == reply


# --- the server goes down -------------------------------------------------------------


async def test_a_server_that_closes_stores_what_there_is(
    writing: Writing, alice: Person, parley: Parley
):
    grace = timedelta(milliseconds=1)
    async with asyncio.timeout(PATIENCE_SECONDS):
        await parley.services.running.close(grace)
    reply = await reply_of(alice, writing.session)
    assert (reply["status"], reply["content"]) == ("INTERRUPTED", "Half")
    assert reply["error"]["code"] == "INTERRUPTED"
    assert (await writing.sent())["reply"] == reply
