"""Operations that ask for too much, and what becomes of them."""

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

from tests.operations import until
from tests.protocol.exchange import GRAPHQL, check_refused, post
from tests.streaming.scripted import statements_of
from tests.streaming.wire import Served

COMPLEX = "QUERY_TOO_COMPLEX"
FOUND = "{ edges { node { id } } }"
HEAVY = (
    "sessions(first: 100) { edges { node { messages(first: 100) { edges {"
    " node { id role content createdAt } } } } } }"
)
"10,000 messages: this alone is too much."


@asynccontextmanager
async def asking_nothing(server: Served) -> AsyncGenerator[None]:
    """See that nobody asks anything of the database during the block."""
    await until(lambda: not any(map(_reads_documents, asyncio.all_tasks())))
    with statements_of(server.database) as statements:
        yield
    assert statements == []


def _reads_documents(task: asyncio.Task[Any]) -> bool:
    """Tell a task that other tests' documents and the start of a server have left at work."""
    return task.get_name().startswith("ingest ") or "_fill_index" in repr(task.get_coro())


async def refused(
    server: Served, query: str, code: str = COMPLEX, **variables: Any
) -> tuple[str, set[int]]:
    """Give what a refusal says, and the numbers in it."""
    async with asking_nothing(server):
        answer = await post(server.port, query, {"Accept": GRAPHQL}, variables=variables)
    check_refused(answer, 400, code)
    [error] = answer.json["errors"]
    return error["message"], numbers(error["message"])


def numbers(text: str) -> set[int]:
    return {int(each.replace(",", "")) for each in re.findall(r"\d[\d,]*", text)}


async def taken(server: Served, query: str, **variables: Any) -> Any:
    """Give the data of what is not refused."""
    answer = await post(server.port, query, {"Accept": GRAPHQL}, variables=variables)
    assert answer.status == 200, answer
    assert answer.codes == []
    return answer.json["data"]
