"""Failures of the model: the reply is FAILED, says which way, and keeps what it had."""

from typing import Any

import pytest

from graphql_api.settings import Settings
from tests.openai_server import (
    CONTEXT_TOO_LONG,
    UNAUTHORIZED,
    Behaviour,
    Drop,
    HangUp,
    OpenAIServer,
    Silence,
    Stream,
    chunk,
    failure,
    says,
    searches,
)
from tests.operations import add_text, send, session
from tests.people import Parley, Person


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer) -> Settings:
    return settings.model_copy(update={"openai_base_url": model.url, "openai_model": "test-model"})


async def reply_of(person: Person, session_id: str) -> Any:
    return (await session(person, session_id))["messages"]["edges"][-1]["node"]


OVERLOADED = failure(500, retry_after=0)
FAILURES: dict[str, tuple[list[Behaviour], str, bool]] = {
    "overloaded": ([OVERLOADED] * 3, "MODEL_UNAVAILABLE", True),
    "wrong key": ([UNAUTHORIZED], "MODEL_UNAVAILABLE", True),
    "hangs up": ([HangUp()] * 3, "MODEL_UNAVAILABLE", True),
    "too long": ([CONTEXT_TOO_LONG], "CONTEXT_TOO_LONG", False),
    "filtered": ([failure(400, code="content_filter")], "MODEL_REFUSED", False),
    "refuses": ([Stream([chunk({"refusal": "I can't."})])], "MODEL_REFUSED", False),
    "says nothing": ([says()], "MODEL_UNAVAILABLE", True),
}


@pytest.mark.parametrize("name", FAILURES)
async def test_a_failure_of_the_model_is_a_failed_reply(
    name: str, model: OpenAIServer, alice: Person
):
    behaviours, code, retryable = FAILURES[name]
    model.script(*behaviours)
    sent = await send(alice, "What is a lease?")
    reply = sent["reply"]
    assert (reply["status"], reply["content"]) == ("FAILED", "")
    assert (reply["error"]["code"], reply["error"]["retryable"]) == (code, retryable)
    assert await reply_of(alice, sent["session"]["id"]) == reply


async def test_a_failure_says_nothing_of_its_cause(model: OpenAIServer, alice: Person):
    model.script(failure(400, message="the key sk-secret is wrong", code="nonsense"))
    reply = (await send(alice, "What is a lease?"))["reply"]
    assert reply["error"]["message"] == "The model can't be reached."


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ([Drop()], "MODEL_UNAVAILABLE"),
        ([chunk(finish_reason="content_filter")], "MODEL_REFUSED"),
        ([], "MODEL_UNAVAILABLE"),
    ],
    ids=["breaks off", "is filtered", "ends without a reason"],
)
async def test_a_reply_that_fails_half_way_keeps_its_text(
    ending: list[Any], code: str, model: OpenAIServer, alice: Person
):
    model.script(Stream([chunk({"content": "A lease"}), *ending], done=False))
    reply = (await send(alice, "What is a lease?"))["reply"]
    assert (reply["status"], reply["content"]) == ("FAILED", "A lease")
    assert reply["error"]["code"] == code


async def test_a_reply_that_fails_keeps_its_citations(
    model: OpenAIServer, alice: Person, parley: Parley
):
    await add_text(alice, "A lease expires after thirty seconds.")
    await parley.documents_read()
    model.script(
        searches("lease"), Stream([chunk({"content": "It expires [1]. "}), Drop()], done=False)
    )
    reply = (await send(alice, "What is a lease?"))["reply"]
    assert (reply["status"], reply["content"].strip()) == ("FAILED", "It expires [1].")
    assert [each["marker"] for each in reply["citations"]] == [1]
    assert reply["searches"] == ["lease"]


async def test_after_a_failure_the_session_goes_on(model: OpenAIServer, alice: Person):
    model.script(CONTEXT_TOO_LONG, says("Again."))
    failed = await send(alice, "What is a lease?")
    again = await send(alice, "What is a lease?", sessionId=failed["session"]["id"])
    assert again["reply"]["content"] == "Again."


async def test_what_the_model_may_not_say_is_replaced(model: OpenAIServer, alice: Person):
    model.script(says("a\0b\ud800c", " 😀"))
    sent = await send(alice, "Hello")
    assert sent["reply"]["content"] == "a\ufffdb\ufffdc 😀"
    assert (await reply_of(alice, sent["session"]["id"]))["content"] == "a\ufffdb\ufffdc 😀"


async def test_a_model_that_takes_too_long_times_out(
    model: OpenAIServer, alice: Person, parley: Parley, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(
        parley.services.running, "_reply_timeout", parley.services.running._reply_timeout * 0
    )
    silence = Silence()
    model.script(silence)
    reply = (await send(alice, "What is a lease?"))["reply"]
    assert (reply["status"], reply["error"]["code"]) == ("FAILED", "TIMEOUT")
    assert reply["error"]["retryable"]


async def test_the_tokens_of_all_calls_are_counted(model: OpenAIServer, alice: Person):
    model.script(searches("lease", tokens=(5, 3)), says("None.", tokens=(11, 7)))
    sent = await send(alice, "What is a lease?")
    counted = await alice.ask(
        "query ($id: ID!) { message(id: $id) { promptTokens completionTokens model } }",
        id=sent["reply"]["id"],
    )
    assert counted["message"] == {
        "promptTokens": 16,
        "completionTokens": 10,
        "model": "test-model",
    }
