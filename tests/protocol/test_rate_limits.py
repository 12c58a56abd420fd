"""How often a viewer may ask, and how much of what costs money they may have."""

import asyncio
import json
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import pytest_asyncio

from graphql_api.settings import Settings
from tests.protocol.excesses import asking_nothing
from tests.protocol.exchange import GRAPHQL, JSON, Answer, check_refused, exchange, get, post
from tests.protocol.forms import MAPPED, Form, form, part
from tests.streaming.scripted import ScriptedModel
from tests.streaming.wire import MULTIPART, Http, Served, another, opened

pytestmark = pytest.mark.asyncio(loop_scope="package")

LIMITED = "RATE_LIMITED"
DAY_SECONDS = 86_400
ASK = "{ viewer { isAnonymous } }"
SEND = """mutation ($input: SendMessageInput!) { sendMessage(input: $input) {
  __typename ... on UserError { message } ... on QuotaExceeded { resetsAt }
  ... on SendMessageSuccess { reply { id } } } }"""
FOLLOW_SEND = """subscription ($input: SendMessageInput!) { event: sendMessage(input: $input) {
  __typename ... on ReplyEnded { reply { id } }
  ... on ReplyRejected { error { __typename ... on QuotaExceeded { resetsAt } } } } }"""
ADD = """mutation ($input: AddDocumentInput!) { addDocument(input: $input) {
  __typename ... on AddDocumentSuccess { document { id } } ... on QuotaExceeded { resetsAt } } }"""


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def strict(server: Served) -> AsyncGenerator[Served]:
    """Three requests a day: minutes end too often while a test runs, and then there is more."""
    async with another(server, rate_limit="3/day") as strict:
        yield strict


async def ask(server: Served, key: str, query: str = ASK, accept: str = JSON) -> Answer:
    return await post(server.port, query, {"X-Session-ID": key, "Accept": accept})


async def use_up(server: Served, key: str) -> None:
    for _ in range(3):
        assert (await ask(server, key)).codes == []


# --- rates ----------------------------------------------------------------------------


async def test_the_default_is_as_documented():
    settings = Settings.model_construct()
    assert settings.rate_limit == "600/minute"
    assert (settings.send_message_quota, settings.add_document_quota) == ("off", "off")


@pytest.mark.parametrize("accept", [JSON, GRAPHQL, "text/event-stream", MULTIPART])
async def test_who_asks_too_often_is_told_when_to_go_on(strict: Served, key: str, accept: str):
    await use_up(strict, key)
    async with asking_nothing(strict):
        answer = await ask(strict, key, accept=accept)
    check_refused(answer, 429, LIMITED)
    assert 1 <= int(answer.headers["retry-after"]) <= DAY_SECONDS
    assert "3 per 1 day" in answer.json["errors"][0]["message"]


async def test_another_viewer_is_not_affected(strict: Served, key: str):
    await use_up(strict, key)
    assert (await ask(strict, key)).status == 429
    assert (await ask(strict, str(uuid4()))).status == 200


async def test_a_key_written_otherwise_is_the_same_viewer(strict: Served, key: str):
    await use_up(strict, key)
    assert (await ask(strict, key.upper())).status == 429
    assert (await ask(strict, f"{{{key}}}")).status == 429


async def test_what_is_refused_counts_too(strict: Served, key: str):
    for _ in range(3):
        assert (await ask(strict, key, "{ nothing }")).codes == ["GRAPHQL_VALIDATION_FAILED"]
    assert (await ask(strict, key)).status == 429


async def test_all_ways_of_asking_count_together(strict: Served, key: str):
    identity = {"X-Session-ID": key}
    async with opened(strict.port) as socket:
        await socket.init(sessionId=key)
        await ask(strict, key)
        await get(strict.port, ASK, identity)
        await socket.subscribe("1", "query { event: viewer { isAnonymous } }")
        assert await socket.rest() == [{"isAnonymous": True}]
        assert (await ask(strict, key)).status == 429
        assert (await get(strict.port, ASK, identity)).status == 429


async def test_a_socket_stays_and_its_streams_go_on(
    strict: Served, key: str, voices: ScriptedModel
):
    async with opened(strict.port) as socket:
        await socket.init(sessionId=key)
        input = {"messageId": str(uuid4()), "content": "Question"}
        await socket.subscribe("1", FOLLOW_SEND, input=input)
        await socket.next()
        for _ in range(2):
            await ask(strict, key)
        await socket.subscribe("2", ASK)
        said = await socket.receive()
        assert (said["type"], said["id"]) == ("error", "2")
        assert [error["extensions"]["code"] for error in said["payload"]] == [LIMITED]
        assert 1 <= said["payload"][0]["extensions"]["retryAfterSeconds"] <= DAY_SECONDS
        voices["Question"].finish("Text.")
        assert (await socket.rest())[-1]["__typename"] == "ReplyEnded"


async def test_a_batch_counts_as_many_as_it_has(server: Served, key: str):
    async with another(server, rate_limit="3/day", max_batch_operations=2) as strict:
        body = json.dumps([{"query": ASK}, {"query": ASK}]).encode()
        headers = {"X-Session-ID": key}
        first = await exchange(strict.port, headers=headers, body=body)
        assert [codes(each) for each in first.json] == [[], []]
        second = await exchange(strict.port, headers=headers, body=body)
        assert sorted(codes(each) for each in second.json) == [[], [LIMITED]]
        third = await exchange(strict.port, headers=headers, body=body)
        assert (third.status, [codes(each) for each in third.json]) == (429, [[LIMITED]] * 2)
        assert 1 <= int(third.headers["retry-after"]) <= DAY_SECONDS


def codes(result: Any) -> list[str]:
    return [error["extensions"]["code"] for error in result.get("errors", [])]


async def test_without_a_limit_nobody_is_refused(server: Served, key: str):
    async with another(server, rate_limit="off") as generous:
        assert {(await ask(generous, key)).status for _ in range(20)} == {200}


# --- quotas ---------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="package")
async def dear(server: Served, voices: ScriptedModel) -> AsyncGenerator[Served]:
    """Two messages a day, and two documents. Each reply is just one word."""
    async with another(server, send_message_quota="2/day", add_document_quota="2/day") as dear:
        for question in ("Question", "Another"):
            for _ in range(10):
                voices[question].finish("Text.")
        yield dear


async def send(server: Served, key: str, content: str = "Question", **more: Any) -> Any:
    variables = {"input": {"content": content, **more}}
    answer = await post(server.port, SEND, {"X-Session-ID": key}, variables=variables)
    return answer.json["data"]["sendMessage"]


async def follow(server: Served, key: str, message: str) -> list[Any]:
    """Send a message as a stream, and give all events."""
    input = {"messageId": message, "content": "Question"}
    return await (await Http.ask(server.port, key, FOLLOW_SEND, input=input)).rest()


async def add(server: Served, key: str, text: str) -> Any:
    variables = {"input": {"source": {"text": text}}}
    answer = await post(server.port, ADD, {"X-Session-ID": key}, variables=variables)
    return answer.json["data"]["addDocument"]


def check_exceeded(result: Any) -> None:
    """See that there is none left, and that there will be within a day."""
    assert result["__typename"] == "QuotaExceeded"
    now, resets_at = datetime.now(UTC), datetime.fromisoformat(result["resetsAt"])
    assert now < resets_at <= now + timedelta(days=1, seconds=1)


async def test_a_message_too_many_is_quota_exceeded(dear: Served, key: str):
    for _ in range(2):
        assert (await send(dear, key))["__typename"] == "SendMessageSuccess"
    refused = await send(dear, key)
    check_exceeded(refused)
    assert "2 per 1 day" in refused["message"]


async def test_a_message_too_many_leaves_nothing_behind(dear: Served, key: str):
    for _ in range(3):
        await send(dear, key)
    answer = await ask(dear, key, "{ sessions { totalCount } }")
    assert answer.json == {"data": {"sessions": {"totalCount": 2}}}


async def test_another_viewer_has_a_quota_of_their_own(dear: Served, key: str):
    for _ in range(3):
        await send(dear, key)
    assert (await send(dear, str(uuid4())))["__typename"] == "SendMessageSuccess"


async def test_a_stream_too_many_is_rejected(dear: Served, key: str):
    for _ in range(2):
        assert (await follow(dear, key, str(uuid4())))[-1]["__typename"] == "ReplyEnded"
    [event] = await follow(dear, key, str(uuid4()))
    assert event["__typename"] == "ReplyRejected"
    check_exceeded(event["error"])


async def test_sending_the_same_message_again_costs_nothing_and_joins(dear: Served, key: str):
    first, second = str(uuid4()), str(uuid4())
    sent = await send(dear, key, messageId=first)
    assert await send(dear, key, messageId=first) == sent
    assert (await send(dear, key, messageId=second))["__typename"] == "SendMessageSuccess"
    check_exceeded(await send(dear, key))
    assert await send(dear, key, messageId=first) == sent
    assert (await follow(dear, key, second))[-1]["__typename"] == "ReplyEnded"


async def test_the_same_message_many_times_at_once_costs_one(dear: Served, key: str):
    """Nor is any of them refused, the last one that is allowed neither."""
    for _ in range(2):
        same = {"messageId": str(uuid4()), "sessionId": str(uuid4())}
        results = await asyncio.gather(*(send(dear, key, **same) for _ in range(5)))
        assert [each["__typename"] for each in results] == ["SendMessageSuccess"] * 5
        assert len({each["reply"]["id"] for each in results}) == 1
    check_exceeded(await send(dear, key))


async def test_what_was_refused_is_not_counted(dear: Served, key: str):
    """Else the refusals would outlast what gives one back."""
    await send(dear, key)
    message = str(uuid4())
    busy = [send(dear, key, messageId=message), *(send(dear, key) for _ in range(5))]
    await asyncio.gather(*busy)
    assert (await ask(dear, key, "{ sessions { totalCount } }")).json["data"] == {
        "sessions": {"totalCount": 2}
    }


async def test_what_is_refused_costs_nothing(dear: Served, key: str):
    message = str(uuid4())
    await send(dear, key, messageId=message)
    refused = [
        await send(dear, key, ""),
        await send(dear, key, messageId="none"),
        await send(dear, key, "Another", messageId=message),
        await send(dear, key, documentIds=[str(uuid4())]),
    ]
    kinds = ["InvalidInput", "InvalidInput", "IdConflict", "NotFound"]
    assert [each["__typename"] for each in refused] == kinds
    assert (await send(dear, key))["__typename"] == "SendMessageSuccess"
    check_exceeded(await send(dear, key))


async def test_of_many_at_once_as_many_as_are_allowed_are_taken(dear: Served, key: str):
    results = await asyncio.gather(*(send(dear, key) for _ in range(10)))
    kinds = [each["__typename"] for each in results]
    assert (kinds.count("SendMessageSuccess"), kinds.count("QuotaExceeded")) == (2, 8)


async def test_a_document_too_many_is_quota_exceeded(dear: Served, key: str):
    for text in ("One.", "Two."):
        assert (await add(dear, key, text))["__typename"] == "AddDocumentSuccess"
    check_exceeded(await add(dear, key, "Three."))
    assert (await send(dear, key))["__typename"] == "SendMessageSuccess"


async def test_a_document_that_is_there_already_costs_nothing(dear: Served, key: str):
    first = await add(dear, key, "One.")
    assert await add(dear, key, "One.") == first
    assert (await add(dear, key, "Two."))["__typename"] == "AddDocumentSuccess"
    check_exceeded(await add(dear, key, "Three."))
    assert await add(dear, key, "One.") == first


async def test_the_same_document_many_times_at_once_costs_one(dear: Served, key: str):
    for text in ("One.", "Two."):
        results = await asyncio.gather(*(add(dear, key, text) for _ in range(5)))
        assert len({each["document"]["id"] for each in results}) == 1
    check_exceeded(await add(dear, key, "Three."))


async def test_a_document_that_is_refused_costs_nothing(dear: Served, key: str):
    for text in ("", " ", "a\0b"):
        assert (await add(dear, key, text))["__typename"] == "InvalidInput"
    for text in ("One.", "Two."):
        assert (await add(dear, key, text))["__typename"] == "AddDocumentSuccess"


async def test_an_uploaded_file_counts_as_a_document(dear: Served, key: str):
    for text in ("One.", "Two."):
        await add(dear, key, text)
    query = ADD.replace("$input: AddDocumentInput!", "$file: Upload!").replace(
        "input: $input", "input: {source: {file: $file}}"
    )
    operations = json.dumps({"query": query, "variables": {"file": None}})
    body = form(part("operations", operations), MAPPED, part("0", "Three.", "three.txt"))
    headers = {**Form("upload").headers, "X-Session-ID": key}
    answer = await exchange(dear.port, headers=headers, body=body)
    check_exceeded(answer.json["data"]["addDocument"])
