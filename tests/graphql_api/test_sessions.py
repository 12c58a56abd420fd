"""Making, renaming, clearing and deleting conversations."""

from typing import Any
from uuid import UUID, uuid4

import pytest

from tests.factories import make_message, make_session, make_turn
from tests.operations import DELETE_SESSION, send, session
from tests.people import Parley, Person

CREATE = """mutation ($input: CreateSessionInput!) {
  createSession(input: $input) {
    __typename ... on UserError { message } ... on InvalidInput { field }
    ... on CreateSessionSuccess { session {
      id title messageCount lastMessage { id } activeReply { id } messages { totalCount }
    } }
  }
}"""
UPDATE = """mutation ($input: UpdateSessionInput!) {
  updateSession(input: $input) {
    __typename ... on UserError { message } ... on InvalidInput { field }
    ... on UpdateSessionSuccess { session { id title } }
  }
}"""
CLEAR = """mutation ($input: ClearHistoryInput!) {
  clearHistory(input: $input) {
    __typename ... on UserError { message }
    ... on ClearHistorySuccess {
      deletedCount session { id messageCount lastMessage { id } messages { totalCount } }
    }
  }
}"""
NOT_FOUND = {"__typename": "NotFound", "message": "There is nothing of yours by this id."}
UNSTORABLE = ["", " \n ", "x" * 501, "a\0b", "a\ud800b"]


async def create(person: Person, **input: Any) -> Any:
    return (await person.ask(CREATE, input=input))["createSession"]


async def update(person: Person, **input: Any) -> Any:
    return (await person.ask(UPDATE, input=input))["updateSession"]


async def clear(person: Person, **input: Any) -> Any:
    return (await person.ask(CLEAR, input=input))["clearHistory"]


async def listed(person: Person) -> list[str]:
    found = await person.ask("{ sessions { edges { node { id } } } }")
    return [edge["node"]["id"] for edge in found["sessions"]["edges"]]


# --- createSession --------------------------------------------------------------------


async def test_a_new_session_is_empty(alice: Person):
    made = await create(alice, title="Leases")
    id = made["session"].pop("id")
    assert UUID(id).version == 7
    assert made["session"] == {
        "title": "Leases",
        "messageCount": 0,
        "lastMessage": None,
        "activeReply": None,
        "messages": {"totalCount": 0},
    }


async def test_a_session_may_have_the_clients_id(alice: Person):
    id = str(uuid4())
    assert (await create(alice, id=id.upper()))["session"]["id"] == id


async def test_making_the_same_session_again_changes_nothing(alice: Person):
    id = str(uuid4())
    first = await create(alice, id=id, title="Leases")
    assert await create(alice, id=id, title="Leases") == first
    assert await listed(alice) == [id]


async def test_the_id_of_a_session_with_another_title_is_a_conflict(alice: Person):
    id = str(uuid4())
    await create(alice, id=id, title="Leases")
    assert (await create(alice, id=id, title="Locks"))["__typename"] == "IdConflict"


async def test_making_a_session_again_after_its_first_question_finds_it(alice: Person):
    id = str(uuid4())
    await create(alice, id=id)
    await send(alice, "What is a lease?", sessionId=id)
    again = await create(alice, id=id)  # a page that was loaded again
    assert again["session"]["title"] == "What is a lease?"


async def test_a_sessions_own_id_is_a_uuid(alice: Person):
    answer = await create(alice, id="first")
    assert (answer["__typename"], answer["field"]) == ("InvalidInput", "id")


async def test_a_title_that_can_not_be_stored_is_invalid(alice: Person, parley: Parley):
    made = str(await make_session(parley.database, owner=alice.viewer))
    for title in UNSTORABLE:
        for refused in (
            await create(alice, title=title),
            await update(alice, id=made, title=title),
        ):
            assert (refused["__typename"], refused.get("field")) == ("InvalidInput", "title"), title


# --- updateSession --------------------------------------------------------------------


async def test_a_session_is_renamed(alice: Person):
    id = (await create(alice))["session"]["id"]
    assert (await update(alice, id=id, title="Locks"))["session"] == {"id": id, "title": "Locks"}
    assert (await session(alice, id))["title"] == "Locks"


async def test_the_session_last_used_comes_first(alice: Person):
    ids = [(await create(alice))["session"]["id"] for _ in range(3)]
    await send(alice, "Hello", sessionId=ids[1])
    await update(alice, id=ids[0], title="Renamed")
    assert await listed(alice) == [ids[0], ids[1], ids[2]]


async def test_what_names_nothing_is_not_found(alice: Person):
    for id in (str(uuid4()), "no uuid", "", "\0"):
        assert await update(alice, id=id, title="Mine") == NOT_FOUND
        assert await clear(alice, sessionId=id) == NOT_FOUND
        assert (await alice.ask(DELETE_SESSION, id=id))["deleteSession"] == NOT_FOUND
        assert await session(alice, id) is None


# --- titles ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("question", "title"),
    [
        ("What is a lease?", "What is a lease?"),
        ("\n  What  is\ta lease?  \nAnd a lock?", "What is a lease?"),
        ("lease " * 50, "lease " * 12 + "lease…"),
        ("x" * 200, "x" * 79 + "…"),
        ("x" * 80, "x" * 80),
    ],
)
async def test_the_first_question_gives_the_title(question: str, title: str, alice: Person):
    assert (await send(alice, question))["session"]["title"] == title


async def test_a_title_stays_when_more_is_asked(alice: Person):
    named = (await create(alice, title="Leases"))["session"]["id"]
    assert (await send(alice, "Hello", sessionId=named))["session"]["title"] == "Leases"
    asked = (await send(alice, "One"))["session"]["id"]
    assert (await send(alice, "Two", sessionId=asked))["session"]["title"] == "One"


# --- clearHistory ---------------------------------------------------------------------


@pytest.fixture
async def two_chapters(alice: Person, parley: Parley) -> str:
    """A session with two messages of chapter one, and one of chapter two."""
    made = await make_session(parley.database, owner=alice.viewer)
    for chapter in ("one", "two", "one"):
        await make_message(parley.database, owner=alice.viewer, session=made, chapter=chapter)
    return str(made)


async def test_clearing_keeps_the_session(alice: Person, two_chapters: str):
    assert await clear(alice, sessionId=two_chapters) == {
        "__typename": "ClearHistorySuccess",
        "deletedCount": 3,
        "session": {
            "id": two_chapters,
            "messageCount": 0,
            "lastMessage": None,
            "messages": {"totalCount": 0},
        },
    }
    assert (await session(alice, two_chapters))["messages"] == {"totalCount": 0, "edges": []}


async def test_clearing_a_chapter_keeps_the_others(alice: Person, two_chapters: str):
    cleared = await clear(alice, sessionId=two_chapters, chapter="one")
    assert (cleared["deletedCount"], cleared["session"]["messageCount"]) == (2, 1)
    [left] = (await session(alice, two_chapters))["messages"]["edges"]
    assert left["node"]["chapter"] == "two"


async def test_clearing_a_chapter_that_is_not_there_deletes_nothing(
    alice: Person, two_chapters: str
):
    for chapter in ("three", "", "a\0b", "a\ud800b", "x" * 1000):
        answer = await alice.post(CLEAR, input={"sessionId": two_chapters, "chapter": chapter})
        if "errors" in answer:
            assert answer["errors"][0]["extensions"]["code"] == "BAD_USER_INPUT", chapter
        else:
            assert answer["data"]["clearHistory"]["deletedCount"] == 0, chapter
    assert (await session(alice, two_chapters))["messageCount"] == 3


async def test_a_cleared_session_goes_on(alice: Person):
    id = (await send(alice, "One"))["session"]["id"]
    await clear(alice, sessionId=id)
    assert (await send(alice, "Two", sessionId=id))["session"]["messageCount"] == 2
    found = (await session(alice, id))["messages"]
    assert [edge["node"]["role"] for edge in found["edges"]] == ["USER", "ASSISTANT"]


# --- deleteSession --------------------------------------------------------------------


async def test_a_deleted_session_is_gone_with_its_messages(alice: Person, parley: Parley):
    made = await make_session(parley.database, owner=alice.viewer)
    question, _ = await make_turn(parley.database, owner=alice.viewer, session=made)
    deleted = (await alice.ask(DELETE_SESSION, id=str(made)))["deleteSession"]
    assert deleted == {"__typename": "DeleteSessionSuccess", "deletedId": str(made)}
    gone = await alice.ask(
        "query ($s: ID!, $m: ID!) { session(id: $s) { id } message(id: $m) { id } }",
        s=str(made),
        m=str(question),
    )
    assert gone == {"session": None, "message": None}
    assert await listed(alice) == []


async def test_in_one_operation_the_second_mutation_sees_what_the_first_did(alice: Person):
    id = (await create(alice))["session"]["id"]
    answer = await alice.ask(
        """mutation ($id: ID!) {
          first: sendMessage(input: {sessionId: $id, content: "One"}) { ...Sent }
          second: sendMessage(input: {sessionId: $id, content: "Two"}) { ...Sent }
        }
        fragment Sent on SendMessageSuccess {
          reply { id } session { messageCount lastMessage { id } messages { totalCount } }
        }""",
        id=id,
    )
    for sent, count in ((answer["first"], 2), (answer["second"], 4)):
        assert sent["session"] == {
            "messageCount": count,
            "lastMessage": {"id": sent["reply"]["id"]},
            "messages": {"totalCount": count},
        }
