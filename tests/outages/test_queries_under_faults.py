"""The wire to Postgres breaks at every statement of a query: the answer is the same."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from db.connections import Patience
from db.engine import Database
from graphql_api.settings import Settings
from tests.factories import make_document, make_session, make_turn
from tests.outages.conftest import PATIENCE, parley_over
from tests.outages.faults import How, Moment, Wire
from tests.people import Person

STATEMENTS = 13
"How many the query takes; a test says so."
QUERY = """query ($session: ID!, $message: ID!, $document: ID!) {
  viewer { id createdAt }
  session(id: $session) {
    title messageCount lastMessage { id } activeReply { id }
    messages(first: 10) { totalCount edges { node { id content replyTo { id } } } }
  }
  message(id: $message) { id content session { id } }
  sessions(first: 5) { totalCount edges { node { id } } }
  document(id: $document) { id title }
  documents { totalCount }
}"""
LOOK = "{ viewer { id } }"


@pytest.fixture
def database_url(shared_url: str) -> str:
    return shared_url


@pytest.fixture
def patience() -> Patience:
    return PATIENCE


@pytest.fixture
async def alice(wire: Wire, settings: Settings, patience: Patience) -> AsyncGenerator[Person]:
    """Asks a server with one connection, so that statements come one by one."""
    async with parley_over(
        wire, settings, pool_size=1, max_overflow=0, patience=patience
    ) as parley:
        yield parley.person()


@pytest.fixture
async def things(alice: Person, onlooker: Database) -> dict[str, str]:
    """What the query asks for."""
    session = await make_session(onlooker, owner=alice.viewer)
    _, reply = await make_turn(onlooker, owner=alice.viewer, session=session)
    document = await make_document(onlooker, owner=alice.viewer)
    return {"session": str(session), "message": str(reply), "document": str(document)}


async def test_it_takes_so_many_statements(alice: Person, wire: Wire, things: Any):
    await alice.ask(QUERY, **things)
    before = len(wire.statements)
    await alice.ask(QUERY, **things)
    assert len(wire.statements) - before == STATEMENTS


@pytest.mark.parametrize("moment", Moment)
async def test_a_query_that_breaks_anywhere_is_answered(
    alice: Person, wire: Wire, things: Any, moment: Moment
):
    whole = await alice.ask(QUERY, **things)
    for number in range(1, STATEMENTS + 1):
        planned = wire.break_at("", moment, nth=number)
        assert await alice.ask(QUERY, **things) == whole, planned.statement
        assert planned.sprung


async def test_a_query_that_breaks_everywhere_is_answered(alice: Person, wire: Wire, things: Any):
    whole = await alice.ask(QUERY, **things)
    planned = [wire.break_at("SELECT", moment) for moment in Moment for _ in range(3)]
    assert await alice.ask(QUERY, **things) == whole
    assert all(each.sprung for each in planned)


@pytest.mark.parametrize("patience", [Patience(statement=1.0, retry=0.5)], ids=["impatient"])
async def test_a_query_that_falls_silent_is_unavailable_and_the_next_is_answered(
    alice: Person, wire: Wire
):
    await alice.ask(LOOK)
    wire.break_at("SELECT users", Moment.BEFORE, How.SILENT)
    body = {"query": LOOK}
    refused = await alice.http.post("/graphql", json=body, headers=alice.headers)
    assert refused.status_code == 503
    await alice.ask(LOOK)


async def test_a_slow_wire_changes_nothing(alice: Person, wire: Wire, things: Any):
    whole = await alice.ask(QUERY, **things)
    wire.delay_seconds = 0.02
    assert await alice.ask(QUERY, **things) == whole
