"""Sending and deleting messages: what is taken, what is refused, and what is sent twice."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.factories import make_message, make_session, make_streaming_reply, make_turn
from tests.operations import DELETE_MESSAGE, add_text, send, session
from tests.people import Parley, Person

NOT_FOUND = {"__typename": "NotFound", "message": "There is nothing of yours by this id."}


async def delete(person: Person, id: UUID | str) -> Any:
    return (await person.ask(DELETE_MESSAGE, id=str(id)))["deleteMessage"]


# --- sendMessage ----------------------------------------------------------------------


async def test_a_message_without_a_session_begins_one(alice: Person):
    sent = await send(alice, "What is a lease?")
    assert sent["session"]["messageCount"] == 2
    assert UUID(sent["session"]["id"]).version == 7
    assert UUID(sent["userMessage"]["id"]).version == 7


async def test_a_message_may_have_the_clients_ids(alice: Person):
    session_id, message_id = str(uuid4()), str(uuid4())
    sent = await send(alice, sessionId=session_id, messageId=message_id.upper())
    assert sent["session"]["id"] == session_id
    assert sent["userMessage"]["id"] == message_id
    assert sent["reply"]["replyTo"]["id"] == message_id


async def test_a_message_keeps_what_it_was_sent_with(alice: Person):
    content = "  Was heißt »𝄞«?\n\n"
    sent = await send(alice, content, chapter="Noten", selectedText="𝄞")
    question = sent["userMessage"]
    assert (question["content"], question["chapter"], question["selectedText"]) == (
        content,
        "Noten",
        "𝄞",
    )
    assert (sent["reply"]["chapter"], sent["reply"]["status"]) == ("Noten", "COMPLETE")


async def test_the_reply_cites_what_it_found(alice: Person, parley: Parley):
    added = await add_text(alice, "# Leases\n\nA lease expires after thirty seconds.")
    await parley.documents_read()
    reply = (await send(alice, "When does a lease expire?"))["reply"]
    assert reply["searches"]
    [citation] = reply["citations"]
    assert citation["document"] == {"id": added["document"]["id"]}
    assert "thirty seconds" in citation["snippet"]
    assert "[1]" in reply["content"]


async def test_only_the_named_documents_are_searched(alice: Person, parley: Parley):
    ids: list[str] = []
    for hour in ("nine", "ten"):
        added = await add_text(alice, f"The harbour closes at {hour}.")
        ids.append(added["document"]["id"])
    await parley.documents_read()
    for wanted in ([ids[0]], [ids[1]], ids, []):
        sent = await send(alice, "When does the harbour close?", documentIds=wanted)
        found = {citation["documentId"] for citation in sent["reply"]["citations"]}
        assert found <= set(wanted)
        assert bool(found) == bool(wanted)


async def test_a_document_that_is_not_there_is_not_found(alice: Person):
    for id in (str(uuid4()), "no uuid", ""):
        assert await send(alice, documentIds=[id]) == NOT_FOUND
    counted = await alice.ask("{ sessions { totalCount } }")
    assert counted["sessions"]["totalCount"] == 0


INVALID = {
    "empty": ("content", {"content": ""}),
    "blank": ("content", {"content": " \n\t"}),
    "too long": ("content", {"content": "x" * 100_001}),
    "NUL": ("content", {"content": "a\0b"}),
    "a high surrogate alone": ("content", {"content": "a\ud83d"}),
    "a low surrogate alone": ("content", {"content": "\ude00a"}),
    "no session's id": ("sessionId", {"sessionId": "first"}),
    "an empty session id": ("sessionId", {"sessionId": ""}),
    "no message's id": ("messageId", {"messageId": "1"}),
    "an empty chapter": ("chapter", {"chapter": ""}),
    "a chapter too long": ("chapter", {"chapter": "x" * 501}),
    "a chapter with NUL": ("chapter", {"chapter": "\0"}),
    "a selection with half a pair": ("selectedText", {"selectedText": "\udfff"}),
    "a selection too long": ("selectedText", {"selectedText": "x" * 100_001}),
}


async def test_what_can_not_be_stored_is_invalid(alice: Person):
    for name, (field, input) in INVALID.items():
        refused = await send(alice, **{"content": "Hello"} | input)
        assert (refused["__typename"], refused.get("field")) == ("InvalidInput", field), name
    counted = await alice.ask("{ viewer { createdAt } sessions { totalCount } }")
    assert counted == {"viewer": {"createdAt": None}, "sessions": {"totalCount": 0}}


async def test_the_longest_message_is_taken(alice: Person):
    content = "x" * 100_000
    assert (await send(alice, content))["userMessage"]["content"] == content


# --- the same message again -----------------------------------------------------------


async def test_the_same_message_again_is_answered_from_what_was_stored(alice: Person):
    message = {"messageId": str(uuid4()), "chapter": "One", "selectedText": "this"}
    sent = await send(alice, "Hello", **message)
    assert await send(alice, "Hello", **message) == sent
    named = {**message, "sessionId": sent["session"]["id"].upper()}
    assert await send(alice, "Hello", **named) == sent


async def test_the_order_of_named_documents_does_not_matter(alice: Person):
    ids = [(await add_text(alice, text))["document"]["id"] for text in ("One", "Two")]
    message = {"messageId": str(uuid4())}
    sent = await send(alice, **message, documentIds=ids)
    assert await send(alice, **message, documentIds=[*reversed(ids), ids[0].upper()]) == sent


@pytest.fixture
async def sent(alice: Person) -> dict[str, Any]:
    """What was sent: a message of Alice's in every respect."""
    added = await add_text(alice, "A document")
    message: dict[str, Any] = {
        "content": "Hello",
        "messageId": str(uuid4()),
        "sessionId": str(uuid4()),
        "chapter": "One",
        "selectedText": "this",
        "documentIds": [added["document"]["id"]],
    }
    assert (await send(alice, **message))["__typename"] == "SendMessageSuccess"
    return message


CHANGES: list[dict[str, Any]] = [
    {"content": "Hello!"},
    {"content": "Hello "},
    {"sessionId": str(uuid4())},
    {"chapter": "Two"},
    {"chapter": None},
    {"selectedText": "that"},
    {"selectedText": None},
    {"documentIds": []},
    {"documentIds": None},
]


async def test_the_same_id_for_another_message_is_a_conflict(alice: Person, sent: dict[str, Any]):
    for change in CHANGES:
        assert (await send(alice, **sent | change))["__typename"] == "IdConflict", change
    assert (await session(alice, sent["sessionId"]))["messageCount"] == 2


async def test_a_replys_id_is_a_conflict(alice: Person):
    reply = (await send(alice, "Hello"))["reply"]
    again = await send(alice, reply["content"], messageId=reply["id"])
    assert again["__typename"] == "IdConflict"


async def test_a_message_whose_reply_was_deleted_is_a_conflict(alice: Person):
    message = {"content": "Hello", "messageId": str(uuid4())}
    reply = (await send(alice, **message))["reply"]
    await delete(alice, reply["id"])
    assert (await send(alice, **message))["__typename"] == "IdConflict"


async def test_a_deleted_message_may_be_sent_again(alice: Person):
    message = {"content": "Hello", "messageId": str(uuid4())}
    first = await send(alice, **message)
    await delete(alice, message["messageId"])
    second = await send(alice, **message)
    assert second["reply"]["id"] != first["reply"]["id"]


async def test_many_first_messages_to_a_new_session_share_it(alice: Person):
    id = str(uuid4())
    answers = await asyncio.gather(
        *(send(alice, f"Question {number}", sessionId=id, ifBusy="REJECT") for number in range(5))
    )
    taken = [each for each in answers if each["__typename"] == "SendMessageSuccess"]
    assert {each["__typename"] for each in answers} <= {"SendMessageSuccess", "ReplyInProgress"}
    assert (await session(alice, id))["messageCount"] == 2 * len(taken)


# --- a reply of another process -------------------------------------------------------


async def test_while_a_reply_is_written_elsewhere_a_message_is_refused(
    alice: Person, parley: Parley
):
    made = await make_session(parley.database, owner=alice.viewer)
    writing = await make_streaming_reply(parley.database, owner=alice.viewer, session=made)
    refused = await send(alice, sessionId=str(made))
    assert refused["__typename"] == "ReplyInProgress"
    assert (refused["reply"]["id"], refused["reply"]["status"]) == (str(writing), "STREAMING")


async def test_a_reply_whose_server_died_is_in_nobodys_way(alice: Person, parley: Parley):
    made = await make_session(parley.database, owner=alice.viewer)
    left = await make_streaming_reply(
        parley.database,
        owner=alice.viewer,
        session=made,
        content="A lease",
        lease=timedelta(seconds=-1),
    )
    before = await session(alice, str(made))
    assert before["activeReply"] is None
    assert before["messages"]["edges"][-1]["node"]["status"] == "INTERRUPTED"
    assert (await send(alice, sessionId=str(made)))["session"]["messageCount"] == 4
    found = (await session(alice, str(made)))["messages"]["edges"]
    [settled] = [edge["node"] for edge in found if edge["node"]["id"] == str(left)]
    assert (settled["status"], settled["content"]) == ("INTERRUPTED", "A lease")
    assert settled["error"]["code"] == "INTERRUPTED"
    assert settled["error"]["retryable"]


# --- deleteMessage --------------------------------------------------------------------


async def test_a_deleted_message_is_gone_and_counted_no_more(alice: Person, parley: Parley):
    made = await make_session(parley.database, owner=alice.viewer)
    question, reply = await make_turn(parley.database, owner=alice.viewer, session=made)
    assert await delete(alice, reply) == {
        "__typename": "DeleteMessageSuccess",
        "deletedId": str(reply),
    }
    left = await session(alice, str(made))
    assert (left["messageCount"], left["messages"]["totalCount"]) == (1, 1)
    assert [edge["node"]["id"] for edge in left["messages"]["edges"]] == [str(question)]
    assert await delete(alice, reply) == NOT_FOUND


async def test_a_reply_outlives_its_question(alice: Person, parley: Parley):
    made = await make_session(parley.database, owner=alice.viewer)
    question, reply = await make_turn(parley.database, owner=alice.viewer, session=made)
    await delete(alice, question)
    [left] = (await session(alice, str(made)))["messages"]["edges"]
    assert (left["node"]["id"], left["node"]["replyTo"]) == (str(reply), None)


async def test_what_is_not_there_can_not_be_deleted(alice: Person):
    for id in (str(uuid4()), "no uuid", ""):
        assert await delete(alice, id) == NOT_FOUND


async def test_after_a_deletion_new_messages_still_come_last(alice: Person, parley: Parley):
    made = await make_session(parley.database, owner=alice.viewer)
    ids = [
        str(await make_message(parley.database, owner=alice.viewer, session=made)) for _ in range(3)
    ]
    await delete(alice, ids[1])
    sent = await send(alice, sessionId=str(made))
    found = (await session(alice, str(made)))["messages"]["edges"]
    expected = [ids[0], ids[2], sent["userMessage"]["id"], sent["reply"]["id"]]
    assert [edge["node"]["id"] for edge in found] == expected
