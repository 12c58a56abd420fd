"""Cursors of another viewer or of another list: they open nothing, and lead to one's own."""

import re
from typing import Any

import pytest

from tests.isolation.answers import answered
from tests.isolation.operations import CURSORS, is_cursor, taken
from tests.isolation.routes import ROUTES, tried
from tests.isolation.scenes import Scene
from tests.operations import add_text, send
from tests.people import Person

BOTH = "after: $after, before: $before"
EDGES = "{ edges { cursor node { id } } }"
LISTS = {
    "Query.sessions": ("sessions", f"sessions({BOTH}) {EDGES}"),
    "Query.documents": ("documents", f"documents({BOTH}) {EDGES}"),
    "Query.messages": ("messages", f"messages(sessionId: $session, {BOTH}) {EDGES}"),
    "ChatSession.messages": ("messages", f"session(id: $session) {{ messages({BOTH}) {EDGES} }}"),
    "User.auditLog": ("audit log", f"viewer {{ auditLog({BOTH}) {EDGES} }}"),
}
"By each field that takes cursors: whose cursors it takes, and how it is asked."
ROUTES_OF = {
    "sessions": "GET /sessions cursor",
    "documents": "GET /documents cursor",
    "messages": "GET /chat/history before",
}


def asked(field: str) -> str:
    _, text = LISTS[field]
    declared = "$after: String, $before: String" + (", $session: ID!" if "$s" in text else "")
    return f"query ({declared}) {{ {text} }}"


def ids_in(answer: Any) -> list[str]:
    return re.findall(r"'id': '([^']+)'", str(answer))


async def with_things(bob: Person) -> str:
    """Give Bob some of everything; gives a session of his."""
    for word in ("One", "Two"):
        sent = await send(bob, f"{word}?")
        await send(bob, f"{word} more?", sessionId=sent["session"]["id"])
        await add_text(bob, word)
    return sent["session"]["id"]  # pyright: ignore[reportPossiblyUnboundVariable]


def test_every_field_that_takes_cursors_is_tried():
    takes = {path.rpartition(".")[0] for path, _ in taken() if is_cursor(path)}
    assert takes == LISTS.keys()


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("field", LISTS)
async def test_a_strangers_cursor_leads_to_ones_own(field: str, scene: Scene):
    bob = scene.stranger()
    session = await with_things(bob)
    own = ids_in(await bob.ask(asked(field), session=session))
    assert own
    cursor = scene.hers.id(f"cursor of {LISTS[field][0]}")
    found: list[str] = []
    for argument in CURSORS:
        answer = await bob.ask(asked(field), session=session, **{argument: cursor})
        assert not scene.hers.is_in(str(answer), besides=cursor)
        found += ids_in(answer)
    assert found
    assert set(found) <= set(own)
    # A place in a history is a number: his own message there lies neither before nor after.
    assert len(found) == len(own) - (LISTS[field][0] == "messages")


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("argument", sorted(CURSORS))
@pytest.mark.parametrize("field", LISTS)
async def test_a_strangers_cursor_is_answered_like_one_of_nothing(
    field: str, argument: str, scene: Scene
):
    name, bob = LISTS[field][0], scene.stranger()
    thing = scene.hers.things[f"cursor of {name}"]
    for session in (scene.hers.id("session"), scene.hers.id("session over REST")):
        told = [
            (
                await answered(
                    scene.parley, bob, "post", asked(field), session=session, **{argument: cursor}
                )
            ).without(cursor)
            for cursor in (thing.name, thing.of_nothing())
        ]
        assert told[0] == told[1]
        assert "errors" not in told[0]


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("field", LISTS)
async def test_a_cursor_of_another_list_is_refused(field: str, scene: Scene):
    own, bob = LISTS[field][0], scene.stranger()
    session = await with_things(bob)
    for name in {name for name, _ in LISTS.values()} - {own}:
        for person in (bob, scene.alice):
            mine = session if person is bob else scene.hers.id("session")
            cursor = scene.hers.id(f"cursor of {name}")
            for argument in CURSORS:
                code = await person.code(asked(field), session=mine, **{argument: cursor})
                assert code == "BAD_USER_INPUT", name


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("own", ROUTES_OF)
async def test_a_cursor_of_another_list_is_refused_by_rest(own: str, scene: Scene):
    *_, one = ROUTES[ROUTES_OF[own]].tries
    for name in {name for name, _ in LISTS.values()} - {own}:
        answer = await tried(scene.alice, one(scene.hers.id(f"cursor of {name}")))
        assert answer.status == 400, name
        assert '"BAD_USER_INPUT"' in answer.body
