"""POST /chat/agent as Server-Sent Events, on the wire."""

import asyncio
import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any, Self
from uuid import uuid4

import httpx2
import pytest

from db.engine import Database
from db.models import MessageStatus
from graphql_api.settings import Settings
from graphql_api.tokens import CLOCK_SKEW
from rag.ports import ContextTooLong, ModelUnavailable
from tests.graphql_api.rest.frontends import problem_in
from tests.issuer import Issuer
from tests.operations import PATIENCE_SECONDS, until
from tests.people import Person
from tests.streaming.scripted import ScriptedModel
from tests.streaming.wire import Served, served

EVENT_STREAM = {"Accept": "text/event-stream"}


class Stream:
    """An answer as its bytes come."""

    def __init__(self, answer: httpx2.Response) -> None:
        self.answer = answer
        self.bytes = b""
        self._chunks = answer.aiter_bytes()
        self._read = 0

    async def next(self) -> tuple[str, Any]:
        """Give the next event that is no comment, and its data."""
        while (block := await self._block()).startswith(b":"):
            pass
        name, data = block.decode().split("\n")
        assert name.startswith("event: "), block
        assert data.startswith("data: "), block
        return name.removeprefix("event: "), json.loads(data.removeprefix("data: "))

    async def _block(self) -> bytes:
        async with asyncio.timeout(PATIENCE_SECONDS):
            while (end := self.bytes.find(b"\n\n", self._read)) < 0:
                self.bytes += await anext(self._chunks)
        block, self._read = self.bytes[self._read : end], end + 2
        return block

    async def until(self, name: str) -> tuple[list[tuple[str, Any]], Any]:
        """Read on to the event of this name; gives those before it, and what it says."""
        before: list[tuple[str, Any]] = []
        while (event := await self.next())[0] != name:
            before.append(event)
        return before, event[1]

    async def has(self, text: str) -> Self:
        told = ""
        while text not in told:
            told += (await self.next())[1].get("text", "")
        return self

    async def ended(self) -> bool:
        """Tell whether nothing more comes."""
        return self._read == len(self.bytes) and await anext(self._chunks, b"") == b""


@pytest.fixture
def settings(settings: Settings, issuer: Issuer) -> Settings:
    return settings.model_copy(update={"allow_anonymous": True, **issuer.settings})


@pytest.fixture
async def server(settings: Settings, database: Database) -> AsyncGenerator[Served]:
    async with served(settings, database) as server:
        yield server
        for run in server.services.running._runs.values():
            run.stop(MessageStatus.STOPPED)
        await until(lambda: not server.services.running._runs)


@pytest.fixture
def model(server: Served) -> ScriptedModel:
    return server.model


@pytest.fixture
async def alice(server: Served) -> AsyncGenerator[Person]:
    async with httpx2.AsyncClient(base_url=server.origin, timeout=PATIENCE_SECONDS) as http:
        yield Person(http)


@asynccontextmanager
async def asked(
    person: Person, message: str = "Question", key: str | None = None, **more: Any
) -> AsyncGenerator[Stream]:
    headers = {**person.headers, **EVENT_STREAM} | ({"Idempotency-Key": key} if key else {})
    body = {"message": message, **more}
    async with person.http.stream("POST", "/chat/agent", json=body, headers=headers) as answer:
        if answer.status_code != 200:
            await answer.aread()
        yield Stream(answer)


# --- what is told ---------------------------------------------------------------------


async def test_a_reply_is_told_from_its_start_to_its_end(alice: Person, model: ScriptedModel):
    model["Question"].search("harbour")
    model["Question"].finish("One", ", 😀", " two")
    async with asked(alice, session_id="mine") as stream:
        (started, said), (searched, found), *deltas = (await stream.until("ended"))[0]
        assert await stream.ended()
    assert (started, searched) == ("started", "searched")
    assert said.keys() == {"session_id", "user_message_id", "message_id"}
    assert said["session_id"] == "mine"
    assert found == {"query": "harbour", "citations": []}
    offset = 0
    for name, delta in deltas:
        assert (name, delta["offset"]) == ("delta", offset)
        offset += len(delta["text"].encode("utf-16-le")) // 2
    assert "".join(delta["text"] for _, delta in deltas) == "One, 😀 two"


async def test_the_end_is_what_chat_answers(alice: Person, model: ScriptedModel):
    model["Question"].finish("Answer.")
    async with asked(alice, key="k") as stream:
        _, ended = await stream.until("ended")
    headers = {**alice.headers, "Idempotency-Key": "k"}
    answer = await alice.http.post("/chat", json={"message": "Question"}, headers=headers)
    assert answer.json() == ended
    assert model["Question"].calls == 1


async def test_text_is_told_while_it_is_written(alice: Person, model: ScriptedModel):
    async with asked(alice) as stream:
        for piece in ("One", ", two", ", three"):
            model["Question"].say(piece)
            await stream.has(piece)
        model["Question"].finish()
        assert (await stream.until("ended"))[1]["response"] == "One, two, three"


async def test_events_are_framed_by_line_feeds_and_kept_by_no_proxy(
    alice: Person, model: ScriptedModel
):
    model["Question"].finish("One\r\ntwo\n\nthree")
    async with asked(alice) as stream:
        await stream.until("ended")
    assert b"\r" not in stream.bytes
    headers = stream.answer.headers
    assert headers["Content-Type"].split(";")[0] == "text/event-stream"
    assert "no-cache" in headers["Cache-Control"]
    assert headers["X-Accel-Buffering"] == "no"


async def test_a_silence_is_filled_with_comments(
    alice: Person, model: ScriptedModel, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("graphql_api.rest.turns.EVENTS.heartbeat_interval", 0.01)
    async with asked(alice) as stream:
        await stream.next()
        assert (await stream._block()).startswith(b":")
        model["Question"].finish("Answer.")
        await stream.until("ended")


async def test_a_new_visitor_is_told_their_key_before_the_reply(
    alice: Person, model: ScriptedModel
):
    body = {"message": "Question"}
    async with alice.http.stream("POST", "/chat/agent", json=body, headers=EVENT_STREAM) as answer:
        stream = Stream(answer)
        _, said = await stream.next()
        assert said["session_id"] == answer.headers["X-Session-ID"]
        model["Question"].finish("Answer.")
        await stream.until("ended")


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json", "application/json, text/event-stream"]
)
async def test_who_would_rather_have_json_gets_it(
    alice: Person, model: ScriptedModel, accept: str | None
):
    model["Question"].finish("Answer.")
    headers = alice.headers | ({} if accept is None else {"Accept": accept})
    answer = await alice.http.post("/chat/agent", json={"message": "Question"}, headers=headers)
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.json()["response"] == "Answer."


# --- other ends -----------------------------------------------------------------------


async def test_a_refusal_is_no_stream(alice: Person, model: ScriptedModel):
    async with asked(alice, message=" ") as stream:
        assert problem_in(stream.answer)["code"] == "INVALID_INPUT"
    async with asked(alice) as first:
        await first.next()
        async with asked(alice, "Another") as stream:
            assert problem_in(stream.answer)["code"] == "REPLY_IN_PROGRESS"


@pytest.mark.parametrize(
    ("failure", "status", "code"),
    [
        (ModelUnavailable("secret"), 503, "MODEL_UNAVAILABLE"),
        (ContextTooLong("secret"), 502, "CONTEXT_TOO_LONG"),
    ],
)
async def test_a_reply_that_fails_ends_in_a_problem(
    alice: Person, model: ScriptedModel, failure: Any, status: int, code: str
):
    model["Question"].say("Half")
    model["Question"].fail(failure)
    async with asked(alice, session_id="mine") as stream:
        [(_, started), *_], problem = await stream.until("error")
        assert await stream.ended()
    assert (problem["status"], problem["code"]) == (status, code)
    assert (problem["response"], problem["persisted"]) == ("Half", True)
    assert problem["message_id"] == started["message_id"]
    assert "secret" not in json.dumps(problem)


async def test_a_reply_that_is_stopped_ends(alice: Person, model: ScriptedModel, server: Served):
    async with asked(alice) as stream:
        model["Question"].say("Half")
        await stream.has("Half")
        [run] = server.services.running._runs.values()
        run.stop(MessageStatus.STOPPED)
        ended = (await stream.until("ended"))[1]
    assert (ended["status"], ended["response"]) == ("STOPPED", "Half")


async def test_a_reply_goes_on_without_its_reader_and_is_joined_again(
    alice: Person, model: ScriptedModel, server: Served
):
    async with asked(alice, key="k") as stream:
        model["Question"].say("Half")
        await stream.has("Half")
    [run] = server.services.running._runs.values()
    await until(lambda: not run.stream._followers)
    model["Question"].finish(" and half.")
    async with asked(alice, key="k") as again:
        assert (await again.until("ended"))[1]["response"] == "Half and half."
    assert model["Question"].calls == 1


async def test_an_expired_token_ends_the_stream_and_not_the_reply(
    alice: Person, issuer: Issuer, model: ScriptedModel
):
    soon = issuer.token("ann", lasts=timedelta(seconds=2) - CLOCK_SKEW)
    id = str(uuid4())
    async with asked(Person(alice.http, token=soon), session_id=id) as stream:
        model["Question"].say("Half")
        await stream.has("Half")
        _, problem = await stream.until("error")
        assert await stream.ended()
    assert (problem["status"], problem["code"]) == (401, "UNAUTHENTICATED")
    model["Question"].finish(" and half.")
    ann = Person(alice.http, token=issuer.token("ann"))
    while True:
        params = {"session_id": id}
        answer = await ann.http.get("/chat/history", params=params, headers=ann.headers)
        _, reply = answer.json()["messages"]
        if reply["status"] != "STREAMING":
            break
    assert (reply["status"], reply["content"]) == ("COMPLETE", "Half and half.")
