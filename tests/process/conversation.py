"""What the tests of processes ask for, and what they compare before and after."""

from typing import Any

from tests.people import Person

SEND = """
mutation ($input: SendMessageInput!) {
  sendMessage(input: $input) {
    __typename
    ... on SendMessageSuccess {
      session { id messageCount }
      userMessage { id }
      reply { id content status citations { marker documentId document { visibility } } }
    }
    ... on UserError { message }
  }
}
"""
EVERYTHING = """
{
  sessions { edges { node {
    id title messageCount updatedAt
    messages { edges { node {
      id role status content createdAt searches
      citations { marker documentId title snippet }
    } } }
  } } }
  documents(first: 100) { edges { node {
    id title originalFilename status visibility checksum chunkCount updatedAt
  } } }
}
"""
SEARCH = "query ($text: String!) { searchDocuments(query: $text) { documentId title snippet } }"
ADD_TEXT = """
mutation ($text: String!) {
  addDocument(input: { source: { text: $text } }) {
    ... on AddDocumentSuccess { document { id } }
    ... on UserError { message }
  }
}
"""
DOCUMENT = "query ($id: ID!) { document(id: $id) { status chunkCount error } }"
HISTORY = """
query ($id: ID!) {
  session(id: $id) { activeReply { id } }
  messages(sessionId: $id) { edges { node { role status content error { code } } } }
}
"""


async def send(person: Person, content: str, **more: object) -> Any:
    return (await person.ask(SEND, input={"content": content, **more}))["sendMessage"]


async def search(person: Person, query: str) -> list[str]:
    """Give the titles of what is found."""
    return [hit["title"] for hit in (await person.ask(SEARCH, text=query))["searchDocuments"]]


async def documents(person: Person) -> dict[str, Any]:
    """Give what a person may read, by the files' names."""
    edges = (await person.ask(EVERYTHING))["documents"]["edges"]
    return {edge["node"]["originalFilename"]: edge["node"] for edge in edges}


async def last_message(person: Person, session_id: str) -> Any:
    """Give a session's last message; null: there is no such session yet."""
    found = (await person.ask(HISTORY, id=session_id))["messages"]
    return found and found["edges"][-1]["node"]
