"""Readers with a Chromium of their own, each with GraphiQL open in it.

    ann = await chromium.open(server, tmp_path / "ann")
    await ann.run("Ask")
    answer = await ann.shows(lambda answer: "data" in answer)
    assert ann.problems == []

All are driven by one Node process (`driver/driver.mjs`, with playwright-core). No browser reaches
anything but this machine: `requests` is all that was asked for, `problems` what the console said.
"""

import asyncio
import json
import shutil
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Literal

from tests.process.processes import Server, until

Editor = Literal["operation", "headers", "answer"]

DRIVER = Path(__file__).parent / "driver"
EXECUTABLE = shutil.which("chromium")
PATIENCE_SECONDS = 30.0
"Far longer than anything takes on a busy machine: who waits this long waits for a bug."
LINE_BYTES = 16 * 1024 * 1024
EDITORS: dict[Editor, str] = {
    "operation": ".graphiql-query-editor .CodeMirror",
    "headers": ".graphiql-editor-tool .graphiql-editor:not(.hidden) .CodeMirror",
    "answer": ".result-window .CodeMirror",
}


class Reader:
    """One profile of a browser, and all that happened in it."""

    def __init__(self, chromium: "Chromium", name: str) -> None:
        self.requests: list[str] = []
        self.problems: list[str] = []
        self.shown: list[Any] = []
        "Every answer that GraphiQL has shown, in order."
        self._chromium = chromium
        self._name = name
        self._answers: deque[asyncio.Future[Any]] = deque()
        self._changed = asyncio.Event()

    async def reload(self) -> None:
        await self.do("reload")

    async def run(self, operation: str) -> None:
        """Press play, and choose an operation. What was shown before is forgotten."""
        self.shown.clear()
        await self.do("run", operation=operation)

    async def click(self, button: str) -> None:
        """Press the button of that name."""
        await self.do("click", button=button)

    async def follow_link(self, text: str) -> None:
        await self.do("link", text=text)

    async def press(self, *keys: str, into: Editor | None = None) -> None:
        """Press keys, one after another; in an editor, where one is named."""
        if into is not None:
            await self.do("focus", editor=EDITORS[into])
        await self.do("press", keys=keys)

    async def sees(self, selector: str) -> None:
        """Wait until something is there to be seen."""
        await self.do("see", selector=selector)

    async def inject_script(self) -> bool:
        """Put a script into the page, as an attacker would, and tell whether it ran."""
        return await self.do("inject")

    async def write(self, editor: Editor, text: str) -> None:
        await self.do("write", editor=EDITORS[editor], text=text)

    async def read(self, editor: Editor) -> str:
        return await self.do("read", editor=EDITORS[editor])

    async def stored(self) -> dict[str, str]:
        """Give what the page keeps in the browser (localStorage)."""
        return await self.do("stored")

    async def until_stored(self, text: str) -> None:
        """Wait until the page keeps something; GraphiQL writes down what is typed after a while."""
        await until(self.stored, lambda stored: text in "".join(stored.values()))

    async def picture(self, path: Path) -> None:
        """Take a screenshot."""
        await self.do("picture", path=str(path))

    async def close(self) -> None:
        await self.do("close")

    async def shows(self, is_it: Callable[[Any], object]) -> Any:
        """Wait until GraphiQL shows, or has shown, an answer that is the one waited for."""
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                while True:
                    changed = self._changed
                    for answer in self.shown:
                        if is_it(answer):
                            return answer
                    await changed.wait()
        except TimeoutError:
            raise AssertionError(f"It never came; this did: {self.shown[-3:]}") from None

    async def do(self, does: str, **facts: Any) -> Any:
        answer = asyncio.get_running_loop().create_future()
        self._answers.append(answer)
        self._chromium.tell({"page": self._name, "does": does, **facts})
        async with asyncio.timeout(2 * PATIENCE_SECONDS):
            return await answer

    def take(self, line: dict[str, Any]) -> None:
        """Note what happened, or give an answer to who waits for it."""
        match line:
            case {"event": "request", "url": url}:
                self.requests.append(url)
            case {"event": "problem", "text": text}:
                self.problems.append(text)
            case {"event": "shown", "text": text}:
                # While it waits for one it shows none.
                if text:
                    self.shown.append(json.loads(text))
                changed, self._changed = self._changed, asyncio.Event()
                changed.set()
            case {"answer": answer}:
                self._answers.popleft().set_result(answer)
            case _:
                self._answers.popleft().set_exception(AssertionError(line["refused"]))


class Chromium:
    """All browsers of a test run."""

    def __init__(self, process: Process, executable: str) -> None:
        self._process = process
        self._executable = executable
        self._readers: dict[str, Reader] = {}

    async def open(self, server: Server, profile: Path) -> Reader:
        """Open GraphiQL with what a profile remembers; a new folder: nothing."""
        name = f"reader {len(self._readers)}"
        reader = self._readers[name] = Reader(self, name)
        url = f"{server.url}/graphql"
        await reader.do("open", executable=self._executable, profile=str(profile), url=url)
        return reader

    def tell(self, command: dict[str, Any]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command).encode() + b"\n")

    async def read(self) -> None:
        assert self._process.stdout
        async for line in self._process.stdout:
            happened = json.loads(line)
            self._readers[happened.pop("page")].take(happened)


@asynccontextmanager
async def chromium_driver(node: str, executable: str) -> AsyncGenerator[Chromium]:
    process = await asyncio.create_subprocess_exec(
        node, str(DRIVER / "driver.mjs"), stdin=PIPE, stdout=PIPE, limit=LINE_BYTES
    )
    chromium = Chromium(process, executable)
    reading = asyncio.create_task(chromium.read())
    try:
        yield chromium
    finally:
        assert process.stdin
        process.stdin.close()
        await process.wait()
        await reading
