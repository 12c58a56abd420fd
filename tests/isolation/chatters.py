"""People who chat all at once, each about a word of their own, and who often hang up.

They all call their conversations and messages by the same ids and names, add documents about
the same things, and ask for ids that any of them has seen.
"""

import asyncio
import json
import re
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from random import Random
from typing import Any, NamedTuple
from urllib.parse import quote
from uuid import NAMESPACE_URL, UUID, uuid4, uuid5

from websockets.asyncio.client import connect
from websockets.typing import Subprotocol

from db.viewer import Viewer
from graphql_api.auth import anonymous_viewer
from tests.isolation.operations import EVENT, LISTED, MESSAGE, NODE, SESSION
from tests.streaming.wire import EVENT_STREAM

HANGING_UP = 0.3
"The share of requests whose connection is closed before the answer is there."
DEADLINE_SECONDS = 120.0
"""For one answer. How long it takes says how busy the machine is; without an end of it, a request
that hangs would hang the test."""
SESSIONS = [str(uuid5(NAMESPACE_URL, f"session {number}")) for number in range(6)]
MESSAGES = [str(uuid5(NAMESPACE_URL, f"message {number}")) for number in range(100)]
NAMES = ["notes", "reader/42", "harbour"]
TOPICS = ["harbour", "lighthouse", "ferry"]
WORD = re.compile(r"word[0-9a-f]{12}")
ID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

SEND = f"""($input: SendMessageInput!) {{ sendMessage(input: $input) {{ __typename
  ... on UserError {{ message }} ... on ReplyInProgress {{ reply {MESSAGE} }}
  ... on SendMessageSuccess {{ session {SESSION} userMessage {MESSAGE} reply {MESSAGE} }} }} }}"""
STREAM = f"subscription ($input: SendMessageInput!) {{ sendMessage(input: $input) {EVENT} }}"
FOLLOW = f"subscription ($id: ID!) {{ reply(messageId: $id) {EVENT} }}"
LIST = f"""{{
  sessions {{ totalCount edges {{ node {SESSION} }} }}
  documents {{ totalCount edges {{ node {{ id title checksum }} }} }}
  viewer {{ auditLog {{ totalCount edges {{ node {{ entityId detail }} }} }} }}
}}"""
HISTORY = f"""query ($id: ID!) {{
  messages(sessionId: $id, last: 20) {{ totalCount edges {{ node {MESSAGE} }} }}
  message(id: $id) {{ id content }} node(id: $id) {NODE}
}}"""
SEARCH = """query ($text: String!) {
  searchDocuments(query: $text, limit: 20) { documentId title snippet } }"""
SAME_BYTES = f"query ($checksum: String!) {{ documents(checksum: $checksum) {LISTED} }}"
ADD = """mutation ($input: AddDocumentInput!) { addDocument(input: $input) {
  ... on AddDocumentSuccess { document { id title } } ... on UserError { message } } }"""


def _change(name: str, field: str) -> str:
    return (
        f"mutation ($id: ID!) {{ {name}(input: {{{field}: $id}})"
        " { __typename ... on UserError { message } } }"
    )


CHANGES = [
    _change("deleteSession", "id"),
    _change("clearHistory", "sessionId"),
    _change("deleteMessage", "id"),
    _change("deleteDocument", "id"),
    _change("stopReply", "messageId"),
]


class Asked(NamedTuple):
    """A request as it goes over the wire; `kind` is what is asked for, to be counted by."""

    kind: str
    method: str
    target: str
    body: bytes = b""
    accept: str = "application/json"


def _graphql(kind: str, query: str, accept: str = "application/json", **variables: Any) -> Asked:
    body = json.dumps({"query": query, "variables": variables}).encode()
    return Asked(kind, "POST", "/graphql", body, accept)


def _is_whole(answer: str) -> bool:
    """Tell whether an answer has come to its end, as its head says."""
    head, _, body = answer.partition("\r\n\r\n")
    if head.startswith("HTTP/1.1 204"):
        return not body
    length = re.search(r"^content-length: (\d+)", head, re.IGNORECASE | re.MULTILINE)
    return len(body.encode()) == int(length[1]) if length else body.endswith("\r\n0\r\n\r\n")


@dataclass
class Crowd:
    """All of them together: what they have seen, and how it went."""

    port: int
    seen: deque[str] = field(default_factory=lambda: deque([str(uuid4())], maxlen=500))
    answered: Counter[str] = field(default_factory=Counter[str])
    hung_up: Counter[str] = field(default_factory=Counter[str])
    telling: int = 0
    "How many answers had something of their asker's in them."
    seconds: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def asked(self) -> int:
        return self.answered.total() + self.hung_up.total()


class Chatter:
    """One of them."""

    def __init__(self, crowd: Crowd, random: Random) -> None:
        self.key = str(UUID(int=random.getrandbits(128), version=4))
        self.viewer: Viewer = anonymous_viewer(self.key)
        self.word = f"word{random.getrandbits(48):012x}"
        self._crowd = crowd
        self._random = random
        self._messages = 0

    async def chat(self, requests: int) -> None:
        """Ask one thing after the other. Fails where an answer says what is not theirs."""
        await self._ask(self._adding())
        for _ in range(requests - 1):
            asked = self._random.choices(*_MIX)[0](self)
            behind = self._crowd.hung_up.total() < HANGING_UP * self._crowd.asked
            if self._random.random() < (0.8 if behind else 0.1):
                # Within the time that it takes, at any stage of it.
                usual = self._crowd.seconds.get(asked.kind, 0.02)
                await self._hang_up_on(asked, self._random.uniform(0, usual))
            else:
                await self._ask(asked)

    async def _ask(self, asked: Asked) -> None:
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.timeout(DEADLINE_SECONDS):
            answer = await (
                self._over_socket(asked) if asked.method == "WS" else self._over_http(asked)
            )
        took = loop.time() - began
        self._crowd.seconds[asked.kind] = (self._crowd.seconds.get(asked.kind, took) + took) / 2
        self._crowd.answered[asked.kind] += 1
        assert '"INTERNAL"' not in answer, f"{asked}: {answer}"
        foreign = self.foreign(answer)
        assert not foreign, f"{asked} by {self.word} was told of {foreign}: {answer}"
        self._crowd.telling += self.word in answer
        body = answer.partition("\r\n\r\n")[2] or answer
        ids = sorted(set(ID.findall(body)))
        self._crowd.seen += self._random.sample(ids, min(len(ids), 3))

    def foreign(self, text: str) -> set[str]:
        """Give the words of others that stand in a text."""
        return set(WORD.findall(text)) - {self.word}

    async def _hang_up_on(self, asked: Asked, after: float) -> None:
        asking = asyncio.create_task(self._ask(asked))
        try:
            await asyncio.wait({asking}, timeout=after)
        finally:
            asking.cancel()
        await asyncio.wait({asking})
        if asking.cancelled():
            self._crowd.hung_up[asked.kind] += 1
        else:
            asking.result()

    async def _over_http(self, asked: Asked) -> str:
        """Give the whole answer as it came, head and all. Whoever is cancelled just vanishes."""
        head = [
            f"{asked.method} {asked.target} HTTP/1.1",
            "Host: parley",
            "Connection: close",
            f"X-Session-ID: {self.key}",
            f"Accept: {asked.accept}",
            "Content-Type: application/json",
            f"Content-Length: {len(asked.body)}",
        ]
        reader, writer = await asyncio.open_connection("127.0.0.1", self._crowd.port)
        try:
            writer.write("\r\n".join([*head, "", ""]).encode() + asked.body)
            answer = (await reader.read()).decode()
        finally:
            writer.transport.abort()
        assert re.match(r"HTTP/1.1 [234]", answer), f"{asked}: {answer}"
        assert _is_whole(answer), f"{asked}: {answer}"
        return answer

    async def _over_socket(self, asked: Asked) -> str:
        """Give all messages of an operation."""
        messages: list[str] = []
        url, spoken = f"ws://127.0.0.1:{self._crowd.port}/graphql", "graphql-transport-ws"
        async with connect(
            url, subprotocols=[Subprotocol(spoken)], proxy=None, open_timeout=None
        ) as socket:
            try:
                first = {"type": "connection_init", "payload": {"sessionId": self.key}}
                await socket.send(json.dumps(first))
                payload = json.loads(asked.body)
                await socket.send(json.dumps({"type": "subscribe", "id": "1", "payload": payload}))
                kind = ""
                while kind not in ("complete", "error"):
                    messages.append(str(await socket.recv()))
                    kind = json.loads(messages[-1])["type"]
            finally:
                socket.transport.abort()
        return "\n".join(messages)

    # --- what they ask for ---

    def _message(self) -> dict[str, Any]:
        """Give a message to send: a new one, or the last one again."""
        self._messages += self._random.random() < 0.9
        random = Random(f"{self.key} {self._messages}")
        topic = random.choice(TOPICS)
        return {
            "messageId": MESSAGES[self._messages % len(MESSAGES)],
            "content": f"What of the {topic}, and of {self.word}?",
            "sessionId": random.choice(SESSIONS),
            "chapter": random.choice([None, self.word]),
            "ifBusy": random.choice(["REJECT", "INTERRUPT"]),
        }

    def _anything(self) -> str:
        """Name something: what they all have one of, or what anybody has seen."""
        own = [*SESSIONS, *MESSAGES[: self._messages + 1]]
        return self._random.choice([*own, *self._random.choices(self._crowd.seen, k=len(own))])

    def _adding(self) -> Asked:
        text = f"# {self._random.choice(TOPICS)} {self.word}\n\nThe harbour has a lighthouse and a"
        source = {"text": f"{text} ferry, says {self.word}. {self._random.randrange(5)}"}
        return _graphql("add", ADD, input={"source": source})

    def _listing(self) -> Asked:
        return _graphql("list", LIST)

    def _reading(self) -> Asked:
        return _graphql("read", HISTORY, id=self._anything())

    def _searching(self) -> Asked:
        return _graphql("search", SEARCH, text=self._random.choice(TOPICS))

    def _sending(self) -> Asked:
        return _graphql("send", f"mutation {SEND}", input=self._message())

    def _streaming(self) -> Asked:
        return _graphql("stream", STREAM, EVENT_STREAM, input=self._message())

    def _streaming_on_socket(self) -> Asked:
        return _graphql("socket", STREAM, input=self._message())._replace(method="WS")

    def _following(self) -> Asked:
        return _graphql("follow", FOLLOW, EVENT_STREAM, id=self._anything())

    def _changing(self) -> Asked:
        return _graphql("change", self._random.choice(CHANGES), id=self._anything())

    def _chatting(self) -> Asked:
        body: dict[str, Any] = {"message": f"What of the harbour, and of {self.word}?"}
        body |= self._random.choice([{}, {"session_id": self._random.choice(NAMES)}])
        body["if_busy"] = self._random.choice(["REJECT", "INTERRUPT"])
        url, accept = self._random.choice([("/chat", "*/*"), ("/chat/agent", EVENT_STREAM)])
        return Asked("chat", "POST", url, json.dumps(body).encode(), accept)

    def _asking_rest(self) -> Asked:
        name = quote(self._random.choice([*NAMES, self._anything()]))
        target = self._random.choice(
            [
                *("/sessions", "/documents", "/chat/history"),
                *(f"/sessions/{name}", f"/chat/history?session_id={name}"),
            ]
        )
        return Asked("rest", "GET", target)

    def _deleting_by_rest(self) -> Asked:
        name = quote(self._random.choice([*NAMES, self._anything()]))
        target = self._random.choice([f"/sessions/{name}", f"/chat/history?session_id={name}"])
        return Asked("delete", "DELETE", target)


_WEIGHTS: dict[Callable[[Chatter], Asked], int] = {
    Chatter._listing: 15,
    Chatter._reading: 18,
    Chatter._searching: 10,
    Chatter._asking_rest: 18,
    Chatter._sending: 8,
    Chatter._streaming: 8,
    Chatter._streaming_on_socket: 2,
    Chatter._chatting: 6,
    Chatter._following: 5,
    Chatter._changing: 5,
    Chatter._deleting_by_rest: 2,
    Chatter._adding: 3,
}
_MIX = (list(_WEIGHTS), list(_WEIGHTS.values()))
