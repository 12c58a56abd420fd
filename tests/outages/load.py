"""People who send messages and look them up, again and again, whatever happens.

load = Load(server)
async with load.going():
    ...
load.tell("In the storm", capsys)
await load.check(database)
"""

import asyncio
import random
import statistics
import sys
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any
from uuid import uuid4

import httpx2
import pytest

from db.engine import Database
from tests.outages.faults import Wire
from tests.outages.invariants import broken_in
from tests.people import Person
from tests.process.processes import Server
from tests.streaming.scripted import sql

PEOPLE = 4
PAUSE_SECONDS = 0.05
"Between two requests of one person: the load is to be steady, not all that a machine can bear."
LEAVE_SECONDS = 30.0
"How long the last messages have to be taken once all is well again."
LOOK_UP = "query ($id: ID!) { message(id: $id) { id content replyTo { id } } }"
SEND = """mutation ($input: SendMessageInput!) { sendMessage(input: $input) {
  __typename ... on SendMessageSuccess { userMessage { id } reply { id status content } }
} }"""


class Load:
    """What they did, and how it went. A request is put off (UNAVAILABLE), or answered."""

    def __init__(self, server: Server, wire: Wire) -> None:
        self._server = server
        self._wire = wire
        self._is_over = False
        self.asked = 0
        self.put_off = 0
        self.answered: dict[str, str] = {}
        "Messages that were taken, and the ids of their replies."
        self.seconds: list[float] = []
        "How long each look-up took that was not put off."
        self._attempts, self._established = wire.attempts, wire.established

    @asynccontextmanager
    async def going(self) -> AsyncGenerator[None]:
        """Let them go on while the block runs, and end what they have begun after it."""
        people = [asyncio.create_task(self._live()) for _ in range(PEOPLE)]
        try:
            yield
            self._is_over = True
            async with asyncio.timeout(LEAVE_SECONDS):
                await asyncio.gather(*people)
        finally:
            for person in people:
                person.cancel()
            await asyncio.gather(*people, return_exceptions=True)

    async def _live(self) -> None:
        person, session = self._server.person(), str(uuid4())
        while not self._is_over:
            input = {"sessionId": session, "messageId": str(uuid4()), "content": "Who are you?"}
            sent = (await self._insist(person, SEND, input=input))["sendMessage"]
            assert sent["__typename"] == "SendMessageSuccess", sent
            assert sent["userMessage"]["id"] == input["messageId"]
            self.answered[input["messageId"]] = sent["reply"]["id"]
            for _ in range(3):
                if answer := await self._ask(person, LOOK_UP, self.seconds, id=sent["reply"]["id"]):
                    assert answer["message"]["replyTo"]["id"] == input["messageId"]

    async def _insist(self, person: Person, query: str, **variables: Any) -> Any:
        """Ask again, in the same words, until there is an answer."""
        while (answer := await self._ask(person, query, **variables)) is None:  # noqa: ASYNC110
            await asyncio.sleep(random.uniform(0.02, 0.2))  # what a client does
        return answer

    async def _ask(
        self, person: Person, query: str, seconds: list[float] | None = None, **variables: Any
    ) -> Any:
        """Give the answer, and note how long it took; null: it was put off. All else fails."""
        await asyncio.sleep(PAUSE_SECONDS)
        self.asked += 1
        began = time.perf_counter()
        answer: httpx2.Response = await person.http.post(
            "/graphql", json={"query": query, "variables": variables}, headers=person.headers
        )
        found = answer.json()
        if answer.status_code == 503:
            assert [error["extensions"]["code"] for error in found["errors"]] == ["UNAVAILABLE"]
            self.put_off += 1
            return None
        assert answer.status_code == 200, answer.text
        assert "errors" not in found, found
        if seconds is not None:
            seconds.append(time.perf_counter() - began)
        return found["data"]

    # What came of it

    @property
    def connection_success(self) -> float:
        """The share of connections to Postgres that came about."""
        attempts = self._wire.attempts - self._attempts
        return (self._wire.established - self._established) / attempts if attempts else 1.0

    @property
    def error_rate(self) -> float:
        return self.put_off / self.asked

    @property
    def p95_seconds(self) -> float:
        return statistics.quantiles(self.seconds, n=20)[-1]

    def tell(self, when: str, capsys: pytest.CaptureFixture[str]) -> None:
        """Print the numbers for whoever watches the tests."""
        with capsys.disabled():
            # Of a run in many processes, only this is shown.
            print(f"\n{when}: {self}", file=sys.stderr)  # noqa: T201

    def __str__(self) -> str:
        return (
            f"{len(self.answered)} messages, {self.asked} requests, {self.put_off} put off"
            f" ({self.error_rate:.2%}); connections that came about: {self.connection_success:.2%};"
            f" look-ups: p50 {statistics.median(self.seconds) * 1000:.0f} ms,"
            f" p95 {self.p95_seconds * 1000:.0f} ms, most {max(self.seconds) * 1000:.0f} ms"
        )

    async def check(self, database: Database) -> None:
        """See that each message that was taken is there once, with its one reply, and no other."""
        found = await sql(
            database,
            "SELECT q.id, r.id FROM chat_messages q JOIN chat_messages r"
            " ON r.user_id = q.user_id AND r.reply_to = q.id WHERE q.role = 'USER'",
        )
        pairs = [(str(question), str(reply)) for question, reply in found]
        assert sorted(pairs) == sorted(self.answered.items())
        assert await broken_in(database, at_rest=True) == {}
