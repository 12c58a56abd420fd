"""Pages in JavaScript that follow replies with the real clients: graphql-ws and graphql-sse.

    page = await browser.open("ws", a, key)
    await page.send({"messageId": id, "content": "Tell me."})
    await page.has(100)
    await page.drop()
    await page.reconnect("sse", b)
    await page.follow(id)
    assert (await page.ended())["reply"]["content"] == stored

All pages live in one Node process (`clients/browser.mjs`); each has a connection of its own.
What a page has of a reply stays in JavaScript: the offset it resumes at is `content.length`.
"""

import asyncio
import json
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from tests.process.processes import Server

Transport = Literal["ws", "sse"]
Event = dict[str, Any]

CLIENTS = Path(__file__).parent / "clients"
PATIENCE_SECONDS = 20.0
"Far longer than anything takes on a busy machine: who waits this long waits for a bug."
LINE_BYTES = 16 * 1024 * 1024

MESSAGE = "{ id role status content model session { id } error { code retryable } }"
EVENT = f"""{{
  __typename
  ... on ReplyStarted {{ userMessage {MESSAGE} reply {MESSAGE} }}
  ... on ReplySearched {{ query citations {{ marker }} }}
  ... on ReplyDelta {{ offset text }}
  ... on ReplyEnded {{ reply {MESSAGE} }}
  ... on ReplyRejected {{ error {{ __typename message }} }}
}}"""
SEND = f"""subscription ($input: SendMessageInput!, $offset: Int) {{
  sendMessage(input: $input, offset: $offset) {EVENT}
}}"""
REPLY = f"""subscription ($messageId: ID!, $offset: Int) {{
  reply(messageId: $messageId, offset: $offset) {EVENT}
}}"""


class Page:
    """One reader of one reply at a time, and all that happened to it."""

    def __init__(self, browser: "Browser", name: str, key: str) -> None:
        self.key = key
        self.events: list[Event] = []
        self._browser = browser
        self._name = name
        self._seen = 0
        self._changed = asyncio.Event()

    # What it does

    async def reconnect(self, transport: Transport, *servers: Server, retries: int = 0) -> None:
        """Connect anew; what was read is kept. A socket is connected when this returns."""
        urls = [f"ws://127.0.0.1:{server.port}/graphql" for server in servers]
        self._do("open", transport=transport, urls=urls, key=self.key, retries=retries)
        self._forget()
        if transport == "ws":
            await self.event("connected")

    async def send(self, message: dict[str, Any], **more: Any) -> None:
        """Send a message, or join the reply to it, from where the page has read to."""
        await self._subscribe(SEND, {"input": message}, **more)

    async def follow(self, message_id: str, **more: Any) -> None:
        await self._subscribe(REPLY, {"messageId": message_id}, **more)

    async def _subscribe(self, query: str, variables: dict[str, Any], **more: Any) -> None:
        self._forget()
        self._do("subscribe", query=query, variables=variables, **more)

    async def drop(self) -> Event:
        """Break the connection without a farewell. Gives `content` and its `length`."""
        self._do("drop")
        return await self.event("dropped")

    def close(self) -> None:
        self._do("close")

    # What happens to it

    async def event(self, kind: str) -> Event:
        """Wait for the first event of a kind since the page last connected or subscribed."""
        return await self.until(lambda event: event["event"] == kind)

    async def started(self) -> Event:
        return await self.event("started")

    async def ended(self) -> Event:
        """Wait for the reply's end. Gives `reply` as told, and the page's `content`."""
        ended = await self.event("ended")
        assert not self.all("gap"), self.all("gap")
        return ended

    async def has(self, length: int) -> None:
        """Wait until the page has so much of the text."""
        await self.until(lambda event: event["event"] == "delta" and event["length"] >= length)

    @property
    def text(self) -> str:
        """All text that it was ever told."""
        return "".join(event["text"] for event in self.all("delta"))

    def all(self, kind: str) -> list[Event]:
        """Give all events of a kind, since the page was opened."""
        return [event for event in self.events if event["event"] == kind]

    async def until(self, is_it: Callable[[Event], bool]) -> Event:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    changed = self._changed
                    for event in self.events[self._seen :]:
                        if is_it(event):
                            return event
                    await changed.wait()
        except TimeoutError:
            raise AssertionError(f"It never happened; this did: {self.events[-5:]}") from None

    def _forget(self) -> None:
        self._seen = len(self.events)

    def _do(self, does: str, **facts: Any) -> None:
        self._browser.tell({"page": self._name, "does": does, **facts})

    def _take(self, event: Event) -> None:
        self.events.append(event)
        changed, self._changed = self._changed, asyncio.Event()
        changed.set()


class Browser:
    """All pages of a test run."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._pages: dict[str, Page] = {}
        self._open: list[Page] = []

    async def open(
        self, transport: Transport, *servers: Server, key: str, retries: int = 0
    ) -> Page:
        """Open a page on the first of some servers; with `retries` it goes on to the others."""
        name = f"page {len(self._pages)}"
        page = self._pages[name] = Page(self, name, key)
        self._open.append(page)
        await page.reconnect(transport, *servers, retries=retries)
        return page

    def tell(self, command: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            event = json.loads(line)
            self._pages[event.pop("page")]._take(event)

    def close_pages(self) -> None:
        for page in self._open:
            page.close()
        self._open.clear()


@asynccontextmanager
async def opened_browser(node: str) -> AsyncGenerator[Browser]:
    process = await asyncio.create_subprocess_exec(
        node, str(CLIENTS / "browser.mjs"), stdin=PIPE, stdout=PIPE, limit=LINE_BYTES
    )
    browser = Browser(process)
    reading = asyncio.create_task(browser.read())
    try:
        yield browser
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()
        await reading
