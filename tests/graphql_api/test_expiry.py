"""A credential that expires: it is believed no more, on a stream that is open neither."""

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest

from graphql_api.settings import Settings
from graphql_api.tokens import CLOCK_SKEW
from tests.issuer import Issuer
from tests.openai_server import OpenAIServer, says
from tests.operations import being_written, send
from tests.people import Parley

STREAM = """subscription ($input: SendMessageInput!) {
  sendMessage(input: $input) { __typename ... on ReplyDelta { text } }
}"""


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer, issuer: Issuer) -> Settings:
    return settings.model_copy(
        update={"openai_base_url": model.url, "openai_model": "m", **issuer.settings}
    )


async def test_a_stream_ends_with_its_credential_and_the_reply_goes_on(
    parley: Parley, issuer: Issuer, model: OpenAIServer
):
    gate = asyncio.Event()
    model.script(says("Half", gate, " and half."))
    soon = issuer.token("ann", lasts=timedelta(seconds=2) - CLOCK_SKEW)
    message: dict[str, Any] = {"content": "What is a lease?", "messageId": str(uuid4())}
    streamed = await parley.bearer(soon).text(STREAM, input=message)
    assert '"text":"Half"' in streamed
    assert '"code":"UNAUTHENTICATED"' in streamed
    assert "ReplyEnded" not in streamed

    await being_written(parley, "Half")
    gate.set()
    joined = await send(parley.bearer(issuer.token("ann")), **message)
    assert joined["reply"]["content"] == "Half and half."
