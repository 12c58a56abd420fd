"""Claiming a visitor whose reply is being written: it goes on under its new owner."""

import asyncio
from uuid import uuid4

import pytest

from db import turns
from db.engine import Database
from db.ids import MessageId, RunId, UserId
from db.messages import MessageRow
from graphql_api.settings import Settings
from tests.graphql_api.claims.test_claims import FOLLOW, HISTORY, claim
from tests.issuer import Issuer
from tests.openai_server import OpenAIServer, Stream, chunk, says, searches
from tests.operations import add_text, being_written, send, session, until
from tests.people import Parley, Person, open_parley


async def test_a_reply_goes_on_under_its_new_owner(
    parley: Parley, visitor: Person, ann: Person, model: OpenAIServer
):
    gate = asyncio.Event()
    model.script(says("Half", gate, " and half."))
    sending = asyncio.create_task(send(visitor, "What is a lease?"))
    await being_written(parley, "Half")
    await claim(ann, visitor.key)
    [edge] = (await ann.ask(HISTORY))["sessions"]["edges"]
    _, reply = [each["node"] for each in edge["node"]["messages"]["edges"]]
    assert reply["status"] == "STREAMING"

    following = asyncio.create_task(ann.text(FOLLOW, id=reply["id"]))
    gate.set()
    assert (await sending)["reply"]["content"] == "Half and half."
    assert '"content":"Half and half."' in await following
    shown = await session(ann, edge["node"]["id"])
    stored = shown["messages"]["edges"][1]["node"]
    assert (stored["status"], stored["content"]) == ("COMPLETE", "Half and half.")


async def test_a_reply_that_goes_on_finds_what_went_along(
    parley: Parley, visitor: Person, ann: Person, model: OpenAIServer
):
    await add_text(visitor, "The quicksilver is kept in the cellar.")
    await parley.documents_read()
    gate = asyncio.Event()
    model.script(Stream([chunk({"content": "Let me look."}), gate, *searches("quicksilver").steps]))
    model.script(says("In the cellar [1]."))
    sending = asyncio.create_task(send(visitor, "Where is the quicksilver?"))
    await being_written(parley, "Let me look.")
    await claim(ann, visitor.key)
    [run] = parley.services.running._runs.values()
    await until(lambda: run.user_id != visitor.viewer.user_id)
    gate.set()
    await sending
    [edge] = (await ann.ask(HISTORY))["sessions"]["edges"]
    _, reply = [each["node"] for each in edge["node"]["messages"]["edges"]]
    assert reply["content"].endswith("In the cellar [1].")
    assert len(reply["citations"]) == 1


async def test_a_reply_with_a_new_id_goes_on_and_can_be_stopped(
    parley: Parley, visitor: Person, ann: Person, model: OpenAIServer
):
    ids = {"sessionId": str(uuid4()), "messageId": str(uuid4())}
    model.script(says("Ann's."))
    await send(ann, "Equal", **ids)
    model.script(says("Half", asyncio.Event()))
    sending = asyncio.create_task(send(visitor, "Equal", **ids))
    await being_written(parley, "Half")
    await claim(ann, visitor.key)
    active = """{ sessions { edges { node { activeReply { id } } } } }"""
    edges = (await ann.ask(active))["sessions"]["edges"]
    [reply] = [edge["node"]["activeReply"] for edge in edges if edge["node"]["activeReply"]]
    stopped = await ann.ask(
        """mutation ($id: ID!) { stopReply(input: {messageId: $id}) {
          ... on StopReplySuccess { reply { status content } } } }""",
        id=reply["id"],
    )
    assert stopped["stopReply"]["reply"] == {"status": "STOPPED", "content": "Half"}
    assert (await sending)["reply"]["status"] == "STOPPED"


async def test_an_end_that_meets_a_claim_is_stored_once(
    parley: Parley, issuer: Issuer, model: OpenAIServer
):
    for number in range(20):
        gate = asyncio.Event()
        model.script(says("Half", gate, " and half."))
        visitor, ann = parley.person(), parley.bearer(issuer.token(str(number)))
        sending = asyncio.create_task(send(visitor, "What is a lease?"))
        await being_written(parley, "Half")
        gate.set()
        await claim(ann, visitor.key)
        await sending
        await until(lambda: not parley.services.running._runs)
        [edge] = (await ann.ask(HISTORY))["sessions"]["edges"]
        _, reply = [each["node"] for each in edge["node"]["messages"]["edges"]]
        assert (reply["status"], reply["content"]) == ("COMPLETE", "Half and half.")


async def test_an_end_whose_moved_row_a_tick_finds_first_is_stored(
    parley: Parley,
    visitor: Person,
    ann: Person,
    model: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
):
    running, end_reply = parley.services.running, turns.end_reply
    monkeypatch.setattr("resolvers.runs.TICK_SECONDS", 3600)

    async def overtaken(
        database: Database, user_id: UserId, id: MessageId, run_id: RunId, ending: turns.Ending
    ) -> MessageRow | None:
        """End a reply; a tick that was under way looks for its row just then."""
        row = await end_reply(database, user_id, id, run_id, ending)
        if row is None:
            await running._look_up({run.run_id: run for run in running._runs.values()})
        return row

    monkeypatch.setattr("resolvers.runs.turns.end_reply", overtaken)
    gate = asyncio.Event()
    model.script(says("Half", gate, " and half."))
    sending = asyncio.create_task(send(visitor, "What is a lease?"))
    await until(lambda: any(run.stream.length for run in running._runs.values()))
    await claim(ann, visitor.key)
    gate.set()
    assert (await sending)["reply"]["content"] == "Half and half."
    [edge] = (await ann.ask(HISTORY))["sessions"]["edges"]
    _, reply = [each["node"] for each in edge["node"]["messages"]["edges"]]
    assert (reply["status"], reply["content"]) == ("COMPLETE", "Half and half.")


async def test_a_follower_elsewhere_hears_of_the_end(
    parley: Parley, settings: Settings, visitor: Person, ann: Person, model: OpenAIServer
):
    gate = asyncio.Event()
    model.script(says("Half", gate, " and half."))
    elsewhere = settings.model_copy(update={"data_dir": settings.data_dir / "elsewhere"})
    async with open_parley(elsewhere, parley.database) as other:
        message_id = str(uuid4())
        sending = asyncio.create_task(send(visitor, "What is a lease?", messageId=message_id))
        await being_written(parley, "Half")
        there = Person(other.http, visitor.key)
        following = asyncio.create_task(there.text(FOLLOW, id=message_id))
        watches = other.services.replies._watches._watches
        await until(lambda: any(watch.run_id for watch in watches.values()))
        await claim(ann, visitor.key)
        await until(lambda: any(watch.place != watch.key for watch in watches.values()))
        gate.set()
        assert '"status":"COMPLETE","content":"Half and half."' in await following
        await sending


@pytest.mark.parametrize("meets", ["the first look", "the end"])
async def test_a_follower_elsewhere_hears_of_the_end_whatever_a_claim_meets(
    parley: Parley,
    settings: Settings,
    visitor: Person,
    ann: Person,
    model: OpenAIServer,
    monkeypatch: pytest.MonkeyPatch,
    meets: str,
):
    """Both lie between two looks at the row, of which the first tells which run it is."""
    gate, message_id = asyncio.Event(), str(uuid4())
    model.script(says("Half", gate, " and half."))
    elsewhere = settings.model_copy(update={"data_dir": settings.data_dir / "elsewhere"})
    async with open_parley(elsewhere, parley.database) as other:
        watches = other.services.replies._watches
        read, looking = watches._read, asyncio.Event()
        monkeypatch.setattr(watches, "_read", lambda: looking.wait())
        sending = asyncio.create_task(send(visitor, "What is a lease?", messageId=message_id))
        await being_written(parley, "Half")
        following = asyncio.create_task(Person(other.http, visitor.key).text(FOLLOW, id=message_id))
        await until(lambda: bool(watches._watches))
        if meets == "the end":
            await read()
        await claim(ann, visitor.key)
        if meets == "the end":
            gate.set()
            await sending
        monkeypatch.setattr(watches, "_read", read)
        looking.set()
        if meets == "the first look":
            await until(lambda: any(each.place != each.key for each in watches._watches.values()))
            gate.set()
            await sending
        assert '"status":"COMPLETE","content":"Half and half."' in await following


async def test_sends_that_meet_a_claim_are_not_lost(parley: Parley, visitor: Person, ann: Person):
    await send(visitor, "First")
    sends = [asyncio.create_task(send(visitor, f"Question {number}")) for number in range(10)]
    claims = [asyncio.create_task(claim(ann, visitor.key)) for _ in range(3)]
    await asyncio.gather(*sends, *claims)
    await claim(ann, visitor.key)
    titles = [edge["node"]["title"] for edge in (await ann.ask(HISTORY))["sessions"]["edges"]]
    assert sorted(titles) == sorted(["First", *(f"Question {number}" for number in range(10))])
    assert (await visitor.ask(HISTORY))["sessions"]["totalCount"] == 0
