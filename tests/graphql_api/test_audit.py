"""The audit log: who changed what, and by which request."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from graphql_api.settings import Settings
from tests.openai_server import OpenAIServer, says
from tests.operations import being_written, send
from tests.people import Parley, Person, open_parley

LOG = """{ viewer { id auditLog { edges { node {
  action entity entityId userId detail requestId
} } } } }"""
STOP = """mutation ($id: ID!) { stopReply(input: {messageId: $id}) {
  __typename ... on StopReplySuccess { reply { id status } } } }"""


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer) -> Settings:
    return settings.model_copy(update={"openai_base_url": model.url, "openai_model": "m"})


async def logged(person: Person) -> list[Any]:
    """Give the entries, the last first."""
    viewer = (await person.ask(LOG))["viewer"]
    entries = [edge["node"] for edge in viewer["auditLog"]["edges"]]
    assert {each["userId"] for each in entries} <= {viewer["id"]}
    return entries


async def stop(person: Person, message: str) -> Any:
    return (await person.ask(STOP, id=message))["stopReply"]["reply"]


async def test_a_message_is_on_record_with_the_session_that_it_began(
    alice: Person, model: OpenAIServer
):
    sent: list[Any] = []
    for _ in range(2):
        model.script(says("Text."))
        more = {"sessionId": sent[0]["session"]["id"]} if sent else {}
        sent.append(await send(alice, "What is a lease?", **more))
    second, first = await logged(alice)
    assert (first["action"], first["entity"]) == ("SEND", "MESSAGE")
    assert first["entityId"] == sent[0]["userMessage"]["id"]
    ids = {"session_id": sent[0]["session"]["id"], "reply_id": sent[0]["reply"]["id"]}
    assert first["detail"] == {**ids, "session_is_new": True}
    assert second["detail"] == {**ids, "reply_id": sent[1]["reply"]["id"]}
    assert first["requestId"] != second["requestId"]


@pytest.mark.parametrize("where", ["here", "elsewhere"])
async def test_who_stops_a_reply_is_on_record_once(
    alice: Person, parley: Parley, settings: Settings, model: OpenAIServer, where: str
):
    model.script(says("Half", asyncio.Event()))
    message = str(uuid4())
    sending = asyncio.create_task(send(alice, "What is a lease?", messageId=message))
    await being_written(parley, "Half")
    apart = settings.model_copy(update={"data_dir": settings.data_dir / "elsewhere"})
    async with open_parley(apart, parley.database) as other:
        stopper = Person(other.http, alice.key) if where == "elsewhere" else alice
        both = await asyncio.gather(stop(stopper, message), stop(stopper, message))
        assert (await sending)["reply"]["status"] == "STOPPED"
        again = await stop(stopper, message)
    assert [each["status"] for each in (*both, again)] == ["STOPPED"] * 3
    stopped, sent = await logged(alice)
    assert (stopped["action"], stopped["entity"]) == ("STOP", "MESSAGE")
    assert stopped["entityId"] == again["id"] == sent["detail"]["reply_id"]
    assert stopped["requestId"]


async def test_what_is_stopped_to_make_way_is_part_of_what_is_done(
    alice: Person, parley: Parley, model: OpenAIServer
):
    id = str(uuid4())
    model.script(says("Half", asyncio.Event()))
    sending = asyncio.create_task(send(alice, "One", sessionId=id))
    await being_written(parley, "Half")
    model.script(says("Text."))
    await send(alice, "Two", sessionId=id, ifBusy="INTERRUPT")
    await sending
    assert [each["action"] for each in await logged(alice)] == ["SEND", "SEND"]
