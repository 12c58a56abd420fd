"""GraphiQL in a real browser that reaches nothing but this machine.

Screenshots are left in each test's folder (`--basetemp`), to be looked at.
"""

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.browser.chromium import Reader
from tests.browser.conftest import Open
from tests.issuer import Issuer
from tests.openai_server import OpenAIServer, says
from tests.people import Person
from tests.process.processes import Server

pytestmark = pytest.mark.asyncio(loop_scope="session")


def has_data(answer: Any) -> bool:
    return "data" in answer


def event(answer: Any) -> Any:
    """Give what a subscription to a reply was told."""
    return answer["data"]["sendMessage"]


def is_event(name: str) -> Callable[[Any], bool]:
    def is_it(answer: Any) -> bool:
        return event(answer)["__typename"] == name

    return is_it


async def titles(reader: Reader) -> list[str]:
    """Run the example History, and give the titles of the sessions."""
    await reader.run("History")
    sessions = (await reader.shows(has_data))["data"]["sessions"]
    return [edge["node"]["title"] for edge in sessions["edges"]]


async def test_it_asks_no_other_server_for_anything(ann: Reader, server: Server):
    await ann.run("Stream")
    await ann.shows(is_event("ReplyEnded"))
    elsewhere = [
        url
        for url in ann.requests
        if not url.startswith((server.url, f"ws://127.0.0.1:{server.port}"))
    ]
    assert (elsewhere, ann.problems) == ([], [])


async def test_ask_is_answered_from_the_documents(ann: Reader, tmp_path: Path):
    await ann.run("Ask")
    answered = (await ann.shows(has_data))["data"]["sendMessage"]
    await ann.picture(tmp_path / "ask.png")
    assert answered["reply"]["status"] == "COMPLETE"
    assert answered["reply"]["citations"][0]["marker"] == 1


async def test_a_reply_is_watched_as_it_is_written(
    ann: Reader, openai: OpenAIServer, tmp_path: Path
):
    more = asyncio.Event()
    openai.script(says("You say how much", " you have,", more, " and get the rest."))
    await ann.run("Stream")
    await ann.shows(lambda answer: event(answer).get("text") == " you have,")
    await ann.picture(tmp_path / "being-written.png")
    assert not any(map(is_event("ReplyEnded"), ann.shown))

    more.set()
    ended = await ann.shows(is_event("ReplyEnded"))
    await ann.picture(tmp_path / "written.png")
    assert event(ended)["reply"]["content"] == "You say how much you have, and get the rest."
    assert event(ann.shown[0])["__typename"] == "ReplyStarted"


async def test_history_holds_what_was_said(ann: Reader, tmp_path: Path):
    await ann.run("Stream")
    await ann.shows(is_event("ReplyEnded"))
    assert await titles(ann) == ["How do I resume a reply?"]
    await ann.picture(tmp_path / "history.png")


async def test_documents_are_parleys_own(ann: Reader, tmp_path: Path):
    await ann.run("Documents")
    documents = (await ann.shows(has_data))["data"]["documents"]
    await ann.picture(tmp_path / "documents.png")
    assert "Architecture" in {edge["node"]["title"] for edge in documents["edges"]}


async def test_two_people_do_not_see_each_others_history(open_graphiql: Open, tmp_path: Path):
    ann, ben = await open_graphiql(tmp_path / "ann"), await open_graphiql(tmp_path / "ben")
    await ann.run("Ask")
    await ann.shows(has_data)
    assert await titles(ben) == []


async def test_a_reload_keeps_who_one_is(ann: Reader):
    await ann.run("Ask")
    await ann.shows(has_data)
    key = json.loads(await ann.read("headers"))["X-Session-ID"]
    await ann.reload()
    assert json.loads(await ann.read("headers")) == {"X-Session-ID": key}
    assert await titles(ann) == ["What happens when a client goes away?"]


async def test_another_day_one_is_still_the_same(open_graphiql: Open, tmp_path: Path):
    today = await open_graphiql(tmp_path / "ann")
    await today.run("Ask")
    await today.shows(has_data)
    await today.close()
    tomorrow = await open_graphiql(tmp_path / "ann")
    assert await titles(tomorrow) == ["What happens when a client goes away?"]


async def test_a_token_typed_under_headers_is_who_subscribes(
    ann: Reader, server: Server, shared_issuer: Issuer
):
    token = shared_issuer.token("ann")
    await ann.write("headers", json.dumps({"Authorization": f"Bearer {token}"}))
    await ann.run("Stream")
    await ann.shows(is_event("ReplyEnded"))
    signed_in = await Person(server.http, token=token).ask(
        "{ sessions { edges { node { title } } } }"
    )
    assert [edge["node"]["title"] for edge in signed_in["sessions"]["edges"]] == await titles(ann)
    assert await titles(ann) == ["How do I resume a reply?"]


async def test_a_token_typed_under_headers_is_not_kept(ann: Reader):
    await ann.write("headers", '{"Authorization": "Bearer secret"}')
    await ann.run("Documents")
    await ann.shows(lambda answer: "errors" in answer)
    await ann.reload()
    assert "secret" not in json.dumps(await ann.stored())


async def test_headers_are_kept_by_those_who_say_so(ann: Reader):
    await ann.click("Open settings dialog")
    await ann.click("On")
    await ann.press("Escape")
    await ann.write("headers", '{"Authorization": "Bearer mine"}')
    await ann.until_stored("Bearer mine")
    await ann.reload()
    assert json.loads(await ann.read("headers")) == {"Authorization": "Bearer mine"}


async def test_its_dialogs_and_searches_keep_to_the_policy(ann: Reader, tmp_path: Path):
    await ann.click("Open settings dialog")
    await ann.sees(".graphiql-dialog")
    await ann.press("Escape")
    await ann.press("Control+f", into="operation")
    await ann.sees(".CodeMirror-dialog")
    await ann.press("Escape")
    await ann.press("Alt+g", into="operation")
    await ann.sees(".CodeMirror-dialog")
    await ann.picture(tmp_path / "jump.png")
    await ann.press("Escape")
    await ann.press("Control+End", "{", "Control+Space", into="operation")
    await ann.sees(".CodeMirror-hints")
    await ann.picture(tmp_path / "hints.png")
    await ann.press("Escape")
    await ann.click("Show Documentation Explorer")
    await ann.follow_link("Query")
    await ann.picture(tmp_path / "documentation.png")
    assert ann.problems == []


async def test_a_script_that_was_put_into_the_page_does_not_run(ann: Reader):
    assert not await ann.inject_script()
    assert "Content Security Policy" in ann.problems.pop()
