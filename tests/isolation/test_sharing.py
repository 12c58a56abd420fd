"""What is found without a name: lists, searches, the agent; and what is shared for a while."""

from typing import Any
from uuid import uuid4

import pytest

from graphql_api.settings import Settings
from tests.isolation.operations import OPERATIONS
from tests.isolation.scenes import WORD, Hers, make_hers
from tests.operations import add_text, search
from tests.people import Parley, Person

ADMIN_KEY = str(uuid4())
MAKE_PRIVATE = """mutation ($id: ID!) { updateDocument(input: {id: $id, visibility: PRIVATE}) {
  ... on UpdateDocumentSuccess { document { id } } } }"""
SEE = """query ($id: ID!) {
  document(id: $id) { title }
  node(id: $id) { id }
  documents { totalCount }
  searchDocuments(query: "harbour") { title }
  sessions { edges { node { lastMessage { citations { documentId document { id } } } } } }
}"""
ASK = """mutation ($input: SendMessageInput!) {
  sendMessage(input: $input) { __typename ... on SendMessageSuccess { reply { id status } } } }"""
FOLLOW = """subscription ($id: ID!) { reply(messageId: $id) {
  ... on ReplySearched { citations { documentId document { id } } }
  ... on ReplyEnded { reply { citations { documentId document { id } } } } } }"""
PROGRESS = "subscription ($id: ID!) { documentProgress(documentId: $id) { title } }"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"admin_subjects": frozenset({ADMIN_KEY})})


@pytest.fixture
async def hers(alice: Person, parley: Parley) -> Hers:
    return await make_hers(alice, parley)


@pytest.fixture
def admin(parley: Parley) -> Person:
    return Person(parley.http, ADMIN_KEY)


@pytest.fixture
async def shared(admin: Person, parley: Parley) -> str:
    added = await add_text(admin, "# Harbour\n\nThe harbour closes at nine.", visibility="SHARED")
    await parley.documents_read()
    return added["document"]["id"]


# --- without a name -------------------------------------------------------------------


async def test_a_strangers_lists_are_empty(hers: Hers, bob: Person):
    answer = await bob.ask(
        """query ($word: String!) {
          viewer { createdAt auditLog { totalCount edges { cursor } } }
          sessions { totalCount edges { cursor } }
          documents { totalCount edges { cursor } }
          ready: documents(status: READY) { totalCount }
          searchDocuments(query: $word, limit: 50) { documentId }
        }""",
        word=WORD,
    )
    assert answer == {
        "viewer": {"createdAt": None, "auditLog": {"totalCount": 0, "edges": []}},
        "sessions": {"totalCount": 0, "edges": []},
        "documents": {"totalCount": 0, "edges": []},
        "ready": {"totalCount": 0},
        "searchDocuments": [],
    }


async def test_a_strangers_lists_are_empty_over_rest(hers: Hers, bob: Person):
    async def got(path: str) -> Any:
        return (await bob.http.get(path, headers=bob.headers)).json()

    assert (await got("/sessions"))["sessions"] == []
    assert (await got("/documents"))["documents"] == []
    assert (await got("/documents?status=READY"))["documents"] == []
    assert (await got("/chat/history"))["messages"] == []


async def test_the_agent_finds_nothing_of_a_strangers(hers: Hers, bob: Person):
    answer = await bob.text(
        """mutation ($content: String!) { sendMessage(input: {content: $content}) {
          ... on SendMessageSuccess { reply { status searches citations { snippet } content } }
        } }""",
        content=f"Where is {WORD} kept?",
    )
    assert '"COMPLETE"' in answer
    assert "cellar" not in answer


async def test_a_strangers_bytes_are_another_document(hers: Hers, bob: Person, parley: Parley):
    added = await add_text(bob, f"The {WORD} is kept in the cellar.")
    assert added["document"]["checksum"] == hers.id("checksum")
    assert added["document"]["id"] != hers.id("document")
    # What has been read already would tell that somebody has it.
    assert added["document"]["status"] == "PENDING"
    await parley.documents_read()
    found = await search(bob, WORD)
    assert [each["documentId"] for each in found] == [added["document"]["id"]]
    again = await add_text(bob, f"The {WORD} is kept in the cellar.")
    assert again["document"]["id"] == added["document"]["id"]


# --- a document that was shared -------------------------------------------------------


async def test_a_document_that_is_private_again_is_gone_for_others(
    admin: Person, bob: Person, shared: str
):
    about = {"content": "When does the harbour close?", "documentIds": [shared]}
    reply = (await bob.ask(ASK, input=about))["sendMessage"]["reply"]
    assert reply["status"] == "COMPLETE"
    seen = await bob.ask(SEE, id=shared)
    assert (seen["document"], seen["node"]) == ({"title": "Harbour"}, {"id": shared})
    assert seen["searchDocuments"] == [{"title": "Harbour"}]
    [last] = seen["sessions"]["edges"]
    cited = {"documentId": shared, "document": {"id": shared}}
    assert last["node"]["lastMessage"]["citations"] == [cited]
    told = await bob.text(FOLLOW, id=reply["id"])
    assert told.count(f'"document":{{"id":"{shared}"}}') == 2

    await admin.ask(MAKE_PRIVATE, id=shared)
    seen = await bob.ask(SEE, id=shared)
    assert (seen["document"], seen["node"], seen["documents"]["totalCount"]) == (None, None, 0)
    assert seen["searchDocuments"] == []
    [last] = seen["sessions"]["edges"]
    cited = {"documentId": shared, "document": None}
    assert last["node"]["lastMessage"]["citations"] == [cited]
    told = await bob.text(FOLLOW, id=reply["id"])
    assert told.count('"document":') == told.count('"document":null') == 2
    assert '"NOT_FOUND"' in await bob.text(PROGRESS, id=shared)
    assert (await bob.ask(ASK, input=about))["sendMessage"] == {"__typename": "NotFound"}
    assert (await admin.ask(SEE, id=shared))["searchDocuments"] == [{"title": "Harbour"}]


async def test_the_agent_cites_nothing_that_is_private_again(
    admin: Person, bob: Person, shared: str
):
    await admin.ask(MAKE_PRIVATE, id=shared)
    answer = await bob.text(
        """mutation { sendMessage(input: {content: "When does the harbour close?"}) {
          ... on SendMessageSuccess { reply { status content citations { documentId } } } } }"""
    )
    assert '"COMPLETE"' in answer
    assert "nine" not in answer
    assert shared not in answer


async def test_a_shared_document_can_not_be_changed_by_its_readers(bob: Person, shared: str):
    for operation in ("updateDocument", "deleteDocument"):
        answer = await bob.text(OPERATIONS[f"Mutation.{operation}.input.id"].text, id=shared)
        assert '"NotFound"' in answer
    assert (await bob.ask(SEE, id=shared))["document"] == {"title": "Harbour"}
