"""REST: what is Alice's does not exist for Bob, whatever he calls it by."""

from typing import Any

import pytest

from db.engine import Database
from db.viewer import Viewer
from graphql_api.auth import anonymous_viewer
from graphql_api.settings import Settings
from tests.isolation.routes import ROUTES, Try, is_nameless, taken, tried
from tests.isolation.scenes import Scene, played, rows_without
from tests.people import Parley, Person

TRIES = [
    pytest.param(one, id=f"{path} {number}" if number else path)
    for path, route in ROUTES.items()
    for number, one in enumerate(route.tries)
]


NAMES = ("session over REST", "client key", "idempotency key", "document", "cursor of sessions")
"What those are tried with who don't say who they are."


class Nobody(Person):
    """Someone who does not say who asks."""

    @property
    def headers(self) -> dict[str, str]:
        return {}


async def test_every_parameter_that_names_something_is_tried(parley: Parley):
    # Who adds one puts it into the table, with a request that shows all it can open.
    document: Any = (await parley.http.get("/openapi.json")).json()
    assert {path for path in taken(document) if not is_nameless(path)} == ROUTES.keys()


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("one", TRIES)
async def test_a_strangers_name_is_answered_like_one_of_nothing(one: Try, scene: Scene):
    hers, bob = scene.hers, scene.stranger()
    before = await rows_without(scene.parley.database, [bob.viewer])

    async def told(name: str) -> str:
        answer = await tried(bob, one(name))
        assert not hers.is_in(answer.body, besides=name)
        return answer.without(name)

    nothing: dict[str, str] = {}
    for kind, thing in hers.things.items():
        if thing.form not in nothing:
            nothing[thing.form] = await told(thing.of_nothing())
        assert await told(thing.name) == nothing[thing.form], kind
    assert await rows_without(scene.parley.database, [bob.viewer]) == before


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("one", TRIES)
async def test_who_does_not_say_who_asks_learns_nothing(one: Try, scene: Scene):
    before = await rows_without(scene.parley.database, [])
    nobody, visitors = Nobody(scene.parley.http), list[Viewer]()
    for kind in NAMES:
        thing, told = scene.hers.things[kind], list[str]()
        for name in (thing.name, thing.of_nothing()):
            answer = await tried(nobody, one(name))
            assert not scene.hers.is_in(answer.body, besides=name)
            told.append(answer.without(name))
            if answer.status != 401:  # then it is a new visitor's, every time
                visitors.append(anonymous_viewer(answer.headers["x-session-id"]))
        assert told[0] == told[1], kind
    assert len({viewer.user_id for viewer in visitors}) == len(visitors)
    assert await rows_without(scene.parley.database, visitors) == before


@pytest.mark.parametrize("users", [False, True])
async def test_to_its_owner_each_request_says_or_does_something_else(
    settings: Settings, database: Database, users: bool
):
    async with played(settings, database, users=users) as scene:

        async def outcome(one: Try, name: str) -> tuple[str, bool]:
            """Give what is answered, and whether a row is no longer what it was."""
            before = await rows_without(database, [])
            answer = (await tried(scene.alice, one(name))).without(name)
            return answer, not set(before) <= set(await rows_without(database, []))

        for path, route in ROUTES.items():
            thing = scene.hers.things[route.opens]
            different = [
                await outcome(one, thing.name) != await outcome(one, thing.of_nothing())
                for one in route.tries
            ]
            assert any(different), path
