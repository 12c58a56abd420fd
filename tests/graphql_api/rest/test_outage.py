"""While the database is away: what is answered all the same, and what is not."""

import asyncio
import json
from collections.abc import AsyncGenerator
from typing import Any
from uuid import uuid4

import pytest
from sqlalchemy import event, text

from db.connections import Patience
from db.engine import Database
from db.urls import parse_url
from graphql_api.settings import Settings
from tests.graphql_api.rest.frontends import Frontend, problem_in
from tests.openai_server import (
    CONTEXT_TOO_LONG,
    Drop,
    OpenAIServer,
    Silence,
    Stream,
    chunk,
    says,
    searches,
)
from tests.operations import ADD_DOCUMENT, PATIENCE_SECONDS
from tests.people import Parley, Person, open_parley
from tests.proxy import Proxy, wire

ADMIN_KEY = str(uuid4())
IMPATIENT = Patience(retry=0.2)
SECRET = "The harbour's password is swordfish."
SHARED = "The harbour closes at nine."


@pytest.fixture
def settings(settings: Settings) -> Settings:
    # Somebody asks until it is back, as fast as the machine can.
    return settings.model_copy(
        update={"admin_subjects": frozenset({ADMIN_KEY}), "rate_limit": "off"}
    )


@pytest.fixture
async def proxied(database_url: str) -> AsyncGenerator[tuple[Proxy, Database]]:
    async with wire(database_url) as (proxy, url):
        database = Database(parse_url(url), patience=IMPATIENT)
        yield proxy, database
        await database.close()


@pytest.fixture
def proxy(proxied: tuple[Proxy, Database]) -> Proxy:
    return proxied[0]


@pytest.fixture
async def parley(settings: Settings, proxied: tuple[Proxy, Database]) -> AsyncGenerator[Parley]:
    """The application at the near end of the wire."""
    async with open_parley(settings, proxied[1]) as parley:
        yield parley


@pytest.fixture
async def documents(alice: Frontend, parley: Parley) -> None:
    """A shared document, and one of Alice's own that fits any question about it better."""
    admin = Person(parley.http, ADMIN_KEY)
    for person, said, visibility in (
        (admin, SHARED, "SHARED"),
        (alice.person, SECRET, "PRIVATE"),
    ):
        input = {"source": {"text": f"# Harbour\n\n{said}"}, "visibility": visibility}
        added = await person.ask(ADD_DOCUMENT, input=input)
        assert added["addDocument"]["__typename"] == "AddDocumentSuccess"
    await parley.documents_read()


async def streamed(frontend: Frontend, **body: Any) -> list[tuple[str, Any]]:
    """Ask with an event stream, and give all that is told."""
    answer = await frontend.send(
        "POST", "/chat/agent", json=body, headers={"Accept": "text/event-stream"}
    )
    assert answer.status_code == 200, answer.text
    events = [block.split("\n") for block in answer.text.removesuffix("\n\n").split("\n\n")]
    return [
        (name.removeprefix("event: "), json.loads(data.removeprefix("data: ")))
        for name, data in events
    ]


# --- what is answered -----------------------------------------------------------------


async def test_a_first_question_is_answered_from_what_is_shared(
    alice: Frontend, proxy: Proxy, documents: None
):
    """Alice would find her own passage too, were her database there."""
    question = "What is the harbour's password, and when does it close?"
    assert SECRET in json.dumps(await alice.chat(question, key="k"))
    proxy.cut()
    answer = await alice.chat(question)
    [citation] = answer.pop("citations")
    assert (citation["marker"], citation["title"], citation["snippet"]) == (1, "Harbour", SHARED)
    assert SHARED in answer.pop("response")
    assert answer == {
        "session_id": alice.person.key,
        "message_id": None,
        "user_message_id": None,
        "status": "COMPLETE",
        "persisted": False,
    }


async def test_the_same_is_told_as_it_is_written(alice: Frontend, proxy: Proxy, documents: None):
    proxy.cut()
    events = await streamed(alice, message="When does the harbour close?")
    (started, said), (searched, found), *deltas, (ended, answer) = events
    assert (started, searched, ended) == ("started", "searched", "ended")
    assert said == {
        "session_id": alice.person.key,
        "user_message_id": None,
        "message_id": None,
    }
    assert [each["snippet"] for each in found["citations"]] == [SHARED]
    length = 0
    for name, delta in deltas:
        assert (name, delta["offset"]) == ("delta", length)
        length += len(delta["text"])
    assert "".join(delta["text"] for _, delta in deltas) == answer["response"]
    assert answer == await alice.chat("When does the harbour close?")


async def test_a_new_visitor_is_answered_too(parley: Parley, proxy: Proxy):
    proxy.cut()
    answer = await parley.http.post("/chat", json={"message": "Hello"})
    assert answer.json()["persisted"] is False
    assert answer.json()["session_id"] == answer.headers["X-Session-ID"]


async def test_nothing_of_it_is_kept(alice: Frontend, parley: Parley, proxy: Proxy):
    proxy.cut()
    await alice.chat("Hello")
    proxy.restore()
    async with asyncio.timeout(PATIENCE_SECONDS):  # it is not asked again at once
        while (await alice.send("GET", "/sessions")).status_code == 503:
            pass
    assert (await alice.get("/sessions"))["sessions"] == []
    assert (await alice.chat("Hello"))["persisted"] is True


async def test_what_can_not_be_taken_is_refused_as_ever(alice: Frontend, proxy: Proxy):
    proxy.cut()
    problem = await alice.refused("POST", "/chat", json={"message": " "})
    assert (problem["code"], problem["field"]) == ("INVALID_INPUT", "message")


async def test_connections_that_were_closed_in_their_sleep_are_no_outage(
    alice: Frontend, parley: Parley
):
    """As a database leaves them that was suspended, or restarted, while nobody asked."""
    await alice.chat("One")
    kill = """SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE datname = current_database() AND pid <> pg_backend_pid()"""
    other = Database(parley.database.url)
    await other.rows(text(kill), {})
    await other.close()
    assert (await alice.chat("Two"))["persisted"] is True


# --- what is not ----------------------------------------------------------------------


async def test_what_may_have_been_sent_before_is_not_asked_again(alice: Frontend, proxy: Proxy):
    """Its reply may be stored: asked anew, it would be another."""
    first = await alice.chat("Hello", key="one")
    proxy.cut()
    headers = {"Idempotency-Key": "one"}
    answer = await alice.send("POST", "/chat", json={"message": "Hello"}, headers=headers)
    assert problem_in(answer)["code"] == "UNAVAILABLE"
    assert int(answer.headers["Retry-After"]) > 0
    proxy.restore()
    async with asyncio.timeout(PATIENCE_SECONDS):  # it is not asked again at once
        while (await alice.send("GET", "/sessions")).status_code == 503:
            pass
    assert await alice.chat("Hello", key="one") == first


@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
async def test_where_there_may_be_a_history_it_waits(alice: Frontend, proxy: Proxy, accept: str):
    """And where there is a choice of documents, since whose they are can't be asked."""
    proxy.cut()
    bodies: list[dict[str, Any]] = [
        {"session_id": "mine"},
        {"session_id": str(uuid4())},
        {"document_ids": []},
    ]
    for more in bodies:
        answer = await alice.send(
            "POST", "/chat/agent", json={"message": "Hi", **more}, headers={"Accept": accept}
        )
        assert int(answer.headers["Retry-After"]) > 0
        problem = problem_in(answer)
        assert (problem["status"], problem["code"]) == (503, "UNAVAILABLE"), more


async def test_everything_else_waits(alice: Frontend, proxy: Proxy):
    proxy.cut()
    for method, path, body in (
        ("GET", "/chat/history", None),
        ("DELETE", "/chat/history", None),
        ("GET", "/sessions", None),
        ("POST", "/sessions", {}),
        ("GET", "/sessions/mine", None),
        ("PATCH", "/sessions/mine", {"title": "Mine"}),
        ("DELETE", "/sessions/mine", None),
        ("GET", "/documents", None),
        ("POST", "/documents", {"text": "Hello"}),
    ):
        answer = await alice.send(method, path, json=body)
        assert int(answer.headers["Retry-After"]) > 0
        assert problem_in(answer)["code"] == "UNAVAILABLE", (method, path)


async def test_what_may_have_been_kept_after_all_is_not_answered(
    alice: Frontend, parley: Parley, proxy: Proxy
):
    """The connection breaks in the commit: nobody knows whether it was done."""

    def cut(_: Any) -> None:
        asyncio.get_running_loop().call_soon(proxy.cut)

    engine = parley.database.engine.sync_engine
    event.listen(engine, "commit", cut)
    answer = await alice.send("POST", "/chat", json={"message": "Hello"})
    event.remove(engine, "commit", cut)
    assert answer.status_code == 503 or answer.json()["persisted"]


class TestWithAModel:
    """Where a language model answers."""

    @pytest.fixture
    def settings(self, settings: Settings, model: OpenAIServer) -> Settings:
        return settings.model_copy(update={"openai_base_url": model.url, "openai_model": "m"})

    async def test_the_model_is_never_given_a_private_passage(
        self, alice: Frontend, bob: Frontend, proxy: Proxy, documents: None, model: OpenAIServer
    ):
        proxy.cut()
        for frontend in (alice, bob):
            model.script(searches("harbour password swordfish"), says("Nothing [2]. Closes [1]."))
            answer = await frontend.chat("What is the password?")
            assert answer["response"] == "Nothing. Closes [1]."
            assert len(answer["citations"]) == 1
        asked = json.dumps([request.body for request in model.requests])
        assert SHARED in asked
        assert "swordfish." not in asked

    async def test_what_was_asked_about_reaches_the_model(
        self, alice: Frontend, proxy: Proxy, model: OpenAIServer
    ):
        model.script(says("It is."))
        proxy.cut()
        await alice.chat("What does this mean?", selected_text="a lease", chapter="Two")
        said = model.requests[-1].body["messages"][-1]["content"]
        assert said == "Chapter: Two\n\nThe reader selected:\n\n> a lease\n\nWhat does this mean?"

    async def test_a_model_that_fails_for_now_is_a_503(
        self, alice: Frontend, proxy: Proxy, model: OpenAIServer
    ):
        model.script(Stream([chunk({"content": "A lease"}), Drop()], done=False))
        proxy.cut()
        answer = await alice.send("POST", "/chat", json={"message": "Hi"})
        assert int(answer.headers["Retry-After"]) > 0
        assert problem_in(answer) == {
            "title": "Service Unavailable",
            "status": 503,
            "detail": "The model can't be reached.",
            "code": "MODEL_UNAVAILABLE",
            "response": "A lease",
            "session_id": alice.person.key,
            "message_id": None,
            "user_message_id": None,
            "citations": [],
            "persisted": False,
        }

    async def test_a_model_that_fails_is_an_event(
        self, alice: Frontend, proxy: Proxy, model: OpenAIServer
    ):
        model.script(CONTEXT_TOO_LONG)
        proxy.cut()
        [(started, _), (error, problem)] = await streamed(alice, message="Hi")
        assert (started, error) == ("started", "error")
        assert (problem["status"], problem["code"]) == (502, "CONTEXT_TOO_LONG")

    async def test_a_model_that_takes_too_long_times_out(
        self, alice: Frontend, parley: Parley, proxy: Proxy, model: OpenAIServer
    ):
        unsaved = parley.services.unsaved
        unsaved._reply_timeout = unsaved._reply_timeout * 0
        model.script(Silence())
        proxy.cut()
        problem = await alice.refused("POST", "/chat", json={"message": "Hi"})
        assert (problem["status"], problem["code"]) == (503, "TIMEOUT")
