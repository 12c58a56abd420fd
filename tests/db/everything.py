"""Everything that the API does, each thing once: the fields of the root types, the routes of REST.

    parley = open_parley(settings.model_copy(update=needed(model, issuer)), database)
    await do_everything(parley, model, issuer)

It is held against the schema and the routes: what is added to them has to be done here too.
"""

import asyncio
import json
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
from graphql import FieldNode, OperationDefinitionNode, build_schema, parse
from sqlalchemy import text

from graphql_api.schema import printed_schema
from tests.graphql_api.rest.frontends import Frontend
from tests.issuer import Issuer
from tests.openai_server import OpenAIServer, says
from tests.operations import DOCUMENT, MESSAGE, add_text, send, stop
from tests.people import Parley, Person
from tests.process.processes import until

LISTED = "{ totalCount edges { node { id } } pageInfo { hasNextPage endCursor } }"
LOOK = f"""query ($session: ID!, $reply: ID!, $document: ID!, $checksum: String!) {{
  viewer {{ id name email isAnonymous createdAt auditLog {{
    totalCount edges {{ node {{ id action entity userId entityId detail requestId createdAt }} }}
  }} }}
  node(id: $reply) {{ __typename id }}
  session(id: $session) {{
    id title messageCount lastMessage {{ id }} activeReply {{ id }} messages {LISTED}
  }}
  sessions {LISTED}
  messages(sessionId: $session, first: 10) {{ totalCount edges {{ node {MESSAGE} }} }}
  message(id: $reply) {MESSAGE}
  document(id: $document) {DOCUMENT}
  documents(checksum: $checksum) {LISTED}
  searchDocuments(query: "lease") {{ documentId snippet document {DOCUMENT} }}
}}"""
EVENT = f"""{{
  __typename ... on ReplyDelta {{ offset text }} ... on ReplyEnded {{ reply {MESSAGE} }}
  ... on ReplyRejected {{ error {{ message }} }}
}}"""
SEND = f"""subscription ($input: SendMessageInput!) {{ sendMessage(input: $input) {EVENT} }}"""
FOLLOW = f"""subscription ($id: ID!) {{ reply(messageId: $id) {EVENT} }}"""
TICKED = text("SELECT id FROM chat_messages WHERE status = 'STREAMING' AND content <> ''")
PROGRESS = "subscription ($id: ID!) { documentProgress(documentId: $id) { id status } }"


def needed(model: OpenAIServer, issuer: Issuer) -> dict[str, Any]:
    """Give the settings without which not everything can be done."""
    return {
        **issuer.settings,
        "allow_anonymous": True,
        "openai_base_url": model.url,
        "openai_model": "m",
    }


async def do_everything(parley: Parley, model: OpenAIServer, issuer: Issuer) -> None:
    """Do what people do, and see that it comes out as it always does."""
    async with _asked(parley.http) as done:
        visitor = parley.person()
        document = await _documents(parley, visitor)
        await _turns(parley, model, visitor, document)
        await _sessions(visitor)
        await _rest(visitor)
        await _a_claim(visitor, parley.bearer(issuer.token(str(uuid4()), name="Ann")))
    assert done == await _promised(parley)


async def _documents(parley: Parley, person: Person) -> Any:
    """Add two documents, delete one, and give the other."""
    lease, other = [
        (await add_text(person, words))["document"]
        for words in ("A lease is a promise with an end.", "A lock is a promise without.")
    ]
    await parley.documents_read()
    told = await person.text(PROGRESS, id=lease["id"])
    assert '"READY"' in told, told
    changed = await _change(
        person, "updateDocument", f"document {DOCUMENT}", id=lease["id"], title="Leases"
    )
    assert changed["document"]["title"] == "Leases"
    deleted = await _change(person, "deleteDocument", "deletedId", id=other["id"])
    assert deleted["deletedId"] == other["id"]
    return lease


async def _turns(parley: Parley, model: OpenAIServer, person: Person, document: Any) -> None:
    """Ask, read along, look at it from all sides, and stop a reply that is being written."""
    sent = await send(person, "What is a lease?", chapter="1", documentIds=[document["id"]])
    assert sent["reply"]["status"] == "COMPLETE"
    assert sent["reply"]["citations"], sent["reply"]
    session = sent["session"]["id"]
    message = {"content": "And a lock?", "messageId": str(uuid4()), "sessionId": session}
    told = await person.text(SEND, input=message)
    assert '"COMPLETE"' in told, told
    assert await person.text(FOLLOW, id=message["messageId"])

    gate = asyncio.Event()
    model.script(says("Half", gate, " and half."))
    writing = asyncio.create_task(send(person, "Go on.", sessionId=session))
    # By a tick, which writes every reply that takes its time.
    [[reply]] = await until(lambda: parley.database.rows(TICKED, {}), bool)
    assert (await stop(person, str(reply)))["reply"]["status"] == "STOPPED"
    assert (await writing)["reply"]["content"] == "Half"

    seen = await person.ask(
        LOOK,
        session=session,
        reply=str(reply),
        document=document["id"],
        checksum=document["checksum"],
    )
    assert seen["session"]["messageCount"] == seen["messages"]["totalCount"] == 6
    assert seen["message"]["status"] == "STOPPED"
    assert seen["viewer"]["auditLog"]["totalCount"] == 8
    for found in (seen["document"], seen["searchDocuments"][0]["document"]):
        assert found["id"] == document["id"]
    assert seen["documents"]["totalCount"] == seen["sessions"]["totalCount"] == 1
    deleted = await _change(person, "deleteMessage", "deletedId", id=str(reply))
    assert deleted["deletedId"] == str(reply)
    cleared = await _change(person, "clearHistory", "deletedCount", sessionId=session)
    assert cleared["deletedCount"] == 5


async def _sessions(person: Person) -> None:
    made = await _change(person, "createSession", "session { id title }", title="Leases")
    id = made["session"]["id"]
    changed = await _change(person, "updateSession", "session { title }", id=id, title="Locks")
    assert changed["session"]["title"] == "Locks"
    assert (await _change(person, "deleteSession", "deletedId", id=id))["deletedId"] == id
    changed = await _change(person, "updateProfile", "user { name }", name="Ann")
    assert changed["user"]["name"] == "Ann"


async def _rest(person: Person) -> None:
    frontend = Frontend(person)
    await frontend.ask("POST", "/sessions", 201, json={"session_id": "rest"})
    assert (await frontend.chat(session_id="rest"))["persisted"]
    asked = {"message": "And a lock?", "session_id": "rest"}
    await frontend.ask("POST", "/chat/agent", json=asked)
    assert len((await frontend.get("/chat/history", session_id="rest"))["messages"]) == 4
    await frontend.ask("PATCH", "/sessions/rest", json={"title": "Rest"})
    assert (await frontend.get("/sessions/rest"))["title"] == "Rest"
    await frontend.get("/sessions")
    await frontend.ask("POST", "/documents", 201, json={"text": "A lock is no lease."})
    await frontend.get("/documents")
    await frontend.ask("DELETE", "/chat/history", params={"session_id": "rest"})
    await frontend.ask("DELETE", "/sessions/rest", 204)
    await frontend.get("/health")
    await frontend.get("/db-health")


async def _a_claim(visitor: Person, user: Person) -> None:
    """Let a user take over what the visitor has."""
    sent = await send(visitor, "What is a lease?")
    claimed = await _change(
        user, "claimAnonymousUser", "sessionCount user { id }", anonymousKey=visitor.key
    )
    assert claimed["sessionCount"] == 2
    again = await send(user, "And a lock?", sessionId=sent["session"]["id"])
    assert again["session"]["messageCount"] == 4


async def _change(person: Person, name: str, wanted: str, /, **input: Any) -> Any:
    type_ = f"{name[0].upper()}{name[1:]}"
    mutation = (
        f"mutation ($input: {type_}Input!) {{ {name}(input: $input) {{ __typename"
        f" ... on UserError {{ message }} ... on {type_}Success {{ {wanted} }} }} }}"
    )
    changed = (await person.ask(mutation, input=input))[name]
    assert changed["__typename"] == f"{type_}Success", changed
    return changed


# --- what there is to do --------------------------------------------------------------


@asynccontextmanager
async def _asked(http: httpx2.AsyncClient) -> AsyncGenerator[set[str]]:
    """Give the set of what is asked for: `Query.session`, `GET /sessions/{}`."""
    asked: set[str] = set()

    async def note(request: httpx2.Request) -> None:
        if request.url.path != "/graphql":
            path = re.sub("(?<=^/sessions/).+", "{}", request.url.path)
            asked.add(f"{request.method} {path}")
            return
        for operation in parse(json.loads(request.content)["query"]).definitions:
            assert isinstance(operation, OperationDefinitionNode)
            root = operation.operation.value.capitalize()
            fields = operation.selection_set.selections
            asked.update(
                f"{root}.{each.name.value}" for each in fields if isinstance(each, FieldNode)
            )

    hooks = http.event_hooks
    http.event_hooks = {"request": [note]}
    try:
        yield asked
    finally:
        http.event_hooks = hooks


async def _promised(parley: Parley) -> set[str]:
    """Give all that can be asked for, in the same words."""
    schema = build_schema(printed_schema())
    roots = [schema.query_type, schema.mutation_type, schema.subscription_type]
    fields = {f"{root.name}.{field}" for root in roots if root for field in root.fields}
    paths = (await parley.http.get("/openapi.json")).json()["paths"]
    return fields | {
        f"{method.upper()} {re.sub('{.+}', '{}', path)}"
        for path, methods in paths.items()
        for method in methods
    }
