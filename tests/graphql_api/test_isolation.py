"""What is Alice's does not exist for Bob: same answers, to the byte, as for ids of nothing."""

import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from graphql import (
    GraphQLInputObjectType,
    GraphQLObjectType,
    GraphQLScalarType,
    build_schema,
    get_named_type,
)
from sqlalchemy import text

from db.engine import Database
from db.models import Base
from graphql_api.schema import printed_schema
from graphql_api.settings import Settings
from tests.factories import (
    citation,
    make_document,
    make_session,
    make_streaming_reply,
    make_turn,
)
from tests.people import Parley, Person

MESSAGE = "{ id content status role chapter citations { documentId title snippet } }"
SESSION = f"{{ id title messageCount lastMessage {MESSAGE} activeReply {MESSAGE} }}"
DOCUMENT = "{ id documentTitle: title checksum ingestion: status visibility }"
NODE = f"""{{
  __typename id ... on ChatSession {SESSION} ... on ChatMessage {MESSAGE}
  ... on Document {DOCUMENT} ... on User {{ name }}
}}"""


def mutation(name: str, input: str, success: str) -> str:
    return (
        f"mutation ($id: ID!) {{ {name}(input: {{{input}}}) {{"
        f" __typename ... on UserError {{ message }}"
        f" ... on {name[0].upper()}{name[1:]}Success {{ {success} }} }} }}"
    )


EVENT = f"""{{
  __typename
  ... on ReplyStarted {{ userMessage {{ session {{ title messageCount }} }} reply {{ status }} }}
  ... on ReplyEnded {{ reply {MESSAGE} }}
  ... on ReplyRejected {{ error {{ __typename message }} }}
}}"""


def sending(input: str) -> str:
    # Without the id of a message of its own a subscription is refused.
    return (
        "subscription ($id: ID!, $message: ID!) {"
        f' sendMessage(input: {{content: "Hello", {input}}}) {EVENT} }}'
    )


OPERATIONS = {
    "Query.node.id": f"query ($id: ID!) {{ node(id: $id) {NODE} }}",
    "Query.session.id": f"query ($id: ID!) {{ session(id: $id) {SESSION} }}",
    "Query.messages.sessionId": (
        "query ($id: ID!) { messages(sessionId: $id) { totalCount edges { node { id } } } }"
    ),
    "Query.message.id": f"query ($id: ID!) {{ message(id: $id) {MESSAGE} }}",
    "Query.document.id": f"query ($id: ID!) {{ document(id: $id) {DOCUMENT} }}",
    "Mutation.createSession.input.id": mutation(
        "createSession", 'id: $id, title: "Mine"', f"session {SESSION}"
    ),
    "Mutation.updateSession.input.id": mutation(
        "updateSession", 'id: $id, title: "Mine"', f"session {SESSION}"
    ),
    "Mutation.sendMessage.input.sessionId": mutation(
        "sendMessage",
        'sessionId: $id, content: "Hello"',
        f"session {SESSION} userMessage {MESSAGE} reply {MESSAGE}",
    ),
    "Mutation.sendMessage.input.messageId": mutation(
        "sendMessage",
        'messageId: $id, content: "Hello"',
        f"session {SESSION} userMessage {MESSAGE} reply {MESSAGE}",
    ),
    "Mutation.sendMessage.input.documentIds": mutation(
        "sendMessage",
        'documentIds: [$id], content: "Hello"',
        f"session {SESSION} userMessage {MESSAGE} reply {MESSAGE}",
    ),
    "Mutation.stopReply.input.messageId": mutation(
        "stopReply", "messageId: $id", f"reply {MESSAGE}"
    ),
    "Mutation.updateDocument.input.id": mutation(
        "updateDocument", 'id: $id, title: "Mine", visibility: PRIVATE', f"document {DOCUMENT}"
    ),
    "Subscription.sendMessage.input.sessionId": sending("messageId: $message, sessionId: $id"),
    "Subscription.sendMessage.input.messageId": sending("messageId: $id").replace(
        ", $message: ID!", ""
    ),
    "Subscription.sendMessage.input.documentIds": sending(
        "messageId: $message, documentIds: [$id]"
    ),
    "Subscription.reply.messageId": (
        f"subscription ($id: ID!) {{ reply(messageId: $id) {EVENT} }}"
    ),
    "Subscription.documentProgress.documentId": (
        f"subscription ($id: ID!) {{ documentProgress(documentId: $id) {DOCUMENT} }}"
    ),
    # Last, so that all of these can be tried one after another.
    "Mutation.deleteMessage.input.id": mutation("deleteMessage", "id: $id", "deletedId"),
    "Mutation.deleteDocument.input.id": mutation("deleteDocument", "id: $id", "deletedId"),
    "Mutation.clearHistory.input.sessionId": mutation(
        "clearHistory", "sessionId: $id", f"deletedCount session {SESSION}"
    ),
    "Mutation.deleteSession.input.id": mutation("deleteSession", "id: $id", "deletedId"),
}
"By each argument that takes an id, an operation that gives it `$id` and asks for all it can."


def ids_taken() -> Generator[str]:
    """Walk the schema for everything that takes an id: arguments, and fields inside of them."""
    schema = build_schema(printed_schema())
    for type_ in schema.type_map.values():
        if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__"):
            for field_name, field in type_.fields.items():
                for name, argument in field.args.items():
                    yield from _ids_within(argument.type, f"{type_.name}.{field_name}.{name}")


def _ids_within(type_: object, path: str) -> Generator[str]:
    named = get_named_type(cast("GraphQLScalarType | GraphQLInputObjectType", type_))
    if isinstance(named, GraphQLInputObjectType):
        for name, field in named.fields.items():
            yield from _ids_within(field.type, f"{path}.{name}")
    elif named.name == "ID":
        yield path


@dataclass(frozen=True)
class Hers:
    """What Alice has: everything that has an id, with a word that is nowhere else."""

    word: str
    ids: dict[str, UUID]

    def is_in(self, answer: str) -> bool:
        return self.word in answer or any(str(id) in answer for id in self.ids.values())


@pytest.fixture
async def hers(alice: Person, parley: Parley) -> Hers:
    database, owner, word = parley.database, alice.viewer, "quicksilver"
    added = await add(alice, f"The {word} is kept in the cellar.")
    await parley.documents_read()
    session = await make_session(database, owner=owner, title=f"About {word}")
    question, reply = await make_turn(
        database,
        owner=owner,
        session=session,
        question=f"Where is the {word}?",
        citations=[citation(UUID(added))],
    )
    writing = await make_streaming_reply(database, owner=owner, session=session, content=word)
    unread = await make_document(database, owner=owner, title=word)
    ids: dict[str, UUID] = {
        "user": owner.user_id,
        "session": session,
        "question": question,
        "reply": reply,
        "reply being written": writing,
        "document": UUID(added),
        "document without an index": unread,
    }
    return Hers(word, ids)


async def add(person: Person, content: str, visibility: str = "PRIVATE") -> str:
    answer = await person.ask(
        """mutation ($input: AddDocumentInput!) {
          addDocument(input: $input) { ... on AddDocumentSuccess { document { id } } }
        }""",
        input={"source": {"text": content}, "visibility": visibility},
    )
    return answer["addDocument"]["document"]["id"]


async def rows_without(database: Database, stranger: Person) -> list[str]:
    """Give all rows of all tables, as text, but those that name the stranger."""
    rows: list[str] = []
    for table in Base.metadata.sorted_tables:
        found = await database.rows(text(f"SELECT CAST(t AS text) FROM {table.name} t"), {})
        rows += sorted(f"{table.name} {row[0]}" for row in found)
    return [row for row in rows if str(stranger.viewer.user_id) not in row]


async def answered(person: Person, operation: str, id: UUID) -> str:
    """Give an operation's answer without its ids.

    Also without the pieces of a reply, which is cut as the moment has it; its end has it whole.
    """
    answer = await person.text(operation, id=str(id), message=str(uuid4()))
    return without_ids(re.sub(r"event: next\ndata: .*ReplyDelta.*\n\n", "", answer))


def without_ids(answer: str) -> str:
    """Put a number for each id, the same for the same, so that only which are equal is left."""
    seen: dict[str, str] = {}
    return re.sub(
        r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}",
        lambda found: seen.setdefault(found[0], f"#{len(seen)}"),
        answer,
    )


def test_every_argument_that_takes_an_id_is_tried():
    # Who adds one puts it into the table, with an operation that shows all it can open.
    assert set(ids_taken()) == OPERATIONS.keys()


@pytest.mark.parametrize("taken", OPERATIONS)
async def test_a_strangers_id_is_answered_like_one_of_nothing(
    taken: str, hers: Hers, bob: Person, parley: Parley
):
    before = await rows_without(parley.database, bob)
    of_nothing = await answered(bob, OPERATIONS[taken], uuid4())
    assert "GRAPHQL_VALIDATION_FAILED" not in of_nothing
    for kind, id in hers.ids.items():
        assert await answered(bob, OPERATIONS[taken], id) == of_nothing, kind
    assert await rows_without(parley.database, bob) == before


async def test_to_its_owner_each_operation_says_something_else(
    hers: Hers, alice: Person, parley: Parley
):
    expired = "UPDATE chat_messages SET lease_until = now() WHERE status = 'STREAMING'"
    await parley.database.rows(text(expired), {})
    for taken, operation in OPERATIONS.items():
        of_nothing = await answered(alice, operation, uuid4())
        of_hers = [await answered(alice, operation, id) for id in hers.ids.values()]
        assert any(answer != of_nothing for answer in of_hers), taken


async def test_two_people_may_use_the_same_ids(hers: Hers, bob: Person):
    ids = {"messageId": str(hers.ids["question"]), "sessionId": str(hers.ids["session"])}
    sent = await bob.ask(
        """mutation ($input: SendMessageInput!) { sendMessage(input: $input) {
          ... on SendMessageSuccess { userMessage { id } session { id messageCount } } } }""",
        input={"content": "Mine", **ids},
    )
    assert sent["sendMessage"] == {
        "userMessage": {"id": ids["messageId"]},
        "session": {"id": ids["sessionId"], "messageCount": 2},
    }


async def test_a_strangers_lists_are_empty(hers: Hers, bob: Person):
    answer = await bob.ask(
        """query ($word: String!) {
          viewer { createdAt }
          sessions { totalCount edges { cursor } }
          documents { totalCount edges { cursor } }
          ready: documents(status: READY) { totalCount }
          searchDocuments(query: $word, limit: 50) { documentId }
        }""",
        word=hers.word,
    )
    assert answer == {
        "viewer": {"createdAt": None},
        "sessions": {"totalCount": 0, "edges": []},
        "documents": {"totalCount": 0, "edges": []},
        "ready": {"totalCount": 0},
        "searchDocuments": [],
    }


async def test_the_agent_finds_nothing_of_a_strangers(hers: Hers, bob: Person):
    answer = await bob.text(
        """mutation ($content: String!) { sendMessage(input: {content: $content}) {
          ... on SendMessageSuccess { reply { status searches citations { snippet } content } }
        } }""",
        content=f"Where is {hers.word} kept?",
    )
    assert '"COMPLETE"' in answer
    assert "cellar" not in answer


async def test_a_strangers_checksum_finds_nothing(hers: Hers, alice: Person, bob: Person):
    find = """query ($checksum: String) {
      documents(checksum: $checksum) { totalCount edges { node { checksum } } } }"""
    [edge, *_] = (await alice.ask(find))["documents"]["edges"]
    assert (await alice.ask(find, **edge["node"]))["documents"]["totalCount"] == 1
    assert (await bob.ask(find, **edge["node"]))["documents"]["totalCount"] == 0


CURSORS = {
    "sessions": "query ($after: String, $before: String) {"
    " sessions(after: $after, before: $before) { edges { cursor node { id } } } }",
    "documents": "query ($after: String, $before: String) {"
    " documents(after: $after, before: $before) { edges { cursor node { id } } } }",
}


@pytest.mark.parametrize("name", CURSORS)
async def test_a_strangers_cursor_leads_to_ones_own(
    name: str, hers: Hers, alice: Person, bob: Person, parley: Parley
):
    for _ in range(2):
        await make_session(parley.database, owner=bob.viewer)
        await make_document(parley.database, owner=bob.viewer)
    [edge, *_] = (await alice.ask(CURSORS[name]))[name]["edges"]
    everything: list[Any] = []
    for direction in ("after", "before"):
        answer = await bob.ask(CURSORS[name], **{direction: edge["cursor"]})
        assert not hers.is_in(str(answer))
        everything += answer[name]["edges"]
    own = (await bob.ask(CURSORS[name]))[name]["edges"]
    assert sorted(map(str, everything)) == sorted(map(str, own))
    assert len(own) == 2


async def test_a_cursor_of_a_strangers_history_leads_to_ones_own(
    hers: Hers, alice: Person, bob: Person, parley: Parley
):
    history = """query ($id: ID!, $after: String) {
      messages(sessionId: $id, after: $after) { edges { cursor node { id content } } } }"""
    session = await make_session(parley.database, owner=bob.viewer)
    _, reply = await make_turn(parley.database, owner=bob.viewer, session=session, reply="Mine")
    [edge, *_] = (await alice.ask(history, id=str(hers.ids["session"])))["messages"]["edges"]
    found = await bob.ask(history, id=str(session), after=edge["cursor"])
    assert [each["node"] for each in found["messages"]["edges"]] == [
        {"id": str(reply), "content": "Mine"}
    ]


# --- a document that was shared -------------------------------------------------------


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_subjects": frozenset({ADMIN_KEY})})


ADMIN_KEY = str(uuid4())


@pytest.fixture
def admin(parley: Parley) -> Person:
    return Person(parley.http, ADMIN_KEY)


SEE = """query ($id: ID!) {
  document(id: $id) { title }
  documents { totalCount }
  searchDocuments(query: "harbour") { title }
  sessions { edges { node { lastMessage { citations { documentId document { id } } } } } }
}"""
ASK = """mutation ($input: SendMessageInput!) {
  sendMessage(input: $input) { __typename ... on SendMessageSuccess { reply { status } } } }"""


async def test_a_document_that_is_private_again_is_gone_for_others(
    admin: Person, bob: Person, parley: Parley
):
    id = await add(admin, "# Harbour\n\nThe harbour closes at nine.", "SHARED")
    await parley.documents_read()
    about = {"content": "When does the harbour close?", "documentIds": [id]}
    assert (await bob.ask(ASK, input=about))["sendMessage"]["reply"] == {"status": "COMPLETE"}
    seen = await bob.ask(SEE, id=id)
    assert seen["document"] == {"title": "Harbour"}
    assert seen["searchDocuments"] == [{"title": "Harbour"}]
    [last] = seen["sessions"]["edges"]
    assert last["node"]["lastMessage"]["citations"] == [{"documentId": id, "document": {"id": id}}]

    await admin.ask(
        """mutation ($id: ID!) { updateDocument(input: {id: $id, visibility: PRIVATE}) {
          ... on UpdateDocumentSuccess { document { id } } } }""",
        id=id,
    )
    seen = await bob.ask(SEE, id=id)
    assert (seen["document"], seen["documents"]["totalCount"]) == (None, 0)
    assert seen["searchDocuments"] == []
    [last] = seen["sessions"]["edges"]
    assert last["node"]["lastMessage"]["citations"] == [{"documentId": id, "document": None}]
    assert (await bob.ask(ASK, input=about))["sendMessage"] == {"__typename": "NotFound"}
    assert (await admin.ask(SEE, id=id))["searchDocuments"] == [{"title": "Harbour"}]


async def test_a_shared_document_can_not_be_changed_by_its_readers(
    admin: Person, bob: Person, parley: Parley
):
    id = await add(admin, "The harbour closes at nine.", "SHARED")
    for operation in ("updateDocument", "deleteDocument"):
        answer = await bob.text(OPERATIONS[f"Mutation.{operation}.input.id"], id=id)
        assert '"NotFound"' in answer
    assert (await bob.ask(SEE, id=id))["document"] == {"title": "The harbour closes at nine."}
