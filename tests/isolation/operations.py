"""By each argument that names something, an operation that tries a name there.

The table is held against the schema: every argument, and every field inside of one, either is
in it, or is a cursor (`test_cursors`), or is one of those that name nothing.
"""

from collections.abc import Generator
from typing import Any, NamedTuple, cast

from graphql import (
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLScalarType,
    build_schema,
    get_named_type,
)

from graphql_api.schema import printed_schema

CURSORS = {"after", "before"}
NAMELESS = {
    *("first", "last", "limit", "offset", "ifBusy", "status", "visibility"),
    *("content", "title", "chapter", "selectedText", "query", "name", "email"),
    *("source.url", "source.text", "source.file"),
}
"Numbers, choices, and what people say. Who adds one here says: it leads to nobody's things."


NOTHING = ""
"As what an operation opens: the key of a visitor opens to whoever has signed in (`test_claims`)."


class Operation(NamedTuple):
    """An operation that takes a name as `$id`, and asks for all it can.

    `opens` is what of Alice's it tells her about, or changes for her. `$message` is for the id
    of a new message, without which a subscription is refused.
    """

    opens: str
    text: str

    @property
    def kind(self) -> str:
        return self.text.partition(" ")[0]


MESSAGE = "{ id content status role chapter citations { documentId title snippet } }"
SESSION = f"""{{
  id title messageCount lastMessage {MESSAGE} activeReply {MESSAGE}
  messages {{ totalCount edges {{ node {MESSAGE} }} }}
}}"""
DOCUMENT = "{ id documentTitle: title checksum ingestion: status visibility }"
NODE = f"""{{
  __typename id ... on ChatSession {SESSION} ... on ChatMessage {MESSAGE}
  ... on Document {DOCUMENT} ... on User {{ name auditLog {{ totalCount }} }}
  ... on AuditEntry {{ entityId detail }}
}}"""
EVENT = f"""{{
  __typename
  ... on ReplyStarted {{ userMessage {{ session {{ title messageCount }} }} reply {{ status }} }}
  ... on ReplyEnded {{ reply {MESSAGE} }}
  ... on ReplyRejected {{ error {{ __typename message }} }}
}}"""
TURN = f"session {SESSION} userMessage {MESSAGE} reply {MESSAGE}"
LISTED = "{ totalCount edges { node { id } } }"


def _query(opens: str, field: str, type: str = "ID") -> Operation:
    return Operation(opens, f"query ($id: {type}!) {{ {field} }}")


def _mutation(opens: str, name: str, input: str, success: str, type: str = "ID") -> Operation:
    succeeded = f"{name[0].upper()}{name[1:]}Success"
    return Operation(
        opens,
        f"mutation ($id: {type}!) {{ {name}(input: {{{input}}}) {{ __typename"
        f" ... on UserError {{ message }} ... on {succeeded} {{ {success} }} }} }}",
    )


def _sending(opens: str, input: str) -> tuple[Operation, Operation]:
    """Send, by mutation and by subscription."""
    mutation = _mutation(opens, "sendMessage", f'content: "Hello", {input}', TURN)
    declared = "$id: ID!"
    if "messageId" not in input:
        declared, input = "$id: ID!, $message: ID!", f"messageId: $message, {input}"
    return mutation, Operation(
        opens,
        f"subscription ({declared}) {{"
        f' sendMessage(input: {{content: "Hello", {input}}}) {EVENT} }}',
    )


_INTO, _INTO_STREAMED = _sending("session", "sessionId: $id")
_AS, _AS_STREAMED = _sending("question", "messageId: $id")
_ABOUT, _ABOUT_STREAMED = _sending("document", "documentIds: [$id]")

OPERATIONS = {
    "Query.node.id": _query("session", f"node(id: $id) {NODE}"),
    "Query.session.id": _query("session", f"session(id: $id) {SESSION}"),
    "Query.messages.sessionId": _query("session", f"messages(sessionId: $id) {LISTED}"),
    "Query.message.id": _query("reply", f"message(id: $id) {MESSAGE}"),
    "Query.document.id": _query("document", f"document(id: $id) {DOCUMENT}"),
    "Query.documents.checksum": _query("checksum", f"documents(checksum: $id) {LISTED}", "String"),
    "Query.documents.sourceUrl": _query("source", f"documents(sourceUrl: $id) {LISTED}", "String"),
    "Mutation.createSession.input.id": _mutation(
        "session", "createSession", 'id: $id, title: "Mine"', f"session {SESSION}"
    ),
    "Mutation.updateSession.input.id": _mutation(
        "session", "updateSession", 'id: $id, title: "Mine"', f"session {SESSION}"
    ),
    "Mutation.sendMessage.input.sessionId": _INTO,
    "Mutation.sendMessage.input.messageId": _AS,
    "Mutation.sendMessage.input.documentIds": _ABOUT,
    "Mutation.stopReply.input.messageId": _mutation(
        "reply being written", "stopReply", "messageId: $id", f"reply {MESSAGE}"
    ),
    "Mutation.updateDocument.input.id": _mutation(
        "document",
        "updateDocument",
        'id: $id, title: "Mine", visibility: PRIVATE',
        f"document {DOCUMENT}",
    ),
    "Mutation.claimAnonymousUser.input.anonymousKey": _mutation(
        NOTHING, "claimAnonymousUser", "anonymousKey: $id", "sessionCount", "String"
    ),
    "Subscription.sendMessage.input.sessionId": _INTO_STREAMED,
    "Subscription.sendMessage.input.messageId": _AS_STREAMED,
    "Subscription.sendMessage.input.documentIds": _ABOUT_STREAMED,
    "Subscription.reply.messageId": Operation(
        "reply", f"subscription ($id: ID!) {{ reply(messageId: $id) {EVENT} }}"
    ),
    "Subscription.documentProgress.documentId": Operation(
        "document", f"subscription ($id: ID!) {{ documentProgress(documentId: $id) {DOCUMENT} }}"
    ),
    # Last, so that all of these can be tried one after another.
    "Mutation.deleteMessage.input.id": _mutation("reply", "deleteMessage", "id: $id", "deletedId"),
    "Mutation.deleteDocument.input.id": _mutation(
        "document", "deleteDocument", "id: $id", "deletedId"
    ),
    "Mutation.clearHistory.input.sessionId": _mutation(
        "session", "clearHistory", "sessionId: $id", f"deletedCount session {SESSION}"
    ),
    "Mutation.deleteSession.input.id": _mutation(
        "session", "deleteSession", "id: $id", "deletedId"
    ),
}


def taken() -> Generator[tuple[str, str]]:
    """Walk the schema for all that a client may give: each path, and the name of its type."""
    for type_ in build_schema(printed_schema()).type_map.values():
        if isinstance(type_, GraphQLObjectType) and not type_.name.startswith("__"):
            for field_name, field in type_.fields.items():
                for name, argument in field.args.items():
                    yield from _within(argument, f"{type_.name}.{field_name}.{name}")


def _within(given: Any, path: str) -> Generator[tuple[str, str]]:
    named = get_named_type(cast("GraphQLScalarType | GraphQLInputObjectType", given.type))
    if isinstance(named, GraphQLInputObjectType):
        for name, field in named.fields.items():
            yield from _within(field, f"{path}.{name}")
    else:
        yield path, named.name


def is_nameless(path: str) -> bool:
    return any(path.endswith(f".{name}") for name in NAMELESS)


def is_cursor(path: str) -> bool:
    return path.rpartition(".")[2] in CURSORS


def kinds_of_nodes() -> set[str]:
    """Give the types that `node` may give."""
    schema = build_schema(printed_schema())
    node = cast("GraphQLInterfaceType", schema.type_map["Node"])
    return {type_.name for type_ in schema.get_implementations(node).objects}
