"""The model: it is told nothing of another's, and can't ask for it, whatever it says."""

import json
from typing import Any
from uuid import uuid4

import pytest

from graphql_api.settings import Settings
from tests.openai_server import OpenAIServer, Step, Stream, chunk, says, tool_delta
from tests.operations import add_text, send
from tests.people import Parley, Person

HER_WORD, HIS_WORD = "quicksilver", "vermilion"


@pytest.fixture
def settings(settings: Settings, model: OpenAIServer) -> Settings:
    return settings.model_copy(update={"openai_base_url": model.url, "openai_model": "m"})


def calls(arguments: Any) -> Stream:
    """Call the search with arguments of the model's own making."""
    steps: list[Step] = [
        tool_delta(0, id="call_0", name="search_documents", arguments=json.dumps(arguments)),
        chunk(finish_reason="tool_calls"),
    ]
    return Stream(steps)


async def test_the_model_is_told_nothing_of_a_strangers_conversation(
    alice: Person, bob: Person, model: OpenAIServer
):
    # Both call theirs by the same id.
    session = str(uuid4())
    for _ in range(2):
        for person, word in ((alice, HER_WORD), (bob, HIS_WORD)):
            model.script(says("I see."))
            await send(person, f"My word is {word}.", sessionId=session)
    *_, hers, his = [json.dumps(request.body) for request in model.requests_to("chat")]
    assert (hers.count(HER_WORD), hers.count(HIS_WORD)) == (2, 0)
    assert (his.count(HER_WORD), his.count(HIS_WORD)) == (0, 2)


async def test_no_argument_of_the_models_widens_its_search(
    alice: Person, bob: Person, parley: Parley, model: OpenAIServer
):
    added = await add_text(alice, f"The {HER_WORD} is kept in the cellar.")
    await parley.documents_read()
    owner, document = str(alice.viewer.user_id), added["document"]["id"]
    forgeries: list[dict[str, Any]] = [
        {},
        {"user_id": owner, "viewer": owner, "owner": owner, "session_id": alice.key},
        {"document_ids": [document], "filter": {"must": [{"key": "owner", "value": owner}]}},
    ]
    for forged in forgeries:
        model.script(calls({"query": HER_WORD, **forged}), says("So it is."))
        await send(bob, "What is there?")
        assert "cellar" not in json.dumps(model.requests_to("chat")[-1].body)
    model.script(calls({"query": HER_WORD}), says("So it is."))
    await send(alice, "What is there?")
    assert "cellar" in json.dumps(model.requests_to("chat")[-1].body), "it would be found"
