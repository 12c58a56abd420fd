"""REST is counted and bounded like GraphQL."""

import json
from collections.abc import AsyncGenerator

import pytest

from graphql_api.settings import Settings
from tests.people import Parley, Person
from tests.protocol.test_rate_limits import DAY_SECONDS


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(
        update={"rate_limit": "3/day", "max_body_bytes": 1000, "max_upload_bytes": 5000}
    )


@pytest.fixture
def alice(parley: Parley) -> Person:
    return parley.person()


@pytest.fixture
def bob(parley: Parley) -> Person:
    return parley.person()


async def test_who_asks_too_often_is_told_when_to_go_on(alice: Person, bob: Person):
    for _ in range(3):
        assert (await alice.http.get("/sessions", headers=alice.headers)).status_code == 200
    refused = await alice.http.get("/sessions", headers=alice.headers)
    assert refused.status_code == 429
    assert 1 <= int(refused.headers["Retry-After"]) <= DAY_SECONDS
    assert refused.json()["code"] == "RATE_LIMITED"
    assert (await bob.http.get("/sessions", headers=bob.headers)).status_code == 200


async def test_the_rate_is_one_for_all_interfaces(alice: Person):
    for _ in range(2):
        await alice.http.get("/sessions", headers=alice.headers)
    await alice.ask("{ viewer { id } }")
    assert (await alice.http.get("/sessions", headers=alice.headers)).status_code == 429


async def test_a_body_that_is_too_large_is_not_read(alice: Person):
    read = 0

    async def body() -> AsyncGenerator[bytes]:
        nonlocal read
        yield b'{"message": "'
        for _ in range(1000):
            read += 1
            yield b"x" * 100

    answer = await alice.http.post(
        "/chat",
        content=body(),
        headers={**alice.headers, "Content-Type": "application/json"},
    )
    assert answer.status_code == 413
    assert "larger than 1,000 bytes" in answer.json()["detail"]
    assert read < 100


async def test_a_form_that_is_too_large_is_not_read(alice: Person):
    answer = await alice.http.post(
        "/documents", files={"file": ("a.txt", b"x" * 9000)}, headers=alice.headers
    )
    assert answer.status_code == 413, json.dumps(answer.json())
