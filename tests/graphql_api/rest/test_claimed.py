"""A visitor's conversations over REST, once a user has claimed them: under the names they had."""

from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import text

from db.models import Base
from db.sessions import MAX_KEY_LENGTH
from graphql_api.settings import Settings
from tests.graphql_api.claims.test_claims import claim
from tests.graphql_api.rest.frontends import Frontend
from tests.issuer import Issuer
from tests.people import Parley


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    return settings.model_copy(update={**issuer.settings, "allow_anonymous": True})


@pytest.fixture
def visitor(parley: Parley) -> Frontend:
    return Frontend(parley.person())


@pytest.fixture
def ann(parley: Parley, issuer: Issuer) -> Frontend:
    return Frontend(parley.bearer(issuer.token("ann")))


@pytest.fixture
def bob(parley: Parley, issuer: Issuer) -> Frontend:
    return Frontend(parley.bearer(issuer.token("bob")))


async def said(frontend: Frontend, session_id: str) -> list[str]:
    history = await frontend.get("/chat/history", session_id=session_id)
    return [each["content"] for each in history["messages"][::2]]


async def stored_anywhere(parley: Parley, key: str) -> list[str]:
    """Name the tables that hold a key."""
    holding: list[str] = []
    for table in Base.metadata.tables:
        query = f'SELECT count(*) FROM "{table}" AS t WHERE t::text ILIKE :key'
        [[count]] = await parley.database.rows(text(query), {"key": f"%{key}%"})
        holding += [table] if count else []
    return holding


async def test_the_lasting_conversation_is_found_by_the_key_that_named_it(
    visitor: Frontend, ann: Frontend, bob: Frontend, parley: Parley
):
    key = visitor.person.key
    await visitor.chat("One")
    await claim(ann.person, key)
    assert await said(ann, key) == ["One"]
    assert (await ann.chat("Two", session_id=key))["session_id"] == key
    assert await said(ann, key) == ["One", "Two"]
    assert (await ann.get(f"/sessions/{key}"))["message_count"] == 4
    assert (await ann.ask("POST", "/sessions", json={"session_id": key}))["message_count"] == 4
    [listed] = (await ann.get("/sessions"))["sessions"]
    assert listed["session_id"] == listed["id"] != key
    assert await stored_anywhere(parley, key) == []
    for path in (f"/sessions/{key}", f"/chat/history?session_id={key}"):
        assert (await bob.refused("GET", path))["status"] == 404


async def test_sending_again_what_was_sent_before_the_claim_joins_it(
    visitor: Frontend, ann: Frontend
):
    id = str(uuid4())
    before = await visitor.chat("One", key=id)
    await claim(ann.person, visitor.person.key)
    after = await ann.chat("One", key=id, session_id=visitor.person.key)
    assert after["message_id"] == before["message_id"]


async def test_a_key_that_is_shown_beside_a_token_names_nothing_that_is_stored(
    ann: Frontend, parley: Parley
):
    """Frontends that always send both have not claimed the visitor yet."""
    key = str(uuid4())
    headers = {"X-Session-ID": key, "Idempotency-Key": key}
    body = {"message": "One", "session_id": key}
    answer = await ann.ask("POST", "/chat", json=body, headers=headers)
    assert answer["session_id"] == key
    [listed] = (await ann.ask("GET", "/sessions", headers={"X-Session-ID": key}))["sessions"]
    assert listed["session_id"] == key
    assert await stored_anywhere(parley, key) == []


@pytest.mark.parametrize("shown", ["", "no key"])
async def test_what_is_shown_beside_a_token_and_is_no_key_is_passed_over(ann: Frontend, shown: str):
    await ann.ask("GET", "/sessions", headers={"X-Session-ID": shown})


async def test_the_longest_name_can_still_be_used_after_a_claim(visitor: Frontend, ann: Frontend):
    name = "n" * MAX_KEY_LENGTH
    for frontend in (visitor, ann):
        await frontend.chat("One", session_id=name)
    await claim(ann.person, visitor.person.key)
    listed: list[Any] = (await ann.get("/sessions"))["sessions"]
    names = [each["session_id"] for each in listed]
    assert len(set(names)) == 2
    for each in names:
        assert (await ann.chat("Two", session_id=each))["session_id"] == each
