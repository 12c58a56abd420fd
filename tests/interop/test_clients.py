"""The examples of docs/clients.md do what they say, with the real clients and a real server."""

from asyncio import Event
from typing import Any
from uuid import uuid4

import pytest

from tests.interop.conftest import History
from tests.interop.pages import Frontend, Refused
from tests.interop.sites import Client
from tests.openai_server import OpenAIServer, says
from tests.process.processes import Server, until
from tests.replicas.pairs import Road
from tests.replicas.texts import joined, pieces

pytestmark = pytest.mark.asyncio(loop_scope="session")

FIRST, SECOND, THIRD = "One 👩\u200d👧,", " two 🇩🇪,", " three 😀 cafe\u0301."
"Counted by letters, UTF-8 or code points, each resumes in the wrong place."
STORED = """query ($id: ID!) { session(id: $id) {
  messages { edges { node { id role status content } } } } }"""


def question() -> dict[str, str]:
    """Make what a page asks in a new session."""
    return {"sessionId": str(uuid4()), "messageId": str(uuid4()), "content": "Tell me."}


async def stored(server: Server, key: str, session_id: str) -> list[tuple[str, str]]:
    """Give status and text of a session's messages, of Parley itself."""
    session = (await server.person(key).ask(STORED, id=session_id))["session"]
    nodes = [edge["node"] for edge in session["messages"]["edges"]]
    return [(node["status"], node["content"]) for node in nodes]


async def test_a_new_session_shows_its_first_reply_piece_by_piece(
    frontend: Frontend, openai: OpenAIServer, server: Server
):
    second, third = Event(), Event()
    openai.script(says(FIRST, second, SECOND, third, THIRD))
    page = await frontend.open()
    asked = page.call("ask", message := question())
    await asked.shows(FIRST)
    second.set()
    await asked.shows(FIRST + SECOND)
    third.set()
    await asked.result()

    assert asked.text == FIRST + SECOND + THIRD
    whole = [("COMPLETE", "Tell me."), ("COMPLETE", asked.text)]
    assert await stored(server, frontend.key, message["sessionId"]) == whole


async def test_a_reloaded_page_goes_on_where_it_was(
    frontend: Frontend, openai: OpenAIServer, server: Server
):
    second, third = Event(), Event()
    openai.script(says(FIRST, second, SECOND, third, THIRD))
    page = await frontend.open()
    asked = page.call("ask", message := question())
    await asked.shows(FIRST)
    await page.close()
    await until(
        lambda: stored(server, frontend.key, message["sessionId"]),
        lambda messages: messages[-1] == ("STREAMING", FIRST),
    )

    page = await frontend.open()
    resumed = page.call("open", message["sessionId"])
    assert await resumed.first() == FIRST
    second.set()
    await resumed.shows(FIRST + SECOND)
    third.set()
    await resumed.result()

    _, reply = await stored(server, frontend.key, message["sessionId"])
    assert reply == ("COMPLETE", FIRST + SECOND + THIRD)
    assert resumed.text == reply[1]


async def test_a_reloaded_page_that_sends_again_asks_once(
    frontend: Frontend, openai: OpenAIServer, server: Server
):
    rest = Event()
    openai.script(says(FIRST, rest, SECOND))
    asked_before = len(openai.requests_to("chat"))
    page = await frontend.open()
    asked = page.call("ask", message := question())
    await asked.shows(FIRST)
    await page.close()

    page = await frontend.open()
    again = page.call("ask", message)
    await again.shows(FIRST)
    rest.set()
    await again.result()

    assert again.text == FIRST + SECOND
    assert len(await stored(server, frontend.key, message["sessionId"])) == 2
    assert len(openai.requests_to("chat")) == asked_before + 1


async def test_a_cut_connection_costs_no_character(
    client: Client, frontend: Frontend, openai: OpenAIServer, server: Server, road: Road
):
    rest = Event()
    parts = pieces(200)
    openai.script(says(*parts[:99], "now", rest, *parts[100:]))
    page = await frontend.open()
    asked = page.call("ask", message := question())
    await asked.shows(joined([*parts[:99], "now"]))
    await road.close()
    await road.open()
    if not client.reconnects:
        with pytest.raises(Refused):
            await asked.result()
        asked = page.call("open", message["sessionId"])
        await asked.first()
    rest.set()
    await asked.result()

    [_, reply] = await stored(server, frontend.key, message["sessionId"])
    assert reply == ("COMPLETE", joined([*parts[:99], "now", *parts[100:]]))
    assert asked.text == reply[1]


async def test_a_refused_question_is_an_error_that_says_why(
    frontend: Frontend, openai: OpenAIServer
):
    page = await frontend.open()
    await page.call("ask", message := question()).result()
    with pytest.raises(Refused, match="id"):
        await page.call("ask", message | {"content": "Something else."}).result()


class TestHistory:
    @pytest.fixture
    def key(self, history: History) -> str:
        return history.key

    async def test_paging_back_gives_each_of_200_messages_once_and_in_order(
        self, client: Client, frontend: Frontend, history: History
    ):
        page = await frontend.open()
        seen: list[str] = []
        before, has_more = None, True
        while has_more:
            given: Any = await page.call("history", history.session, before).result()
            connection = given["session"]["messages"]
            ids = [edge["node"]["id"] for edge in connection["edges"]]
            assert ids
            seen = ids if client.joins_pages else ids + seen
            before = connection["pageInfo"]["startCursor"]
            has_more = connection["pageInfo"]["hasPreviousPage"]
        assert seen == history.messages
