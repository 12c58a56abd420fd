"""A Python program, driven over stdin and stdout by `pages.py`, as `page.mjs` drives a page."""

import asyncio
import importlib
import json
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import uuid4

module, storage = map(Path, sys.argv[1:])
items = {"parleyKey": str(uuid4())} | json.loads(storage.read_text())
storage.write_text(json.dumps(items))
os.environ["PARLEY_KEY"] = items["parleyKey"]
sys.path.insert(0, str(module.parent))
chat: Any = importlib.import_module(module.stem)


async def answer(id: int, call: str, args: list[Any]) -> None:
    def tell(**event: Any) -> None:
        sys.stdout.write(json.dumps({"id": id, **event}) + "\n")
        sys.stdout.flush()

    async def show(text: str, events: AsyncIterator[Any]) -> None:
        tell(shown=text)
        async for data in events:
            if "error" in data["event"]:
                raise RuntimeError(data["event"]["error"]["message"])
            if "text" in data["event"]:
                tell(shown=(text := text + data["event"]["text"]))

    result: Any = None
    try:
        match call:
            case "ask":
                await show("", chat.ask(*args))
            case "open":
                reply = (await chat.history(*args))["session"]["activeReply"]
                await show(reply["content"], chat.resume(reply))
            case _:
                result = await chat.history(*args)
    except Exception as error:
        tell(failed=str(error))
    else:
        tell(result=result)


async def main() -> None:
    async with asyncio.TaskGroup() as calls:
        while line := await asyncio.to_thread(sys.stdin.readline):
            calls.create_task(answer(**json.loads(line)))


asyncio.run(main())
