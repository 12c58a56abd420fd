"""POST /chat: what is asked and answered, in which conversation, and by whom."""

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import pytest
from sqlalchemy import text

from db.models import Base
from tests.factories import make_document
from tests.graphql_api.rest.frontends import Frontend, problem_in
from tests.operations import add_text, session
from tests.people import Parley, Person


async def sessions_of(frontend: Frontend) -> list[Any]:
    return (await frontend.get("/sessions"))["sessions"]


# --- what is answered -----------------------------------------------------------------


async def test_an_answer_cites_what_it_is_made_of(alice: Frontend, parley: Parley):
    added = await add_text(alice.person, "# The harbour\n\nThe harbour closes at nine.")
    await parley.documents_read()
    answer = await alice.chat("When does the harbour close?", session_id="mine")
    assert "closes at nine" in answer.pop("response")
    [citation] = answer.pop("citations")
    assert citation.pop("score") > 0
    assert citation == {
        "marker": 1,
        "document_id": added["document"]["id"],
        "title": "The harbour",
        "source_url": None,
        "snippet": "The harbour closes at nine.",
    }
    assert UUID(answer.pop("message_id")) != UUID(answer.pop("user_message_id"))
    assert answer == {"session_id": "mine", "status": "COMPLETE", "persisted": True}


async def test_what_was_said_is_the_same_in_graphql(alice: Frontend):
    id = str(uuid4())
    answer = await alice.chat("What is a lease?", session_id=id, chapter="Two", selected_text="it")
    found = (await session(alice.person, id))["messages"]["edges"]
    question, reply = (edge["node"] for edge in found)
    assert (question["id"], reply["id"]) == (answer["user_message_id"], answer["message_id"])
    assert (question["content"], reply["content"]) == ("What is a lease?", answer["response"])
    assert (question["chapter"], question["selectedText"]) == ("Two", "it")


async def test_the_json_of_chat_agent_is_that_of_chat(alice: Frontend):
    one = await alice.chat("Hello", key="k")
    other = await alice.ask(
        "POST", "/chat/agent", json={"message": "Hello"}, headers={"Idempotency-Key": "k"}
    )
    assert one == other


async def test_only_the_named_documents_are_searched(alice: Frontend, parley: Parley):
    for name in ("One", "Two"):
        await add_text(alice.person, f"# {name}\n\nThe harbour closes at nine.")
    await parley.documents_read()
    [two] = [
        each for each in (await alice.get("/documents"))["documents"] if each["title"] == "Two"
    ]
    answer = await alice.chat("When does the harbour close?", document_ids=[two["id"]])
    assert [each["title"] for each in answer["citations"]] == ["Two"]


async def test_what_old_clients_send_besides_does_no_harm(alice: Frontend):
    assert (await alice.chat("Hello", user_id="x", stream=False))["persisted"]


# --- the conversation that needs no name ----------------------------------------------


async def test_a_header_alone_is_one_lasting_conversation(alice: Frontend):
    for message in ("One", "Two"):
        assert (await alice.chat(message))["session_id"] == alice.person.key
    history = await alice.get("/chat/history")
    assert history["session_id"] == alice.person.key
    assert [each["content"] for each in history["messages"][::2]] == ["One", "Two"]
    assert len(await sessions_of(alice)) == 1


async def test_the_own_key_names_the_same_conversation(alice: Frontend):
    key = alice.person.key
    await alice.chat("One")
    for named in (key, key.upper(), f"{{{key}}}", f"urn:uuid:{key}"):
        assert (await alice.chat("Two", session_id=named))["session_id"] == named
    assert [each["session_id"] for each in await sessions_of(alice)] == [key]


async def test_a_key_in_capitals_is_the_same_visitor_and_conversation(
    alice: Frontend, parley: Parley
):
    await alice.chat("One")
    shouting = Frontend(Person(parley.http, alice.person.key.upper()))
    assert (await shouting.chat("Two"))["session_id"] == alice.person.key
    assert len((await alice.get("/chat/history"))["messages"]) == 4


async def test_a_key_is_stored_nowhere(alice: Frontend, parley: Parley):
    await alice.chat("One")
    await alice.chat("Two", session_id=alice.person.key, key="again")
    await alice.chat("Three", key=alice.person.key)
    await alice.ask("POST", "/sessions", json={"session_id": alice.person.key})
    for table in Base.metadata.tables:
        query = f'SELECT count(*) FROM "{table}" AS t WHERE t::text ILIKE :key'
        found = await parley.database.rows(text(query), {"key": f"%{alice.person.key}%"})
        assert found[0][0] == 0, table


async def test_names_that_only_look_like_ids_are_names(alice: Frontend):
    """Such as an MD5 sum, which Python would read as a UUID."""
    id = uuid4()
    names = [id.hex, id.hex.upper(), f"{{{id}}}", f"{id.hex[:8]}-{id.hex[8:]}", f"urn:uuid:{id}"]
    for name in names:
        await alice.chat("One", session_id=name)
    assert {each["session_id"] for each in await sessions_of(alice)} == set(names)


async def test_another_visitors_key_is_a_name_like_any_other(alice: Frontend, bob: Frontend):
    await alice.chat("One")
    assert (await bob.chat("Two", session_id=alice.person.key))["session_id"] == alice.person.key
    assert [each["message_count"] for each in await sessions_of(bob)] == [2]
    assert [each["message_count"] for each in await sessions_of(alice)] == [2]


async def test_who_has_no_key_is_given_one(parley: Parley):
    answer = await parley.http.post("/chat", json={"message": "Hello"})
    key = answer.headers["X-Session-ID"]
    assert UUID(key).version == 4
    assert answer.json()["session_id"] == key
    visitor = Frontend(Person(parley.http, key))
    assert len((await visitor.get("/chat/history"))["messages"]) == 2
    await visitor.chat("Again")
    assert len((await visitor.get("/chat/history"))["messages"]) == 4


async def test_each_who_has_no_key_is_someone_else(parley: Parley):
    answers = [await parley.http.post("/chat/agent", json={"message": "Hello"}) for _ in range(2)]
    assert len({answer.headers["X-Session-ID"] for answer in answers}) == 2


async def test_who_has_a_key_is_given_none(alice: Frontend):
    answer = await alice.send("POST", "/chat", json={"message": "Hello"})
    assert "X-Session-ID" not in answer.headers


# --- conversations with names ---------------------------------------------------------


async def test_a_string_of_the_clients_own_names_a_conversation(alice: Frontend):
    for message in ("One", "Two"):
        assert (await alice.chat(message, session_id="reader-42/ü"))["session_id"] == "reader-42/ü"
    [one] = await sessions_of(alice)
    assert (one["session_id"], one["message_count"], one["title"]) == ("reader-42/ü", 4, "One")


async def test_two_visitors_may_use_the_same_string(alice: Frontend, bob: Frontend):
    for frontend in (alice, bob):
        await frontend.chat("Hello", session_id="default")
        assert [each["message_count"] for each in await sessions_of(frontend)] == [2]


async def test_a_uuid_names_the_session_of_that_id(alice: Frontend):
    id = str(uuid4())
    assert (await alice.chat("Hello", session_id=id.upper()))["session_id"] == id.upper()
    assert (await session(alice.person, id))["messageCount"] == 2


async def test_equal_first_messages_at_once_make_one_conversation(alice: Frontend):
    message = {"message": "Hello", "session_id": "new"}
    answers = await asyncio.gather(*(alice.send("POST", "/chat", json=message) for _ in range(10)))
    taken = [answer for answer in answers if answer.status_code == 200]
    assert taken
    for answer in answers:
        if answer not in taken:
            assert problem_in(answer)["code"] == "REPLY_IN_PROGRESS"
    [one] = await sessions_of(alice)
    assert one["message_count"] == 2 * len(taken)


# --- sending again --------------------------------------------------------------------


@pytest.mark.parametrize("session_id", [None, "mine", str(uuid4())])
async def test_sending_again_replays_the_reply(alice: Frontend, session_id: str | None):
    for key in ("any text", str(uuid4()), '"quoted"', "x" * 255):
        first = await alice.chat("Hello", key=key, session_id=session_id)
        assert await alice.chat("Hello", key=key, session_id=session_id) == first
    assert [each["message_count"] for each in await sessions_of(alice)] == [8]


async def test_sending_the_same_thing_many_times_at_once_asks_once(alice: Frontend):
    answers = await asyncio.gather(
        *(alice.chat("Hello", key="k", session_id="new") for _ in range(10))
    )
    assert len({answer["message_id"] for answer in answers}) == 1
    assert [each["message_count"] for each in await sessions_of(alice)] == [2]


async def test_a_uuid_as_idempotency_key_is_the_messages_id(alice: Frontend):
    id = str(uuid4())
    assert (await alice.chat("Hello", key=id))["user_message_id"] == id


async def test_something_else_under_the_same_key_is_a_conflict(alice: Frontend):
    body = {"message": "Hello", "session_id": "a"}
    await alice.chat(**body, key="k")
    for other in ({"message": "Bye"}, {"chapter": "2"}, {"session_id": "b"}, {"session_id": None}):
        problem = await alice.refused(
            "POST", "/chat", json={**body, **other}, headers={"Idempotency-Key": "k"}
        )
        assert (problem["status"], problem["code"]) == (409, "ID_CONFLICT"), other


async def test_the_same_key_of_two_visitors_is_two_messages(alice: Frontend, bob: Frontend):
    one, other = await alice.chat("Hello", key="k"), await bob.chat("Hello", key="k")
    assert one["message_id"] != other["message_id"]


# --- what can't be taken --------------------------------------------------------------

AS_JSON = {"Content-Type": "application/json"}
WRONG: dict[str, tuple[Any, str | None]] = {
    "nothing": ({}, "message"),
    "null": ({"message": None}, "message"),
    "a number": ({"message": 1}, "message"),
    "blank": ({"message": " \n"}, "message"),
    "too long": ({"message": "x" * 100_001}, "message"),
    "a NUL": ({"message": "a\0b"}, "message"),
    "half a pair": ({"message": "a\ud800b"}, "message"),
    "a long name": ({"message": "Hi", "session_id": "x" * 501}, "session_id"),
    "no name": ({"message": "Hi", "session_id": ""}, "session_id"),
    "a name with a NUL": ({"message": "Hi", "session_id": "a\0"}, "session_id"),
    "a chapter": ({"message": "Hi", "chapter": ""}, "chapter"),
    "a selection": ({"message": "Hi", "selected_text": "\0"}, "selected_text"),
    "a choice": ({"message": "Hi", "if_busy": "WAIT"}, "if_busy"),
    "documents": ({"message": "Hi", "document_ids": [1]}, "document_ids.0"),
    "a list": ([], None),
    "a text": ("Hi", None),
}


NO_JSON = [b"", b"{", b"null", b"\xff", b"[" * 100_000, b'{"message": ' + b"1" * 5000 + b"}"]


@pytest.mark.parametrize("path", ["/chat", "/chat/agent"])
async def test_what_can_not_be_taken_is_named(alice: Frontend, path: str):
    for name, (body, field) in WRONG.items():
        # In ASCII, so that half a surrogate pair can be sent too.
        problem = await alice.refused("POST", path, content=json.dumps(body), headers=AS_JSON)
        assert (problem["status"], problem["code"]) == (400, "INVALID_INPUT"), name
        assert problem.get("field") == field, name


async def test_a_body_that_is_no_json_is_a_problem(alice: Frontend):
    for content in NO_JSON:
        problem = await alice.refused("POST", "/chat", content=content, headers=AS_JSON)
        assert problem["status"] == 400, content[:9]


async def test_an_idempotency_key_has_its_limits(alice: Frontend):
    for key in ("", " ", '""', "x" * 256):
        problem = await alice.refused(
            "POST", "/chat", json={"message": "Hi"}, headers={"Idempotency-Key": key}
        )
        assert (problem["code"], problem["field"]) == ("INVALID_INPUT", "Idempotency-Key"), key


async def test_someone_elses_document_is_like_none(alice: Frontend, bob: Frontend, parley: Parley):
    hers = str(await make_document(parley.database, owner=alice.person.viewer))
    problems = [
        await bob.refused("POST", "/chat", json={"message": "Hi", "document_ids": [id]})
        for id in (hers, str(uuid4()), "no uuid")
    ]
    assert problems == [problems[0]] * 3
    assert problems[0]["status"] == 404


async def test_a_method_that_is_not_there_is_a_problem(alice: Frontend):
    answer = await alice.send("PUT", "/chat", json={})
    assert problem_in(answer)["status"] == 405
    assert answer.headers["Allow"] == "POST"
    for path, allowed in (
        ("/sessions", "GET, POST"),
        ("/sessions/mine", "DELETE, GET, PATCH"),
        ("/chat/history", "DELETE, GET"),
        ("/documents", "GET, POST"),
    ):
        assert (await alice.send("PUT", path)).headers["Allow"] == allowed, path


# --- who asks -------------------------------------------------------------------------

ROUTES = [
    ("POST", "/chat"),
    ("POST", "/chat/agent"),
    ("GET", "/chat/history"),
    ("DELETE", "/chat/history"),
    ("GET", "/sessions"),
    ("POST", "/sessions"),
    ("GET", "/sessions/mine"),
    ("PATCH", "/sessions/mine"),
    ("DELETE", "/sessions/mine"),
    ("GET", "/documents"),
    ("POST", "/documents"),
]


@pytest.mark.parametrize(
    "headers", [{"X-Session-ID": "me"}, {"X-Session-ID": ""}, {"Authorization": "Bearer x"}]
)
async def test_who_is_not_believed_is_refused(parley: Parley, headers: dict[str, str]):
    for method, path in ROUTES:
        answer = await parley.http.request(method, path, headers=headers, json={"message": "Hi"})
        problem = problem_in(answer)
        assert (problem["status"], problem["code"]) == (401, "UNAUTHENTICATED"), path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert "X-Session-ID" not in answer.headers


async def test_who_says_nothing_is_refused_but_where_they_chat(parley: Parley):
    for method, path in ROUTES[2:]:
        answer = await parley.http.request(method, path, json={})
        assert problem_in(answer)["code"] == "UNAUTHENTICATED", path


async def test_graphql_refuses_in_its_own_words(parley: Parley):
    answer = await parley.http.post(
        "/graphql", json={"query": "{ __typename }"}, headers={"X-Session-ID": "me"}
    )
    assert answer.json()["errors"][0]["extensions"]["code"] == "UNAUTHENTICATED"


# --- faults of ours -------------------------------------------------------------------


async def test_a_fault_of_ours_tells_its_id_alone(
    alice: Frontend, parley: Parley, capsys: pytest.CaptureFixture[str]
):
    await parley.database.rows(text("DROP TABLE chat_sessions CASCADE"), {})
    answer = await alice.send("GET", "/sessions")
    id = answer.json()["request_id"]
    assert problem_in(answer) == {
        "title": "Internal Server Error",
        "status": 500,
        "detail": "Something went wrong on our side.",
        "code": "INTERNAL",
    }
    logged = capsys.readouterr().out
    assert f"request_id={id}" in logged
    assert "UndefinedTable" in logged


async def test_no_cache_keeps_an_answer(alice: Frontend):
    await alice.chat("Hello")
    answer = await alice.send("GET", "/chat/history")
    assert answer.headers["Cache-Control"] == "no-store"
