"""Conversations over REST: listed, made, found by id or key, renamed, deleted."""

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from tests.factories import make_session
from tests.graphql_api.rest.frontends import Frontend
from tests.operations import session
from tests.people import Parley


async def make(frontend: Frontend, status: int = 201, **body: Any) -> Any:
    return await frontend.ask("POST", "/sessions", status, json=body)


# --- making ---------------------------------------------------------------------------


async def test_a_new_session_is_empty(alice: Frontend):
    made = await make(alice, title="Leases")
    assert UUID(made["id"]).version == 7
    assert made.pop("created_at") == made.pop("updated_at")
    assert made == {
        "id": made["id"],
        "session_id": made["id"],
        "title": "Leases",
        "message_count": 0,
    }
    assert (await session(alice.person, made["id"]))["title"] == "Leases"


async def test_a_session_has_the_name_that_it_was_given(alice: Frontend):
    id = str(uuid4())
    assert (await make(alice, session_id=id.upper()))["id"] == id
    keyed = await make(alice, session_id="mine")
    assert keyed["session_id"] == "mine"
    assert UUID(keyed["id"]).version == 7


@pytest.mark.parametrize("name", ["mine", str(uuid4()), "own"])
async def test_making_the_same_session_again_finds_it(alice: Frontend, name: str):
    name = alice.person.key if name == "own" else name
    first = await make(alice, session_id=name, title="Leases")
    assert await make(alice, 200, session_id=name, title="Leases") == first
    assert await make(alice, 200, session_id=name) == first
    body = {"session_id": name, "title": "Locks"}
    problem = await alice.refused("POST", "/sessions", json=body)
    assert (problem["status"], problem["code"]) == (409, "ID_CONFLICT")


async def test_making_the_same_session_at_once_makes_one(alice: Frontend):
    body = {"session_id": "mine"}
    answers = await asyncio.gather(*(alice.send("POST", "/sessions", json=body) for _ in range(10)))
    assert sorted(answer.status_code for answer in answers) == [200] * 9 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


async def test_the_own_key_makes_the_lasting_conversation(alice: Frontend):
    made = await make(alice, session_id=alice.person.key)
    assert made["session_id"] == alice.person.key != made["id"]
    await alice.chat("Hello")
    assert (await alice.get(f"/sessions/{alice.person.key}"))["message_count"] == 2


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"title": ""}, "title"),
        ({"title": "x" * 501}, "title"),
        ({"title": "\0"}, "title"),
        ({"session_id": ""}, "session_id"),
        ({"session_id": "x" * 501}, "session_id"),
        ({"session_id": "a\0"}, "session_id"),
        ({"session_id": 7}, "session_id"),
        ([], None),
    ],
)
async def test_what_can_not_be_taken_is_named(alice: Frontend, body: Any, field: str | None):
    problem = await alice.refused("POST", "/sessions", json=body)
    assert (problem["code"], problem.get("field")) == ("INVALID_INPUT", field)


# --- finding --------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mine", "a/b", "with space?", "ü%2F"])
async def test_a_session_is_found_by_its_key_and_its_id(alice: Frontend, name: str):
    made = await make(alice, session_id=name, title="Leases")
    assert await alice.get(f"/sessions/{quote(name, safe='')}") == made
    assert await alice.get(f"/sessions/{made['id']}") == made


async def test_an_id_comes_before_a_key(alice: Frontend, parley: Parley):
    """Older data may have a UUID as a key."""
    named = await make_session(parley.database, owner=alice.person.viewer)
    keyed = await make_session(parley.database, owner=alice.person.viewer)
    key = uuid4()
    update = "UPDATE chat_sessions SET session_id = :key WHERE id = :id"
    await parley.database.rows(text(update), {"key": str(key), "id": keyed})
    assert (await alice.get(f"/sessions/{key}"))["id"] == str(keyed)
    await parley.database.rows(text(update), {"key": str(named), "id": keyed})
    assert (await alice.get(f"/sessions/{named}"))["id"] == str(named)


async def test_a_message_goes_to_the_session_of_an_older_key(alice: Frontend, parley: Parley):
    keyed = await make_session(parley.database, owner=alice.person.viewer)
    key = str(uuid4())
    update = "UPDATE chat_sessions SET session_id = :key WHERE id = :id"
    await parley.database.rows(text(update), {"key": key, "id": keyed})
    await alice.chat("Hello", session_id=key)
    [one] = (await alice.get("/sessions"))["sessions"]
    assert (one["id"], one["session_id"], one["message_count"]) == (str(keyed), key, 2)


@pytest.mark.parametrize("method", ["GET", "PATCH", "DELETE"])
async def test_someone_elses_session_is_like_none(alice: Frontend, bob: Frontend, method: str):
    hers = await make(alice, session_id="hers", title="Leases")
    await alice.chat("Hello")
    body = {"title": "Mine"} if method == "PATCH" else None
    names = [str(uuid4()), "nothing", hers["id"], "hers", alice.person.key, "%00", "x" * 1000]
    problems = [await bob.refused(method, f"/sessions/{name}", json=body) for name in names]
    assert problems == [problems[0]] * len(names)
    assert problems[0]["status"] == 404
    assert await alice.get("/sessions/hers") == hers


async def test_two_visitors_may_use_the_same_key(alice: Frontend, bob: Frontend):
    hers, his = await make(alice, session_id="mine"), await make(bob, session_id="mine")
    assert hers["id"] != his["id"]
    await alice.ask("DELETE", "/sessions/mine", 204)
    assert await bob.get("/sessions/mine") == his


# --- listing --------------------------------------------------------------------------


async def test_the_session_last_used_comes_first(alice: Frontend):
    for name in ("one", "two", alice.person.key):
        await alice.chat("Hello", session_id=name)
    await alice.chat("Again", session_id="one")
    listed = (await alice.get("/sessions"))["sessions"]
    assert [each["session_id"] for each in listed] == ["one", alice.person.key, "two"]
    assert [each["message_count"] for each in listed] == [4, 2, 2]


async def test_pages_of_any_size_walk_every_session_once(alice: Frontend, parley: Parley):
    now = datetime.now(UTC)
    made = [
        str(
            await make_session(
                parley.database,
                owner=alice.person.viewer,
                updated_at=now - timedelta(minutes=number // 2),
            )
        )
        for number in range(7)
    ]
    whole = [each["id"] for each in (await alice.get("/sessions"))["sessions"]]
    assert sorted(whole) == sorted(made)
    for size in (1, 2, 3, 7, 100):
        seen: list[str] = []
        page = await alice.get("/sessions", limit=size)
        seen += [each["id"] for each in page["sessions"]]
        while page["next_cursor"] is not None:
            page = await alice.get("/sessions", limit=size, cursor=page["next_cursor"])
            seen += [each["id"] for each in page["sessions"]]
        assert seen == whole, size


async def test_a_cursor_is_the_same_in_graphql(alice: Frontend):
    for name in ("one", "two"):
        await make(alice, session_id=name)
    cursor = (await alice.get("/sessions", limit=1))["next_cursor"]
    query = "query ($c: String) { sessions(after: $c) { edges { node { id } } } }"
    [edge] = (await alice.person.ask(query, c=cursor))["sessions"]["edges"]
    assert edge["node"]["id"] == (await alice.get("/sessions/one"))["id"]


@pytest.mark.parametrize("params", [{"limit": "0"}, {"limit": "101"}, {"cursor": "x"}])
async def test_a_wrong_page_is_a_problem(alice: Frontend, params: dict[str, str]):
    assert (await alice.refused("GET", "/sessions", params=params))["status"] == 400


# --- changing -------------------------------------------------------------------------


async def test_a_session_is_renamed(alice: Frontend):
    made = await make(alice, session_id="mine", title="Leases")
    renamed = await alice.ask("PATCH", "/sessions/mine", json={"title": "Locks"})
    assert renamed == {**made, "title": "Locks", "updated_at": renamed["updated_at"]}
    assert await alice.get("/sessions/mine") == renamed


@pytest.mark.parametrize("body", [{}, {"title": None}, {"title": ""}, {"title": "\0"}])
async def test_a_title_has_to_be_one(alice: Frontend, body: dict[str, str]):
    await make(alice, session_id="mine")
    problem = await alice.refused("PATCH", "/sessions/mine", json=body)
    assert (problem["code"], problem["field"]) == ("INVALID_INPUT", "title")


async def test_a_deleted_session_is_gone(alice: Frontend):
    await alice.chat("Hello", session_id="mine")
    await alice.ask("DELETE", "/sessions/mine", 204)
    for method, path in (
        ("GET", "/sessions/mine"),
        ("DELETE", "/sessions/mine"),
        ("GET", "/chat/history?session_id=mine"),
    ):
        assert (await alice.refused(method, path))["code"] == "NOT_FOUND"
    assert (await alice.get("/sessions"))["sessions"] == []


async def test_the_lasting_conversation_begins_anew_once_deleted(alice: Frontend):
    await alice.chat("One")
    await alice.ask("DELETE", f"/sessions/{alice.person.key}", 204)
    assert (await alice.get("/chat/history"))["messages"] == []
    await alice.chat("Two")
    assert len((await alice.get("/chat/history"))["messages"]) == 2
