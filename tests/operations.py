"""What people do in many tests, as GraphQL operations, and how to wait for what comes of it."""

import asyncio
from collections.abc import Callable
from typing import Any

from tests.people import Parley, Person

PATIENCE_SECONDS = 10.0
"Far longer than anything takes on a busy machine: who waits this long waits for a bug."

MESSAGE = """{
  id content role status model chapter selectedText searches
  error { code message retryable } replyTo { id }
  citations { marker title snippet documentId document { id } }
}"""
ERROR = "... on UserError { message }"

SEND = f"""mutation ($input: SendMessageInput!) {{
  sendMessage(input: $input) {{
    __typename {ERROR}
    ... on SendMessageSuccess {{
      session {{ id title messageCount }} userMessage {MESSAGE} reply {MESSAGE}
    }}
    ... on InvalidInput {{ field }}
    ... on ReplyInProgress {{ reply {MESSAGE} }}
  }}
}}"""
STOP = f"""mutation ($id: ID!) {{
  stopReply(input: {{messageId: $id}}) {{
    __typename {ERROR} ... on StopReplySuccess {{ reply {MESSAGE} }}
  }}
}}"""
SESSION = f"""query ($id: ID!) {{
  session(id: $id) {{
    title messageCount activeReply {MESSAGE} messages {{ totalCount edges {{ node {MESSAGE} }} }}
  }}
}}"""
DELETE_SESSION = f"""mutation ($id: ID!) {{
  deleteSession(input: {{id: $id}}) {{
    __typename {ERROR} ... on DeleteSessionSuccess {{ deletedId }}
  }}
}}"""
DELETE_MESSAGE = f"""mutation ($id: ID!) {{
  deleteMessage(input: {{id: $id}}) {{
    __typename {ERROR} ... on DeleteMessageSuccess {{ deletedId }}
  }}
}}"""
DOCUMENT = """{
  id title sourceUrl originalFilename mimeType checksum byteSize visibility status error chunkCount
}"""
ADD_DOCUMENT = f"""mutation ($input: AddDocumentInput!) {{
  addDocument(input: $input) {{
    __typename {ERROR}
    ... on AddDocumentSuccess {{ document {DOCUMENT} }}
    ... on InvalidInput {{ field }}
  }}
}}"""
GET_DOCUMENT = f"query ($id: ID!) {{ document(id: $id) {DOCUMENT} }}"
SEARCH = """query ($text: String!, $limit: Int! = 5) {
  found: searchDocuments(query: $text, limit: $limit) {
    marker documentId title snippet score document { id }
  }
}"""


async def send(person: Person, content: str = "What is Parley?", **more: Any) -> Any:
    """Send a message; gives the result once the reply has ended."""
    return (await person.ask(SEND, input={"content": content, **more}))["sendMessage"]


async def stop(person: Person, id: str) -> Any:
    return (await person.ask(STOP, id=id))["stopReply"]


async def session(person: Person, id: str) -> Any:
    return (await person.ask(SESSION, id=id))["session"]


async def add_text(person: Person, text: str, **more: Any) -> Any:
    """Add a document; it is read in the background."""
    answer = await person.ask(ADD_DOCUMENT, input={"source": {"text": text}, **more})
    return answer["addDocument"]


async def search(person: Person, text: str) -> Any:
    return (await person.ask(SEARCH, text=text))["found"]


async def being_written(parley: Parley, text: str = "") -> None:
    """Wait until this process writes a reply that says this so far."""

    def is_there() -> bool:
        runs = parley.services.running._runs.values()
        return any(run.stream.text_from(0) == text for run in runs)

    await until(is_there)


async def until(is_so: Callable[[], bool]) -> None:
    """Wait for what has no event to wait for."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        while not is_so():  # noqa: ASYNC110 - the product has no event for the tests' sake
            await asyncio.sleep(0.005)
