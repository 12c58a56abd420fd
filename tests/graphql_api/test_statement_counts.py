"""A query takes as many statements for fifty parents as for one."""

from typing import Any

import pytest

from db.engine import Database
from db.models import IngestionStatus
from tests.factories import (
    citation,
    make_document,
    make_session,
    make_streaming_reply,
    make_turn,
)
from tests.people import Parley, Person
from tests.statements import recorded

SIDE_BAR = """{
  sessions(first: 50) {
    totalCount
    edges { node {
      title
      lastMessage { content citations { document { title } } }
      activeReply { id }
      messages(last: 5) {
        totalCount
        edges { node {
          content
          citations { document { title } }
          replyTo { id }
          session { id }
        } }
      }
      leases: messages(chapter: "leases") { totalCount }
    } }
  }
}"""
LIBRARY = "{ documents(first: 50) { totalCount edges { node { title status } } } }"
HISTORY = """query ($id: ID!) {
  messages(sessionId: $id, first: 100) {
    totalCount
    edges { node {
      content
      replyTo { content replyTo { id } }
      session { title lastMessage { id } activeReply { id } }
      citations { document { title } }
    } }
  }
}"""


async def make_conversation(
    database: Database, owner: Person, *, turns: int = 2, writing: bool = True
) -> str:
    """Make a session with turns that cite its document, and a reply under way."""
    session = await make_session(database, owner=owner.viewer)
    document = await make_document(database, owner=owner.viewer)
    for _ in range(turns):
        await make_turn(
            database, owner=owner.viewer, session=session, citations=[citation(document)]
        )
    if writing:
        await make_streaming_reply(database, owner=owner.viewer, session=session)
    return str(session)


async def statements_of(parley: Parley, person: Person, query: str, **variables: Any) -> list[str]:
    with recorded(parley.database) as statements:
        await person.ask(query, **variables)
    return sorted(statements)  # what runs at the same time has no order


@pytest.mark.parametrize("writing", [True, False])
async def test_fifty_sessions_take_as_many_statements_as_one(
    writing: bool, alice: Person, bob: Person, parley: Parley
):
    await make_conversation(parley.database, alice, writing=writing)
    for _ in range(50):
        await make_conversation(parley.database, bob, writing=writing)
    of_one = await statements_of(parley, alice, SIDE_BAR)
    of_fifty = await statements_of(parley, bob, SIDE_BAR)
    assert of_fifty == of_one


async def test_the_side_bar_takes_ten_statements(alice: Person, parley: Parley):
    await make_conversation(parley.database, alice)
    # The page, its count; last messages, active replies, histories; histories and counts of a
    # chapter; then the questions, sessions and documents of what was found.
    assert len(await statements_of(parley, alice, SIDE_BAR)) == 10


async def test_fifty_documents_take_as_many_statements_as_one(
    alice: Person, bob: Person, parley: Parley
):
    await make_document(parley.database, owner=alice.viewer)
    for number in range(50):
        status = list(IngestionStatus)[number % 4]
        await make_document(parley.database, owner=bob.viewer, status=status)
    of_one = await statements_of(parley, alice, LIBRARY)
    assert await statements_of(parley, bob, LIBRARY) == of_one
    assert len(of_one) == 2


async def test_a_long_history_takes_as_many_statements_as_a_short_one(
    alice: Person, parley: Parley
):
    short = await make_conversation(parley.database, alice, turns=1)
    long = await make_conversation(parley.database, alice, turns=60)
    of_short = await statements_of(parley, alice, HISTORY, id=short)
    assert await statements_of(parley, alice, HISTORY, id=long) == of_short


async def test_the_recorder_sees_every_statement(alice: Person, parley: Parley):
    aliased = " ".join(f"s{n}: sessions {{ totalCount }}" for n in range(3))
    statements = await statements_of(parley, alice, f"{{ {aliased} }}")
    assert len(statements) == 6
