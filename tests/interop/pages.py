"""Pages that run an example, each in a process of its own.

    frontend = Frontend(command, folder)
    page = await frontend.open()
    asked = page.call("ask", {"sessionId": id, …})
    await asked.shows("The first words")
    await page.close()
    page = await frontend.open()  # reloaded: what it kept is in its storage
    await page.call("open", id).result()

A page in JavaScript is `clients/page.mjs`, a program in Python `clients/page.py`.
"""

import asyncio
import json
import os
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path
from typing import Any

PATIENCE_SECONDS = 30.0
"Far longer than anything takes on a busy machine: who waits this long waits for a bug."
LINE_BYTES = 16 * 1024 * 1024


class Refused(Exception):
    """A function of the example threw; the message is its error's."""


class Call:
    """A function of the example at work, and what it has shown so far."""

    def __init__(self) -> None:
        self.shown: list[str] = []
        self._outcome: dict[str, Any] | None = None
        self._changed = asyncio.Event()

    @property
    def text(self) -> str:
        """What the page shows now."""
        return self.shown[-1] if self.shown else ""

    async def shows(self, text: str) -> None:
        """Wait until the page shows exactly this."""
        while self.text != text:
            assert self._outcome is None, (self._outcome, self.text)
            await self._change(f"{text!r:.200} was never shown, but {self.text!r:.200}")

    async def first(self) -> str:
        """Wait until the page shows anything, and give the first that it did."""
        while not self.shown:
            assert self._outcome is None, self._outcome
            await self._change("nothing was ever shown")
        return self.shown[0]

    async def result(self) -> Any:
        """Wait for the end, and give what the function gave."""
        while self._outcome is None:
            await self._change(f"it never ended, and shows {self.text!r:.200}")
        if "failed" in self._outcome:
            raise Refused(self._outcome["failed"])
        return self._outcome["result"]

    async def _change(self, otherwise: str) -> None:
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._changed.wait()
        except TimeoutError:
            raise AssertionError(otherwise) from None
        self._changed.clear()

    def take(self, event: dict[str, Any]) -> None:
        if "shown" in event:
            self.shown.append(event["shown"])
        else:
            self._outcome = self._outcome or event
        self._changed.set()


class Page:
    """A process that runs an example."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._calls: dict[int, Call] = {}
        self._reading = asyncio.create_task(self._read())

    def call(self, function: str, *args: Any) -> Call:
        """Call one of the example's functions; where that shows text, the call has it."""
        number = len(self._calls)
        call = self._calls[number] = Call()
        order = {"id": number, "call": function, "args": args}
        assert self._process.stdin
        self._process.stdin.write(json.dumps(order).encode() + b"\n")
        return call

    async def _read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            event = json.loads(line)
            self._calls[event.pop("id")].take(event)
        for call in self._calls.values():
            call.take({"failed": "the page is closed"})

    async def close(self) -> None:
        """Close it as a browser does: its connections break, and nobody says farewell."""
        with suppress(ProcessLookupError):
            self._process.kill()
        await self._process.wait()
        await self._reading


class Frontend:
    """Opens pages for one visitor, whose key the first of them makes if it is not given."""

    def __init__(self, command: list[str], folder: Path, key: str | None = None) -> None:
        self._command = command
        self._storage = folder / "storage.json"
        self._storage.write_text(json.dumps({} if key is None else {"parleyKey": key}))
        self._console = folder / "console"
        self._pages: list[Page] = []

    @property
    def key(self) -> str:
        return json.loads(self._storage.read_text())["parleyKey"]

    def console(self) -> str:
        """Give what all pages wrote to their consoles."""
        return self._console.read_text()

    async def open(self) -> Page:
        with self._console.open("ab") as console:
            process = await asyncio.create_subprocess_exec(
                *self._command,
                str(self._storage),
                stdin=PIPE,
                stdout=PIPE,
                stderr=console,
                limit=LINE_BYTES,
                env={"PATH": os.environ["PATH"]},
            )
        page = Page(process)
        self._pages.append(page)
        return page

    async def close(self) -> None:
        for page in self._pages:
            await page.close()
