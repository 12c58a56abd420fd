"""How replies end over POST /chat: stopped, failed, in the way; and whose tokens begin them."""

import asyncio
from uuid import uuid4

import pytest

from graphql_api.settings import Settings
from tests.graphql_api.rest.frontends import Frontend, problem_in
from tests.issuer import Issuer
from tests.openai_server import (
    CONTEXT_TOO_LONG,
    UNAUTHORIZED,
    Drop,
    OpenAIServer,
    Stream,
    chunk,
    says,
)
from tests.operations import being_written, stop
from tests.people import Parley


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer, issuer: Issuer) -> Settings:
    return settings.model_copy(
        update={
            "openai_base_url": model.url,
            "openai_model": "m",
            "allow_anonymous": True,
            **issuer.settings,
        }
    )


@pytest.fixture
def ann(parley: Parley, issuer: Issuer) -> Frontend:
    """Someone with a token."""
    return Frontend(parley.bearer(issuer.token("ann")))


# --- ends -----------------------------------------------------------------------------


async def test_a_reply_that_failed_for_now_is_a_503_with_what_there_is(
    alice: Frontend, model: OpenAIServer
):
    model.script(Stream([chunk({"content": "A lease"}), Drop()], done=False))
    answer = await alice.send("POST", "/chat", json={"message": "Hi", "session_id": "mine"})
    assert int(answer.headers["Retry-After"]) > 0
    problem = problem_in(answer)
    _, reply = (await alice.get("/chat/history", session_id="mine"))["messages"]
    assert reply["status"] == "FAILED"
    assert problem == {
        "title": "Service Unavailable",
        "status": 503,
        "detail": "The model can't be reached.",
        "code": "MODEL_UNAVAILABLE",
        "response": "A lease",
        "session_id": "mine",
        "message_id": reply["id"],
        "user_message_id": problem["user_message_id"],
        "citations": [],
        "persisted": True,
    }


async def test_a_reply_that_would_fail_again_is_a_502(alice: Frontend, model: OpenAIServer):
    model.script(CONTEXT_TOO_LONG)
    answer = await alice.send("POST", "/chat", json={"message": "Hi"})
    assert "Retry-After" not in answer.headers
    problem = problem_in(answer)
    assert (problem["status"], problem["code"]) == (502, "CONTEXT_TOO_LONG")


async def test_a_new_visitor_whose_reply_failed_is_told_their_key(
    parley: Parley, model: OpenAIServer
):
    model.script(CONTEXT_TOO_LONG)
    answer = await parley.http.post("/chat", json={"message": "Hi"})
    assert answer.headers["X-Session-ID"] == problem_in(answer)["session_id"]


async def test_a_failure_says_nothing_of_its_cause(alice: Frontend, model: OpenAIServer):
    model.script(UNAUTHORIZED)
    assert "key" not in (await alice.refused("POST", "/chat", json={"message": "Hi"}))["detail"]


async def test_a_reply_that_was_stopped_is_an_answer(
    alice: Frontend, parley: Parley, model: OpenAIServer
):
    model.script(says("Half", asyncio.Event()))
    asking = asyncio.create_task(alice.chat("Hi", key="k"))
    await being_written(parley, "Half")
    [question, _] = (await alice.get("/chat/history"))["messages"]
    await stop(alice.person, question["id"])
    answer = await asking
    assert (answer["status"], answer["response"]) == ("STOPPED", "Half")
    assert await alice.chat("Hi", key="k") == answer


async def test_a_reply_in_the_way_is_named(alice: Frontend, parley: Parley, model: OpenAIServer):
    gate = asyncio.Event()
    model.script(says("Half", gate))
    asking = asyncio.create_task(alice.chat("One"))
    await being_written(parley, "Half")
    problem = await alice.refused("POST", "/chat", json={"message": "Two"})
    gate.set()
    assert (problem["status"], problem["code"]) == (409, "REPLY_IN_PROGRESS")
    assert problem["message_id"] == (await asking)["message_id"]


async def test_a_reply_in_the_way_may_be_stopped(
    alice: Frontend, parley: Parley, model: OpenAIServer
):
    model.script(says("Half", asyncio.Event()), says("Whole"))
    asking = asyncio.create_task(alice.chat("One"))
    await being_written(parley, "Half")
    assert (await alice.chat("Two", if_busy="INTERRUPT"))["response"] == "Whole"
    assert (await asking)["status"] == "STOPPED"


async def test_the_model_reads_what_was_said_before(alice: Frontend, model: OpenAIServer):
    for said in ("One", "Two"):
        model.script(says(said))
        await alice.chat(f"Say {said}")
    [_, *messages] = model.requests_to("chat")[-1].body["messages"]
    assert [each["content"] for each in messages] == ["Say One", "One", "Say Two"]


# --- tokens ---------------------------------------------------------------------------


async def test_who_has_a_token_opens_a_conversation_with_each_message(ann: Frontend):
    one, other = await ann.chat("One"), await ann.chat("Two")
    assert one["session_id"] != other["session_id"]
    listed = (await ann.get("/sessions"))["sessions"]
    assert [each["id"] for each in listed] == [other["session_id"], one["session_id"]]


async def test_a_repeated_request_does_not_open_another(ann: Frontend):
    assert await ann.chat("One", key="k") == await ann.chat("One", key="k")
    assert len((await ann.get("/sessions"))["sessions"]) == 1


async def test_who_has_a_token_says_which_history(ann: Frontend):
    for method in ("GET", "DELETE"):
        problem = await ann.refused(method, "/chat/history")
        assert (problem["code"], problem["field"]) == ("INVALID_INPUT", "session_id")


async def test_a_token_comes_before_a_key(ann: Frontend, alice: Frontend):
    key = alice.person.key
    answer = await ann.ask("POST", "/chat", json={"message": "Hi"}, headers={"X-Session-ID": key})
    assert answer["session_id"] != key
    named = await ann.ask(
        "POST",
        "/chat",
        json={"message": "Hi", "session_id": key},
        headers={"X-Session-ID": key},
    )
    # One of hers, which is called as she calls it; the visitor's own is another.
    found = await ann.get(f"/sessions/{named['session_id']}")
    assert found["message_count"] == 2
    assert (await alice.get("/chat/history"))["messages"] == []


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"message": 1}', b""])
async def test_a_bad_token_is_401_whatever_the_body_is(parley: Parley, body: bytes):
    headers = {"Authorization": "Bearer x", "Content-Type": "application/json"}
    answer = await parley.http.post("/chat", content=body, headers=headers)
    assert problem_in(answer)["code"] == "UNAUTHENTICATED"
    assert answer.headers["WWW-Authenticate"] == "Bearer"


class TestWithoutVisitors:
    """Where only those with a token are let in."""

    @pytest.fixture
    def settings(self, settings: Settings) -> Settings:
        return settings.model_copy(update={"allow_anonymous": False})

    async def test_nobody_is_made_a_visitor(self, parley: Parley):
        for path in ("/chat", "/chat/agent"):
            answer = await parley.http.post(path, json={"message": "Hi"})
            assert problem_in(answer)["code"] == "UNAUTHENTICATED"
            assert "X-Session-ID" not in answer.headers

    async def test_a_key_is_refused(self, parley: Parley):
        headers = {"X-Session-ID": str(uuid4())}
        answer = await parley.http.post("/chat", json={"message": "Hi"}, headers=headers)
        assert problem_in(answer)["code"] == "UNAUTHENTICATED"
