"""Claiming: what an anonymous visitor made becomes the signed-in user's, whole and once."""

import asyncio
from typing import Any
from uuid import uuid4

from sqlalchemy import text

from db.models import IngestionStatus
from tests.factories import citation, make_document, make_session, make_turn
from tests.issuer import Issuer
from tests.operations import add_text, search, send, session
from tests.people import Parley, Person
from tests.statements import recorded

CLAIM = """mutation ($key: String!) {
  claimAnonymousUser(input: {anonymousKey: $key}) {
    __typename ... on UserError { message } ... on InvalidInput { field }
    ... on ClaimAnonymousUserSuccess { sessionCount user { id isAnonymous } }
  }
}"""
HISTORY = """{
  sessions { totalCount edges { node {
    id title messageCount messages { totalCount edges { node {
      id role status content citations { documentId } replyTo { id }
    } } }
  } } }
  documents { totalCount edges { node { id title } } }
}"""
FOLLOW = """subscription ($id: ID!) { reply(messageId: $id) {
  __typename ... on ReplyDelta { text }
  ... on ReplyEnded { reply { status content } }
  ... on ReplyRejected { error { __typename } }
} }"""
AUDIT = """{ viewer { auditLog { totalCount edges { node {
  id action entity entityId detail requestId
} } } } }"""


async def claim(person: Person, key: str) -> Any:
    return (await person.ask(CLAIM, key=key))["claimAnonymousUser"]


async def test_everything_becomes_the_users(parley: Parley, visitor: Person, ann: Person):
    await add_text(visitor, "The quicksilver is kept in the cellar.")
    await parley.documents_read()
    await send(visitor, "Where is the quicksilver?")
    await send(visitor, "And the mercury?")
    before = await visitor.ask(HISTORY)
    assert before["sessions"]["totalCount"] == 2

    claimed = await claim(ann, visitor.key)
    assert claimed["sessionCount"] == 2
    assert claimed["user"]["isAnonymous"] is False
    assert await ann.ask(HISTORY) == before
    after = await visitor.ask(HISTORY)
    assert (after["sessions"]["totalCount"], after["documents"]["totalCount"]) == (0, 0)


async def test_private_passages_are_found_by_the_user_and_no_more_by_the_visitor(
    parley: Parley, visitor: Person, ann: Person
):
    await add_text(visitor, "The quicksilver is kept in the cellar.")
    await parley.documents_read()
    assert len(await search(visitor, "quicksilver")) == 1
    await claim(ann, visitor.key)
    assert await search(visitor, "quicksilver") == []
    assert len(await search(ann, "quicksilver")) == 1


async def test_claiming_again_changes_nothing(visitor: Person, ann: Person):
    await send(visitor)
    first = await claim(ann, visitor.key)
    before = await ann.ask(HISTORY)
    assert await claim(ann, visitor.key) == first
    assert await ann.ask(HISTORY) == before


async def test_what_a_visitor_makes_after_a_claim_can_be_claimed_too(visitor: Person, ann: Person):
    await send(visitor)
    await claim(ann, visitor.key)
    await send(visitor)
    assert (await claim(ann, visitor.key))["sessionCount"] == 2
    assert (await ann.ask(HISTORY))["sessions"]["totalCount"] == 2


async def test_what_someone_else_has_claimed_is_not_there(
    parley: Parley, issuer: Issuer, visitor: Person, ann: Person
):
    await send(visitor)
    await claim(ann, visitor.key)
    await send(visitor)
    bob = parley.bearer(issuer.token("bob"))
    of_anns = await claim(bob, visitor.key)
    assert of_anns["__typename"] == "NotFound"
    assert of_anns == await claim(bob, str(uuid4()))
    assert (await bob.ask(HISTORY))["sessions"]["totalCount"] == 0


async def test_two_who_claim_at_once_do_not_share(parley: Parley, issuer: Issuer, visitor: Person):
    for _ in range(3):
        await send(visitor)
    people = [parley.bearer(issuer.token(str(number))) for number in range(8)]
    claims = await asyncio.gather(*(claim(person, visitor.key) for person in people))
    names = sorted(claimed["__typename"] for claimed in claims)
    assert names == ["ClaimAnonymousUserSuccess", *["NotFound"] * 7]
    counts = [(await person.ask(HISTORY))["sessions"]["totalCount"] for person in people]
    assert sorted(counts) == [0] * 7 + [3]


async def test_one_who_claims_twice_at_once_gets_it_once(visitor: Person, ann: Person):
    await send(visitor)
    claims = await asyncio.gather(*(claim(ann, visitor.key) for _ in range(8)))
    assert [each["sessionCount"] for each in claims] == [1] * 8
    assert (await ann.ask(HISTORY))["sessions"]["totalCount"] == 1


async def test_a_key_that_is_none_is_invalid(ann: Person):
    refused = await claim(ann, "not a key")
    assert (refused["__typename"], refused["field"]) == ("InvalidInput", "anonymousKey")


async def test_the_key_may_be_in_capitals(visitor: Person, ann: Person):
    await send(visitor)
    assert (await claim(ann, visitor.key.upper()))["sessionCount"] == 1


async def test_an_anonymous_visitor_claims_nobody(parley: Parley, visitor: Person):
    await send(visitor)
    assert (await claim(parley.person(), visitor.key))["__typename"] == "InvalidInput"
    assert (await visitor.ask(HISTORY))["sessions"]["totalCount"] == 1


# --- what collides --------------------------------------------------------------------


async def test_what_has_the_same_id_gets_another(parley: Parley, visitor: Person, ann: Person):
    session_id, message_id = str(uuid4()), str(uuid4())
    for person, content in ((visitor, "Visitor's"), (ann, "Ann's")):
        await send(person, content, sessionId=session_id, messageId=message_id)
    assert (await claim(ann, visitor.key))["sessionCount"] == 1
    sessions = [edge["node"] for edge in (await ann.ask(HISTORY))["sessions"]["edges"]]
    assert {each["title"]: each["id"] == session_id for each in sessions} == {
        "Ann's": True,
        "Visitor's": False,
    }
    for each in sessions:
        question, reply = [edge["node"] for edge in each["messages"]["edges"]]
        assert question["content"] == each["title"]
        assert reply["replyTo"] == {"id": question["id"]}
        assert (question["id"] == message_id) is (each["title"] == "Ann's")


async def test_a_key_of_both_gets_a_suffix(parley: Parley, visitor: Person, ann: Person):
    async def keys() -> list[str]:
        rows = await parley.database.rows(
            text("SELECT title, session_id FROM chat_sessions ORDER BY session_id"), {}
        )
        return [f"{title} {key}" for title, key in rows]

    for person, key in ((ann, "k"), (ann, "k-2"), (visitor, "k"), (visitor, "k-3"), (visitor, "l")):
        whose = "Ann" if person is ann else "Visitor"
        made = await person.ask(
            """mutation ($title: String!) { createSession(input: {title: $title}) {
              ... on CreateSessionSuccess { session { id } } } }""",
            title=whose,
        )
        id = made["createSession"]["session"]["id"]
        set_key = text("UPDATE chat_sessions SET session_id = :key WHERE id = :id")
        await parley.database.rows(set_key, {"key": key, "id": id})
    await claim(ann, visitor.key)
    assert await keys() == ["Ann k", "Ann k-2", "Visitor k-3", "Visitor k-4", "Visitor l"]


async def test_of_two_equal_documents_the_users_own_stays(
    parley: Parley, visitor: Person, ann: Person
):
    content = "The quicksilver is kept in the cellar."
    for person, title in ((visitor, "Visitor's"), (ann, "Ann's")):
        await add_text(person, content, title=title)
    await parley.documents_read()
    await claim(ann, visitor.key)
    [edge] = (await ann.ask(HISTORY))["documents"]["edges"]
    assert edge["node"]["title"] == "Ann's"
    assert [found["title"] for found in await search(ann, "quicksilver")] == ["Ann's"]


async def test_of_two_equal_documents_the_readable_one_stays(
    parley: Parley, issuer: Issuer, visitor: Person, ann: Person
):
    await ann.ask("""mutation { createSession(input: {}) { __typename } }""")
    user_id = (await ann.ask("{ viewer { id } }"))["viewer"]["id"]
    failed = await make_document(
        parley.database, owner=None, content="Equal.", title="Ann's", status=IngestionStatus.FAILED
    )
    await parley.database.rows(
        text("UPDATE documents SET owner_id = :user WHERE id = :id"),
        {"user": user_id, "id": failed},
    )
    await make_document(parley.database, owner=visitor.viewer, content="Equal.", title="Visitor's")
    await claim(ann, visitor.key)
    [edge] = (await ann.ask(HISTORY))["documents"]["edges"]
    assert edge["node"]["title"] == "Visitor's"


async def test_a_hundred_sessions_move_in_as_many_statements_as_one(
    parley: Parley, issuer: Issuer, ann: Person
):
    counts: list[int] = []
    for number in (1, 100):
        visitor = parley.person()
        for _ in range(number):
            id = await make_session(parley.database, owner=visitor.viewer)
            await make_turn(parley.database, owner=visitor.viewer, session=id)
        with recorded(parley.database) as statements:
            assert (await claim(ann, visitor.key))["sessionCount"] == number
        counts.append(len(statements))
    assert counts[0] == counts[1]


# --- the audit log --------------------------------------------------------------------


async def test_the_claim_is_on_record_and_the_visitors_entries_are_the_users_to_read(
    parley: Parley, visitor: Person, ann: Person
):
    await send(visitor)
    [sent] = (await visitor.ask(AUDIT))["viewer"]["auditLog"]["edges"]
    await claim(ann, visitor.key)
    entries = (await ann.ask(AUDIT))["viewer"]["auditLog"]
    claimed, first = [edge["node"] for edge in entries["edges"]]
    assert entries["totalCount"] == 2
    assert first == sent["node"]
    assert (claimed["action"], claimed["entity"]) == ("CLAIM", "USER")
    assert claimed["entityId"] == str(visitor.viewer.user_id)
    assert claimed["detail"] == {
        "session_count": 1,
        "message_count": 2,
        "document_count": 0,
        "duplicate_count": 0,
    }
    assert claimed["requestId"]


async def test_an_entry_is_found_by_its_id_by_those_who_may_read_it(
    visitor: Person, ann: Person, bob: Person
):
    await send(visitor)
    [sent] = (await visitor.ask(AUDIT))["viewer"]["auditLog"]["edges"]
    await claim(ann, visitor.key)
    node = "query ($id: ID!) { node(id: $id) { __typename id } }"
    found = {"__typename": "AuditEntry", "id": sent["node"]["id"]}
    assert (await ann.ask(node, id=sent["node"]["id"]))["node"] == found
    assert (await bob.ask(node, id=sent["node"]["id"]))["node"] is None


async def test_citations_stay_with_their_replies(parley: Parley, visitor: Person, ann: Person):
    database = parley.database
    document = await make_document(database, owner=visitor.viewer)
    id = await make_session(database, owner=visitor.viewer)
    await make_turn(database, owner=visitor.viewer, session=id, citations=[citation(document)])
    await claim(ann, visitor.key)
    shown = await session(ann, str(id))
    [cited] = shown["messages"]["edges"][1]["node"]["citations"]
    assert cited["document"] == {"id": str(document)}


async def test_citations_point_to_the_document_that_is_kept_of_two_alike(
    parley: Parley, visitor: Person, ann: Person
):
    for person in (ann, visitor):
        await add_text(person, "The quicksilver is kept in the cellar.")
        await parley.documents_read()
    [hers] = (await ann.ask(HISTORY))["documents"]["edges"]
    [gone] = (await visitor.ask(HISTORY))["documents"]["edges"]
    sent = await send(visitor, "quicksilver", documentIds=[gone["node"]["id"]])
    await claim(ann, visitor.key)

    [edge] = (await ann.ask(HISTORY))["sessions"]["edges"]
    shown = await session(ann, edge["node"]["id"])
    [cited] = shown["messages"]["edges"][1]["node"]["citations"]
    assert cited["document"] == {"id": hers["node"]["id"]}
    # What it was asked about is the kept one too: sent again, it is the same message.
    ids = {"messageId": sent["userMessage"]["id"], "documentIds": [hers["node"]["id"]]}
    assert (await send(ann, "quicksilver", **ids))["reply"]["id"] == sent["reply"]["id"]
    [claimed, *_] = (await ann.ask(AUDIT))["viewer"]["auditLog"]["edges"]
    assert claimed["node"]["detail"]["duplicate_count"] == 1
