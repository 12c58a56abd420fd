"""What is Alice's does not exist for Bob: the same answers, to the byte, as for what nobody has."""

from uuid import uuid4

import pytest
from sqlalchemy import text

from db.engine import Database
from graphql_api.settings import Settings
from tests.isolation.answers import WAYS, answered
from tests.isolation.operations import (
    NODE,
    OPERATIONS,
    is_cursor,
    is_nameless,
    kinds_of_nodes,
    taken,
)
from tests.isolation.scenes import Scene, kinds_of_ids, played, rows_without
from tests.people import Person

MAIN = ("session", "question", "reply", "reply being written", "document", "key")
"What the less usual ways are tried with."

WAYS_OF_ALL = [
    (path, way) for path, operation in OPERATIONS.items() for way in WAYS[operation.kind]
]


def test_every_argument_that_names_something_is_tried():
    # Who adds one puts it into the table, with an operation that shows all it can open.
    paths = dict(taken())
    names = {path for path in paths if not is_nameless(path) and not is_cursor(path)}
    assert names == OPERATIONS.keys()
    assert {path for path, type_ in paths.items() if type_ == "ID"} <= OPERATIONS.keys()


def test_every_kind_of_node_is_asked_for_its_fields():
    assert all(f"... on {kind} {{" in NODE for kind in kinds_of_nodes())


@pytest.mark.asyncio(loop_scope="package")
async def test_every_id_that_is_stored_is_among_her_things(scene: Scene):
    # Who adds a column with an id gives Alice one.
    names = {thing.name for thing in scene.hers.things.values()}
    stored = await kinds_of_ids(scene.parley.database)
    without = {column for column, ids in stored.items() if not ids & names}
    assert without == {"users.claimed_by"}, "which holds what stands in users.id too"


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize(("path", "way"), WAYS_OF_ALL)
async def test_a_strangers_name_is_answered_like_one_of_nothing(path: str, way: str, scene: Scene):
    operation, hers, bob = OPERATIONS[path], scene.hers, scene.stranger()
    before = await rows_without(scene.parley.database, [bob.viewer])

    async def told(name: str) -> str:
        answer = await answered(
            scene.parley, bob, way, operation.text, id=name, message=str(uuid4())
        )
        assert "GRAPHQL_VALIDATION_FAILED" not in answer.body
        assert not hers.is_in(answer.body, besides=name)
        return answer.without(name)

    is_usual = way == WAYS[operation.kind][0]
    nothing: dict[str, str] = {}
    for kind, thing in hers.things.items():
        if is_usual or kind in MAIN:
            if thing.form not in nothing:
                nothing[thing.form] = await told(thing.of_nothing())
            assert await told(thing.name) == nothing[thing.form], kind
    assert await rows_without(scene.parley.database, [bob.viewer]) == before


@pytest.mark.parametrize("users", [False, True])
async def test_to_its_owner_each_operation_says_something_else(
    settings: Settings, database: Database, users: bool
):
    async with played(settings, database, users=users) as scene:
        # Whoever writes it is not asked to stop, which it would be waited for.
        expired = "UPDATE chat_messages SET lease_until = now() WHERE status = 'STREAMING'"
        await database.rows(text(expired), {})
        for path, operation in OPERATIONS.items():
            if operation.opens:
                thing, way = scene.hers.things[operation.opens], WAYS[operation.kind][0]
                told = [
                    (
                        await answered(
                            *(scene.parley, scene.alice, way, operation.text),
                            id=name,
                            message=str(uuid4()),
                        )
                    ).without(name)
                    for name in (thing.name, thing.of_nothing())
                ]
                assert told[0] != told[1], path


@pytest.mark.asyncio(loop_scope="package")
@pytest.mark.parametrize("scene", ["visitors"], indirect=True)
async def test_none_of_her_names_opens_anything_as_a_key(scene: Scene):
    # Ids are told to others, in links and logs; only her key is the key.
    everything = "{ viewer { createdAt } sessions { totalCount } documents { totalCount } }"
    for kind, thing in scene.hers.things.items():
        if kind != "key":
            forger = Person(scene.parley.http, thing.name)
            answer = await answered(scene.parley, forger, "post", everything)
            assert answer.status == 401, kind
