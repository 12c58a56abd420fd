"""Reading and forgetting what was said."""

import asyncio
from typing import Any
from uuid import uuid4

import pytest

from db.models import MessageStatus
from tests.factories import citation, make_message, make_session, make_streaming_reply, make_turn
from tests.graphql_api.rest.frontends import Frontend
from tests.people import Parley

NOT_FOUND = {
    "title": "Not Found",
    "status": 404,
    "detail": "There is nothing of yours by this id.",
    "code": "NOT_FOUND",
}


async def contents(frontend: Frontend, **params: Any) -> list[str]:
    history = await frontend.get("/chat/history", **params)
    return [each["content"] for each in history["messages"]]


@pytest.fixture
async def made(alice: Frontend, parley: Parley) -> str:
    """A session of Alice's with four messages in two chapters."""
    viewer = alice.person.viewer
    session = await make_session(parley.database, owner=viewer)
    for number, chapter in enumerate(("one", "two", "one", "two")):
        await make_message(
            parley.database,
            owner=viewer,
            session=session,
            content=str(number),
            chapter=chapter,
        )
    return str(session)


# --- reading --------------------------------------------------------------------------


async def test_a_history_has_both_messages_in_reading_order(alice: Frontend, parley: Parley):
    viewer, document = alice.person.viewer, uuid4()
    session = await make_session(parley.database, owner=viewer)
    asked, replied = await make_turn(
        parley.database, owner=viewer, session=session, citations=[citation(document)]
    )
    history = await alice.get("/chat/history", session_id=str(session))
    for message in history["messages"]:
        assert message.pop("created_at").endswith("Z")
    assert history == {
        "session_id": str(session),
        "messages": [
            {
                "id": str(asked),
                "role": "user",
                "content": "What is a lease?",
                "chapter": None,
                "citations": [],
                "status": "COMPLETE",
            },
            {
                "id": str(replied),
                "role": "assistant",
                "content": "A promise with an end.",
                "chapter": None,
                "citations": [citation(document)],
                "status": "COMPLETE",
            },
        ],
        "previous_cursor": None,
    }


async def test_a_chapter_is_read_alone(alice: Frontend, made: str):
    assert await contents(alice, session_id=made, chapter="one") == ["0", "2"]
    assert await contents(alice, session_id=made, chapter="three") == []


async def test_a_long_history_is_read_from_its_end(alice: Frontend, made: str):
    newest = await alice.get("/chat/history", session_id=made, limit=3)
    assert [each["content"] for each in newest["messages"]] == ["1", "2", "3"]
    cursor = newest["previous_cursor"]
    older = await alice.get("/chat/history", session_id=made, limit=3, before=cursor)
    assert [each["content"] for each in older["messages"]] == ["0"]
    assert older["previous_cursor"] is None


async def test_a_page_that_fits_has_none_before_it(alice: Frontend, made: str):
    page = await alice.get("/chat/history", session_id=made, limit=4)
    assert page["previous_cursor"] is None


async def test_a_reply_that_is_being_written_says_so(alice: Frontend, parley: Parley):
    viewer = alice.person.viewer
    session = await make_session(parley.database, owner=viewer)
    await make_streaming_reply(parley.database, owner=viewer, session=session, content="Half")
    _, reply = (await alice.get("/chat/history", session_id=str(session)))["messages"]
    assert (reply["content"], reply["status"]) == ("Half", MessageStatus.STREAMING)


async def test_a_visitor_who_said_nothing_has_an_empty_history(alice: Frontend):
    empty: dict[str, Any] = {
        "session_id": alice.person.key,
        "messages": [],
        "previous_cursor": None,
    }
    assert await alice.get("/chat/history") == empty
    assert await alice.get("/chat/history", session_id=alice.person.key) == empty


async def test_what_names_nothing_is_not_found(alice: Frontend):
    for name in (str(uuid4()), "no uuid", "", "\0", "x" * 1000):
        for method in ("GET", "DELETE"):
            problem = await alice.refused(method, "/chat/history", params={"session_id": name})
            assert problem == NOT_FOUND, name


async def test_someone_elses_history_is_like_none(alice: Frontend, bob: Frontend, made: str):
    await alice.chat("Hello", session_id="named")
    await alice.chat("Hello")
    for name in (made, "named", alice.person.key):
        for method in ("GET", "DELETE"):
            problem = await bob.refused(method, "/chat/history", params={"session_id": name})
            assert problem == NOT_FOUND, name
    assert len(await contents(alice, session_id=made)) == 4


@pytest.mark.parametrize(
    ("params", "field"),
    [
        ({"limit": "0"}, "limit"),
        ({"limit": "101"}, "limit"),
        ({"limit": "many"}, "limit"),
        ({"before": "x"}, None),
        ({"chapter": "\0"}, None),
    ],
)
async def test_what_can_not_be_taken_is_named(
    alice: Frontend, made: str, params: dict[str, str], field: str | None
):
    params = {"session_id": made, **params}
    problem = await alice.refused("GET", "/chat/history", params=params)
    assert (problem["status"], problem.get("field")) == (400, field)


async def test_a_cursor_of_another_list_is_none(alice: Frontend, made: str):
    await alice.chat("Hello")
    page = await alice.get("/sessions", limit=1)
    params = {"session_id": made, "before": page["next_cursor"]}
    assert (await alice.refused("GET", "/chat/history", params=params))["code"] == "BAD_USER_INPUT"


# --- forgetting -----------------------------------------------------------------------


async def test_forgetting_keeps_the_conversation(alice: Frontend, made: str):
    forgotten = await alice.ask("DELETE", "/chat/history", params={"session_id": made})
    assert forgotten == {"deleted": 4}
    assert await contents(alice, session_id=made) == []
    assert (await alice.get(f"/sessions/{made}"))["message_count"] == 0


async def test_forgetting_a_chapter_keeps_the_others(alice: Frontend, made: str):
    params = {"session_id": made, "chapter": "two"}
    assert await alice.ask("DELETE", "/chat/history", params=params) == {"deleted": 2}
    assert await contents(alice, session_id=made) == ["0", "2"]


async def test_a_visitor_forgets_what_a_header_alone_has_said(alice: Frontend):
    assert await alice.ask("DELETE", "/chat/history") == {"deleted": 0}
    await alice.chat("Hello", session_id="another")
    await alice.chat("Hello")
    assert await alice.ask("DELETE", "/chat/history") == {"deleted": 2}
    assert await contents(alice) == []
    assert len(await contents(alice, session_id="another")) == 2


async def test_a_forgotten_conversation_goes_on(alice: Frontend):
    await alice.chat("One")
    await alice.ask("DELETE", "/chat/history")
    await alice.chat("Two")
    assert (await contents(alice))[0] == "Two"


async def test_a_history_is_read_while_much_is_said(alice: Frontend):
    """Every page of every moment is whole turns in their order."""
    asking = asyncio.gather(*(alice.chat(str(n), session_id=str(n % 2)) for n in range(2)))
    while not asking.done():
        for name in "01":
            answer = await alice.send("GET", "/chat/history", params={"session_id": name})
            if answer.status_code == 200:
                roles = [each["role"] for each in answer.json()["messages"]]
                assert roles == ["user", "assistant"]
    await asking
