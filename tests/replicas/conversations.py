"""What is asked over plain HTTP, beside the pages that listen."""

import time
from typing import Any

from tests.people import Person
from tests.replicas.browsers import MESSAGE

SEND = f"""mutation ($input: SendMessageInput!) {{
  sendMessage(input: $input) {{
    __typename
    ... on SendMessageSuccess {{
      session {{ id messageCount }} userMessage {MESSAGE} reply {MESSAGE}
    }}
    ... on UserError {{ message }}
  }}
}}"""
STOP = f"""mutation ($id: ID!) {{
  stopReply(input: {{messageId: $id}}) {{
    __typename
    ... on StopReplySuccess {{ reply {MESSAGE} }}
    ... on UserError {{ message }}
  }}
}}"""
SESSION = f"""query ($id: ID!) {{
  session(id: $id) {{ messageCount activeReply {{ id }} messages {{ edges {{ node {MESSAGE} }} }} }}
}}"""


async def send(person: Person, message: dict[str, Any]) -> Any:
    return (await person.ask(SEND, input=message))["sendMessage"]


async def stop(person: Person, reply_id: str) -> Any:
    return (await person.ask(STOP, id=reply_id))["stopReply"]


async def messages(person: Person, session_id: str) -> list[Any] | None:
    """Give a session's messages, in order; null: it is not there."""
    session = (await person.ask(SESSION, id=session_id))["session"]
    return session and [edge["node"] for edge in session["messages"]["edges"]]


async def reads(person: Person, session_id: str, since: float) -> list[tuple[float, str]]:
    """Read a session's last message again and again until it is no longer STREAMING.

    Gives each status, with how many seconds after `since` (monotonic) it was read.
    """
    seen: list[tuple[float, str]] = []
    while not seen or seen[-1][1] == "STREAMING":
        found = await messages(person, session_id)
        assert found
        seen.append((time.monotonic() - since, found[-1]["status"]))
        assert seen[-1][0] < 30, "it reads as STREAMING for ever"
    return seen
