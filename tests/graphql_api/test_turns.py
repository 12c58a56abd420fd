"""Sending messages, through GraphQL to Postgres and back."""

import asyncio
from uuid import uuid4

from tests.people import Parley, Person

SEND = """
mutation ($input: SendMessageInput!) {
  sendMessage(input: $input) {
    __typename
    ... on SendMessageSuccess {
      session { id title messageCount }
      userMessage { id content role status chapter selectedText }
      reply { id content role status model error { code } replyTo { id } searches
              citations { marker title snippet document { id } } }
    }
    ... on UserError { message }
    ... on InvalidInput { field }
    ... on ReplyInProgress { reply { id } }
  }
}
"""


async def send(person: Person, content: str = "What is Parley?", **more: object):
    return (await person.ask(SEND, input={"content": content, **more}))["sendMessage"]


async def test_both_turns_are_stored(alice: Person):
    sent = await send(alice, "Hello there")
    history = await alice.ask(
        "query ($id: ID!) { messages(sessionId: $id) { edges { node { id content role } } } }",
        id=sent["session"]["id"],
    )
    assert [edge["node"]["id"] for edge in history["messages"]["edges"]] == [
        sent["userMessage"]["id"],
        sent["reply"]["id"],
    ]
    assert sent["reply"]["status"] == "COMPLETE"
    assert sent["reply"]["replyTo"]["id"] == sent["userMessage"]["id"]


async def test_the_same_message_sent_fifty_times_is_one_turn(alice: Person, parley: Parley):
    id = str(uuid4())
    answers = await asyncio.gather(*(send(alice, "Hello", messageId=id) for _ in range(50)))
    assert len({str(answer) for answer in answers}) == 1
    counted = await alice.ask("{ sessions { totalCount edges { node { messageCount } } } }")
    assert counted["sessions"] == {"totalCount": 1, "edges": [{"node": {"messageCount": 2}}]}


async def test_a_second_message_joins_its_session(alice: Person):
    first = await send(alice, "One")
    second = await send(alice, "Two", sessionId=first["session"]["id"])
    assert second["session"] == {**first["session"], "messageCount": 4}
