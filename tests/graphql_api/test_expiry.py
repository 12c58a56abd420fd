"""A credential that expires: it is believed no more, on a stream that is open neither."""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest

from db.viewer import Viewer
from graphql_api.auth import viewer_from_headers
from graphql_api.settings import Settings
from tests.openai_server import OpenAIServer, says
from tests.operations import being_written, send
from tests.people import Parley, Person

STREAM = """subscription ($input: SendMessageInput!) {
  sendMessage(input: $input) { __typename ... on ReplyDelta { text } }
}"""


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer) -> Settings:
    return settings.model_copy(update={"openai_base_url": model.url, "openai_model": "m"})


@pytest.fixture
def lifetime(monkeypatch: pytest.MonkeyPatch) -> list[timedelta]:
    """How long a request's credential is valid: the last of the list, from the request on."""
    lifetimes = [timedelta(hours=1)]

    def identified(headers: Mapping[str, str], admins: frozenset[str]) -> Viewer | None:
        viewer = viewer_from_headers(headers, admins)
        return viewer and replace(viewer, expires_at=datetime.now(UTC) + lifetimes[-1])

    monkeypatch.setattr("graphql_api.app.viewer_from_headers", identified)
    return lifetimes


async def test_a_credential_that_has_expired_is_none(alice: Person, lifetime: list[timedelta]):
    assert await alice.ask("{ viewer { id } }")
    lifetime.append(timedelta(seconds=-1))
    assert await alice.code("{ viewer { id } }") == "UNAUTHENTICATED"


async def test_a_stream_ends_with_its_credential_and_the_reply_goes_on(
    alice: Person, parley: Parley, model: OpenAIServer, lifetime: list[timedelta]
):
    gate = asyncio.Event()
    model.script(says("Half", gate, " and half."))
    lifetime.append(timedelta(seconds=2))
    message: dict[str, Any] = {"content": "What is a lease?", "messageId": str(uuid4())}
    streamed = await alice.text(STREAM, input=message)
    assert '"text":"Half"' in streamed
    assert '"code":"UNAUTHENTICATED"' in streamed
    assert "ReplyEnded" not in streamed

    lifetime.append(timedelta(hours=1))
    await being_written(parley, "Half")
    gate.set()
    joined = await send(alice, **message)
    assert joined["reply"]["content"] == "Half and half."
