"""Two people may call different things by the same ids and names: each meets their own alone."""

from collections.abc import Callable
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest

from db.models import MessageStatus
from tests.factories import EXPIRED, LEASE, make_message, make_session
from tests.isolation.answers import sent
from tests.isolation.operations import EVENT, NODE, SESSION
from tests.isolation.scenes import rows_without
from tests.operations import SEND, STOP, add_text, send
from tests.people import Parley, Person

SESSION_ID, MESSAGE_ID, REPLY_ID = (str(uuid4()) for _ in range(3))
NAME, IDEMPOTENCY_KEY, CHAPTER = "notes", "first", "One"
HER_WORD, HIS_WORD = "quicksilver", "vermilion"

READS = {
    "session": f"query ($id: ID!) {{ session(id: $id) {SESSION} }}",
    "node of a session": f"query ($id: ID!) {{ node(id: $id) {NODE} }}",
    "messages": """query ($id: ID!) { messages(sessionId: $id) {
      totalCount edges { node { content replyTo { content } session { title } } } } }""",
    "sessions": f"{{ sessions {{ totalCount edges {{ node {SESSION} }} }} }}",
    "message": """query ($message: ID!) { message(id: $message) {
      content session { title messageCount lastMessage { content } } } }""",
    "node of a message": f"query ($message: ID!) {{ node(id: $message) {NODE} }}",
    "reply": f"subscription ($message: ID!) {{ reply(messageId: $message) {EVENT} }}",
}
WRITES = {
    "updateSession": 'id: $id, title: "Another"',
    "clearHistory": "sessionId: $id",
    "deleteMessage": "id: $message",
    "deleteSession": "id: $id",
}
ROUTES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "read a session": ("GET", f"/sessions/{NAME}", {}),
    "read sessions": ("GET", "/sessions", {}),
    "read a history": ("GET", f"/chat/history?session_id={NAME}", {}),
    "rename": ("PATCH", f"/sessions/{NAME}", {"json": {"title": "Another"}}),
    "forget": ("DELETE", f"/chat/history?session_id={NAME}", {}),
    "delete": ("DELETE", f"/sessions/{NAME}", {}),
}


def question(word: str) -> dict[str, Any]:
    ids = {"sessionId": SESSION_ID, "messageId": MESSAGE_ID}
    return {"content": f"What of {word}?", "chapter": CHAPTER, **ids}


async def chat(person: Person, word: str) -> Any:
    body = {"message": f"What of {word}?", "session_id": NAME}
    headers = {"Idempotency-Key": IDEMPOTENCY_KEY}
    return await sent(person, "POST", "/chat", json=body, headers=headers)


@pytest.fixture(autouse=True)
async def _twins(alice: Person, bob: Person, parley: Parley) -> None:  # pyright: ignore[reportUnusedFunction]
    """Both have said as much, under the same ids and names, hers first."""
    for person, word in ((alice, HER_WORD), (bob, HIS_WORD)):
        await add_text(person, f"The {word} is kept in the cellar.")
        await parley.documents_read()
        assert (await send(person, **question(word)))["__typename"] == "SendMessageSuccess"
        assert (await chat(person, word)).status == 200


def check_his(answer: str) -> None:
    assert HER_WORD not in answer
    assert HIS_WORD in answer


@pytest.mark.parametrize("read", READS)
async def test_each_reads_their_own(read: str, bob: Person):
    check_his(await bob.text(READS[read], id=SESSION_ID, message=MESSAGE_ID))


async def test_counts_are_of_ones_own(bob: Person):
    answer = await bob.ask(
        """query ($id: ID!, $chapter: String!) { session(id: $id) {
          messageCount messages { totalCount } ofChapter: messages(chapter: $chapter) { totalCount }
        } }""",
        id=SESSION_ID,
        chapter=CHAPTER,
    )
    counted = {"totalCount": 2}
    assert answer["session"] == {"messageCount": 2, "messages": counted, "ofChapter": counted}


async def test_sending_again_replays_ones_own_reply(bob: Person):
    check_his(await bob.text(SEND, input=question(HIS_WORD)))
    check_his((await chat(bob, HIS_WORD)).body)


async def test_stopping_names_ones_own_reply(bob: Person):
    check_his(await bob.text(STOP, id=MESSAGE_ID))


@pytest.mark.parametrize("name", WRITES)
async def test_a_change_is_of_ones_own(name: str, bob: Person, parley: Parley):
    hers = await rows_without(parley.database, [bob.viewer])
    his = await rows_without(parley.database, [])
    declared = "$message: ID!" if "$message" in WRITES[name] else "$id: ID!"
    answer = await bob.text(
        f"mutation ({declared}) {{ {name}(input: {{{WRITES[name]}}}) {{ __typename }} }}",
        id=SESSION_ID,
        message=MESSAGE_ID,
    )
    assert f"{name[0].upper()}{name[1:]}Success" in answer
    assert await rows_without(parley.database, [bob.viewer]) == hers
    assert not set(his) <= set(await rows_without(parley.database, []))


@pytest.mark.parametrize("name", ROUTES)
async def test_a_route_leads_to_ones_own(name: str, bob: Person, parley: Parley):
    hers = await rows_without(parley.database, [bob.viewer])
    method, url, more = ROUTES[name]
    answer = await sent(bob, method, url, **more)
    assert answer.status < 300
    assert HER_WORD not in answer.body
    assert await rows_without(parley.database, [bob.viewer]) == hers


async def test_a_message_goes_into_ones_own_session(bob: Person, parley: Parley):
    hers = await rows_without(parley.database, [bob.viewer])
    for into in (SESSION_ID, NAME):
        body = {"message": f"And what else of {HIS_WORD}?", "session_id": into}
        check_his((await sent(bob, "POST", "/chat", json=body)).body)
    assert await rows_without(parley.database, [bob.viewer]) == hers


# --- replies that are being written ---------------------------------------------------


@pytest.fixture
async def writing(
    alice: Person, bob: Person, parley: Parley, monkeypatch: pytest.MonkeyPatch
) -> Callable[[timedelta, timedelta], Any]:
    """Give each a reply of the same id, in a session of the same id, that no process writes."""
    monkeypatch.setattr("resolvers.replies.FOREIGN_STOP_SECONDS", 0.1)
    session = uuid4()

    async def make(her_lease: timedelta, his_lease: timedelta) -> str:
        for person, word, lease in ((alice, HER_WORD, her_lease), (bob, HIS_WORD, his_lease)):
            place: dict[str, Any] = {"owner": person.viewer, "session": session}
            await make_session(parley.database, owner=person.viewer, id=session)
            asked = await make_message(parley.database, **place, content=word)
            await make_message(
                parley.database,
                **place,
                id=UUID(REPLY_ID),
                content=word,
                reply_to=asked,
                status=MessageStatus.STREAMING,
                lease=lease,
            )
        return str(session)

    return make


async def test_the_active_reply_is_ones_own(
    writing: Callable[[timedelta, timedelta], Any], alice: Person, bob: Person
):
    session = await writing(LEASE, EXPIRED)
    active = f"query ($id: ID!) {{ session(id: $id) {SESSION} }}"
    assert (await bob.ask(active, id=session))["session"]["activeReply"] is None
    assert (await alice.ask(active, id=session))["session"]["activeReply"]["content"] == HER_WORD


async def test_stopping_leaves_anothers_reply_going(
    writing: Callable[[timedelta, timedelta], Any], bob: Person, parley: Parley
):
    await writing(LEASE, LEASE)
    hers = await rows_without(parley.database, [bob.viewer])
    check_his(await bob.text(STOP, id=REPLY_ID))
    assert await rows_without(parley.database, [bob.viewer]) == hers


async def test_settling_leaves_anothers_reply_as_it_is(
    writing: Callable[[timedelta, timedelta], Any], bob: Person, parley: Parley
):
    session = await writing(EXPIRED, EXPIRED)
    hers = await rows_without(parley.database, [bob.viewer])
    check_his(await bob.text(READS["reply"], message=REPLY_ID))
    await send(bob, "And then?", sessionId=session)
    assert await rows_without(parley.database, [bob.viewer]) == hers
