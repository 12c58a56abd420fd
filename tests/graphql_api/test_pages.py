"""Walking lists by pages: every row once, in order, whatever the size and the direction."""

from base64 import urlsafe_b64encode
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from db.engine import Database
from tests.factories import make_document, make_message, make_session
from tests.people import Parley, Person

ROWS = 7
ARGUMENTS = "first: $first, after: $after, last: $last, before: $before"
CONNECTION = """{
  totalCount
  edges { cursor node { id } }
  pageInfo { hasNextPage hasPreviousPage startCursor endCursor }
}"""
VARIABLES = "$first: Int, $after: String, $last: Int, $before: String"
SESSIONS = f"query ({VARIABLES}) {{ list: sessions({ARGUMENTS}) {CONNECTION} }}"
DOCUMENTS = f"query ({VARIABLES}) {{ list: documents({ARGUMENTS}) {CONNECTION} }}"
READY = f"query ({VARIABLES}) {{ list: documents({ARGUMENTS}, status: READY) {CONNECTION} }}"


def history(session: str, more: str = "") -> str:
    where = f'sessionId: "{session}", {more} {ARGUMENTS}'
    return f"query ({VARIABLES}) {{ list: messages({where}) {CONNECTION} }}"


def nested(session: str) -> str:
    return (
        f'query ({VARIABLES}) {{ session(id: "{session}")'
        f" {{ list: messages({ARGUMENTS}) {CONNECTION} }} }}"
    )


async def make_sessions(database: Database, owner: Person) -> tuple[str, list[str]]:
    """Some at the same moment, some a microsecond later."""
    now = datetime.now(UTC)
    made = [
        (
            moment := now + timedelta(microseconds=number // 3),
            await make_session(database, owner=owner.viewer, updated_at=moment),
        )
        for number in range(ROWS)
    ]
    return SESSIONS, [str(id) for _, id in sorted(made, reverse=True)]


async def make_documents(database: Database, owner: Person) -> tuple[str, list[str]]:
    """Own and shared ones, and one of somebody else's between."""
    made = [
        await make_document(database, owner=None if number % 3 == 0 else owner.viewer)
        for number in range(ROWS)
    ]
    return DOCUMENTS, [str(id) for id in reversed(made)]


async def make_ready_documents(database: Database, owner: Person) -> tuple[str, list[str]]:
    _, ids = await make_documents(database, owner)
    return READY, ids


async def make_history(database: Database, owner: Person) -> tuple[str, list[str]]:
    """Of two chapters by turns."""
    session = await make_session(database, owner=owner.viewer)
    made: list[str] = []
    for number in range(ROWS):
        chapter = "one" if number % 2 else "two"
        made.append(
            str(await make_message(database, owner=owner.viewer, session=session, chapter=chapter))
        )
    return history(str(session)), made


async def make_chapter(database: Database, owner: Person) -> tuple[str, list[str]]:
    query, made = await make_history(database, owner)
    return query.replace("first: $first", 'chapter: "two", first: $first'), made[::2]


async def make_nested_history(database: Database, owner: Person) -> tuple[str, list[str]]:
    query, made = await make_history(database, owner)
    return nested(query.split('"')[1]), made


Make = Callable[[Database, Person], Awaitable[tuple[str, list[str]]]]
LISTS: dict[str, Make] = {
    "sessions": make_sessions,
    "documents": make_documents,
    "documents of a status": make_ready_documents,
    "messages": make_history,
    "messages of a chapter": make_chapter,
    "messages of a session": make_nested_history,
}


@pytest.fixture(params=LISTS)
async def listed(
    request: pytest.FixtureRequest, alice: Person, parley: Parley
) -> tuple[str, list[str]]:
    """A query for pages of a list, and the ids in the list."""
    return await LISTS[request.param](parley.database, alice)


async def page(person: Person, query: str, **arguments: Any) -> Any:
    data = await person.ask(query, **arguments)
    return data["list"] if "list" in data else data["session"]["list"]


def ids(page: Any) -> list[str]:
    return [edge["node"]["id"] for edge in page["edges"]]


async def test_forwards_visits_every_row_once_in_order(
    listed: tuple[str, list[str]], alice: Person
):
    query, expected = listed
    for size in range(1, len(expected) + 2):
        found: list[str] = []
        after, more = None, True
        while more:
            walked = await page(alice, query, first=size, after=after)
            assert len(walked["edges"]) == min(size, len(expected) - len(found))
            assert walked["pageInfo"]["hasPreviousPage"] == bool(found)
            found += ids(walked)
            after = walked["pageInfo"]["endCursor"]
            more = walked["pageInfo"]["hasNextPage"]
        assert found == expected


async def test_backwards_visits_every_row_once_in_order(
    listed: tuple[str, list[str]], alice: Person
):
    query, expected = listed
    for size in range(1, len(expected) + 2):
        found: list[str] = []
        before, more = None, True
        while more:
            walked = await page(alice, query, last=size, before=before)
            assert len(walked["edges"]) == min(size, len(expected) - len(found))
            assert walked["pageInfo"]["hasNextPage"] == bool(found)
            found = ids(walked) + found
            before = walked["pageInfo"]["startCursor"]
            more = walked["pageInfo"]["hasPreviousPage"]
        assert found == expected


async def test_between_two_cursors_lies_what_stands_between_them(
    listed: tuple[str, list[str]], alice: Person
):
    query, expected = listed
    cursors = [edge["cursor"] for edge in (await page(alice, query))["edges"]]
    for size in ({"first": 2}, {"last": 2}):
        between = await page(alice, query, after=cursors[0], before=cursors[-1], **size)
        middle = expected[1:-1]
        assert ids(between) == (middle[:2] if "first" in size else middle[-2:])
        assert between["pageInfo"]["hasNextPage"]
        assert between["pageInfo"]["hasPreviousPage"]


async def test_cursors_of_neighbours_enclose_nothing(listed: tuple[str, list[str]], alice: Person):
    query, _ = listed
    edges = (await page(alice, query))["edges"]
    for left, right in pairwise(edges):
        assert ids(await page(alice, query, after=left["cursor"], before=right["cursor"])) == []


async def test_page_info_names_the_first_and_the_last_edge(
    listed: tuple[str, list[str]], alice: Person
):
    query, _ = listed
    walked = await page(alice, query, first=3)
    assert walked["pageInfo"]["startCursor"] == walked["edges"][0]["cursor"]
    assert walked["pageInfo"]["endCursor"] == walked["edges"][-1]["cursor"]


async def test_the_total_count_is_that_of_the_list_not_of_the_page(
    listed: tuple[str, list[str]], alice: Person
):
    query, expected = listed
    cursor = (await page(alice, query))["edges"][1]["cursor"]
    for arguments in ({}, {"first": 1}, {"last": 1}, {"after": cursor}, {"first": 0}):
        assert (await page(alice, query, **arguments))["totalCount"] == len(expected)


@pytest.mark.parametrize("argument", ["first", "last"])
async def test_a_page_of_none_is_empty(argument: str, listed: tuple[str, list[str]], alice: Person):
    query, _ = listed
    walked = await page(alice, query, **{argument: 0})
    assert walked["edges"] == []
    assert walked["pageInfo"] == {
        "hasNextPage": argument == "first",
        "hasPreviousPage": argument == "last",
        "startCursor": None,
        "endCursor": None,
    }


async def test_without_a_size_a_page_has_twenty(alice: Person, parley: Parley):
    for _ in range(21):
        await make_session(parley.database, owner=alice.viewer)
    walked = await page(alice, SESSIONS)
    assert len(walked["edges"]) == 20
    assert walked["pageInfo"]["hasNextPage"]


async def test_a_page_has_a_hundred_at_most(alice: Person, parley: Parley):
    for _ in range(101):
        await make_session(parley.database, owner=alice.viewer)
    assert len((await page(alice, SESSIONS, first=100))["edges"]) == 100
    assert len((await page(alice, SESSIONS, last=100))["edges"]) == 100


async def test_a_walk_goes_on_where_it_was_when_rows_come_and_go(alice: Person, parley: Parley):
    database = parley.database
    _, expected = await make_sessions(database, alice)
    walked = await page(alice, SESSIONS, first=3)
    await make_session(database, owner=alice.viewer, updated_at=datetime.now(UTC))
    await alice.ask(
        "mutation ($id: ID!) { deleteSession(input: {id: $id}) { __typename } }", id=expected[2]
    )
    rest = await page(alice, SESSIONS, after=walked["pageInfo"]["endCursor"])
    assert ids(rest) == expected[3:]


# --- what makes no sense --------------------------------------------------------------


SENSELESS: list[dict[str, Any]] = [
    {"first": 101},
    {"last": 101},
    {"first": -1},
    {"last": -1},
    {"first": 2, "last": 2},
    {"first": 0, "last": 0},
    {"first": 2**31},
    {"after": "garbage"},
    {"before": "garbage"},
    {"after": ""},
    {"after": "é"},
    {"after": "\ud800"},
    {"after": "\0"},
    {"after": "====="},
    {"after": "A" * 10_000},
]


async def test_senseless_paging_is_bad_user_input(listed: tuple[str, list[str]], alice: Person):
    query, _ = listed
    for arguments in SENSELESS:
        assert await alice.code(query, **arguments) == "BAD_USER_INPUT", arguments


def forged(tag: bytes, key: bytes) -> str:
    return urlsafe_b64encode(tag + key).rstrip(b"=").decode()


FORGED = [
    forged(tag, key)
    for tag in (b"s", b"m", b"d", b"x")
    for key in (b"\xff" * 8, b"\x7f" + b"\xff" * 7, b"\xff" * 24, b"\x7f" + b"\xff" * 23)
]


async def test_a_forged_cursor_is_no_fault_of_the_server(
    listed: tuple[str, list[str]], alice: Person
):
    query, _ = listed
    for cursor in FORGED:
        answer = await alice.post(query, after=cursor)
        codes = [error["extensions"]["code"] for error in answer.get("errors", [])]
        assert codes in ([], ["BAD_USER_INPUT"]), cursor


async def test_a_cursor_of_another_field_is_bad_user_input(alice: Person, parley: Parley):
    lists = [
        await make(parley.database, alice) for make in (make_sessions, make_documents, make_history)
    ]
    queries = [query for query, _ in lists]
    cursors = [(await page(alice, query))["edges"][0]["cursor"] for query in queries]
    for query, own in zip(queries, cursors, strict=True):
        for cursor in cursors:
            if cursor != own:
                assert await alice.code(query, after=cursor) == "BAD_USER_INPUT"
                assert await alice.code(query, before=cursor) == "BAD_USER_INPUT"
