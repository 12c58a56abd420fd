"""Bodies and files that are too long are refused while they are read, not once they are there."""

import asyncio
import json
from collections.abc import AsyncGenerator
from uuid import uuid4

import pytest
import pytest_asyncio

from resolvers.inputs import MAX_CONTENT_LENGTH
from tests.protocol.exchange import JSON, Answer, Exchange, check_refused, exchange
from tests.protocol.forms import ADDED, FILE, GIVEN, MAPPED, Form, form, part
from tests.streaming.wire import Served, another

pytestmark = [
    pytest.mark.asyncio(loop_scope="package"),
    pytest.mark.usefixtures("unharmed"),
]

BODY = 10_000
UPLOAD = 50_000
FAR_TOO_MUCH = 64 * 2**20
"More than the buffers of both ends hold: who takes all of it has read it."


@pytest_asyncio.fixture(scope="module", loop_scope="package")
async def small(server: Served) -> AsyncGenerator[Served]:
    """A server that takes little."""
    async with another(server, max_body_bytes=BODY, max_upload_bytes=UPLOAD) as small:
        yield small


def body_of(length: int) -> bytes:
    body = json.dumps({"query": "{ __typename }"}).encode()
    return body.ljust(length)


def file_of(length: int) -> bytes:
    """Make a form with a file of so many bytes."""
    return form(GIVEN, MAPPED, part("0", "a" * length, "a.txt"))


async def refused_while_sending(port: int, headers: dict[str, str], beginning: bytes) -> Answer:
    """Send a body that does not end, until the answer comes."""
    named = {"X-Session-ID": str(uuid4()), "Transfer-Encoding": "chunked", **headers}
    request = await Exchange.begin(port, headers=named)
    request.send_chunk(beginning)

    async def pour() -> None:
        for _ in range(FAR_TOO_MUCH // 2**16):
            request.send_chunk(b" " * 2**16)
            await request.writer.drain()

    pouring = asyncio.create_task(pour())
    try:
        return await request.answer()
    finally:
        is_all_taken = pouring.done() and not pouring.cancelled() and not pouring.exception()
        pouring.cancel()
        await asyncio.gather(pouring, return_exceptions=True)
        assert not is_all_taken


async def test_a_body_that_just_fits_is_taken(small: Served):
    answer = await exchange(small.port, body=body_of(BODY))
    assert answer.json == {"data": {"__typename": "Query"}}


async def test_a_body_of_one_byte_more_is_refused(small: Served):
    check_refused(await exchange(small.port, body=body_of(BODY + 1)), 413, "BAD_USER_INPUT")


async def test_a_body_is_refused_by_its_length_alone(small: Served):
    headers = {"Content-Type": JSON, "Content-Length": str(10**9), "X-Session-ID": str(uuid4())}
    request = await Exchange.begin(small.port, headers=headers)
    check_refused(await request.answer(), 413, "BAD_USER_INPUT")


async def test_a_body_of_no_said_length_is_refused_while_it_is_read(small: Served):
    answer = await refused_while_sending(small.port, {"Content-Type": JSON}, b'{"query": "')
    check_refused(answer, 413, "BAD_USER_INPUT")


async def test_a_refusal_names_the_limit(small: Served):
    answer = await exchange(small.port, body=body_of(BODY + 1))
    assert "10000" in answer.json["errors"][0]["message"].replace(",", "")


async def test_a_file_may_be_longer_than_a_body(small: Served):
    answer = await exchange(small.port, headers=Form("").headers, body=file_of(UPLOAD))
    assert answer.json == ADDED


async def test_a_file_of_one_byte_more_is_refused(small: Served):
    answer = await exchange(small.port, headers=Form("").headers, body=file_of(UPLOAD + 1))
    check_refused(answer, 413, "BAD_USER_INPUT")


async def test_a_form_is_refused_by_its_length_alone(small: Served):
    headers = {**Form("").headers, "Content-Length": str(10**9), "X-Session-ID": str(uuid4())}
    request = await Exchange.begin(small.port, headers=headers)
    check_refused(await request.answer(), 413, "BAD_USER_INPUT")


async def test_a_file_is_refused_while_it_is_read(small: Served):
    beginning = GIVEN + MAPPED + FILE.removesuffix(b"\r\n")
    answer = await refused_while_sending(small.port, Form("").headers, beginning)
    check_refused(answer, 413, "BAD_USER_INPUT")


async def test_a_file_is_refused_as_soon_as_it_is_too_long(small: Served):
    """Though the form might still have room for what else there may be."""
    headers = {"X-Session-ID": str(uuid4()), "Transfer-Encoding": "chunked", **Form("").headers}
    request = await Exchange.begin(small.port, headers=headers)
    request.send_chunk(file_of(UPLOAD + 1000)[:-100])
    check_refused(await request.answer(), 413, "BAD_USER_INPUT")


async def test_operations_may_not_be_as_long_as_a_file(small: Served):
    """They are read into memory, as a body is."""
    operations = part("operations", body_of(BODY + 1))
    answer = await exchange(
        small.port, headers=Form("").headers, body=form(operations, MAPPED, FILE)
    )
    check_refused(answer, 413, "BAD_USER_INPUT")


async def test_the_default_takes_the_longest_message(server: Served):
    """Each of its characters is written as two escapes. As a title it is too long for us."""
    query = "mutation ($c: String!) { createSession(input: {title: $c}) { __typename } }"
    body = json.dumps({"query": query, "variables": {"c": "😀" * MAX_CONTENT_LENGTH}}).encode()
    assert len(body) > 12 * MAX_CONTENT_LENGTH
    answer = await exchange(server.port, body=body)
    assert answer.json == {"data": {"createSession": {"__typename": "InvalidInput"}}}
