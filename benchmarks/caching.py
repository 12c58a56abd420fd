"""What remembering is worth: each thing done anew, and remembered, side by side in one run.

make bench-caching
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from statistics import median
from types import SimpleNamespace
from typing import Any, cast

from graphql import get_introspection_query

from graphql_api.app import operations
from graphql_api.context import Context
from graphql_api.graphiql import EXAMPLE
from graphql_api.operations import Operations
from graphql_api.payloads import Payload
from graphql_api.rates import Meter
from graphql_api.router import ALL
from graphql_api.settings import Settings
from graphql_api.tokens import PublishedKeys, TokenVerifier
from rag.openai_embedder import OpenAIEmbedder
from tests.issuer import AUDIENCE, ISSUER, issuing
from tests.openai_server import openai_server

ROUNDS = 200


async def timed(work: Callable[[], Awaitable[object]]) -> float:
    """Give the median of many rounds, in microseconds."""
    took: list[float] = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        await work()
        took.append(time.perf_counter() - began)
    return median(took) * 1e6


def told(what: str, anew: float, remembered: float) -> None:
    print(f"{what:44} {anew / remembered:6.1f} x   {anew:8.0f} µs anew, {remembered:6.1f} µs")


async def documents() -> None:
    settings = Settings.model_construct(rate_limit="off")
    runs: Operations = operations(settings, Meter(settings))
    context = Context(cast("Any", SimpleNamespace()), None, "benchmark")
    for name, text, operation in (
        ("a history query, parsed and validated", EXAMPLE, "History"),
        ("GraphiQL's introspection", get_introspection_query(), None),
    ):
        payload = Payload(text, None, {}, operation, {})

        async def remembered(payload: Payload = payload) -> None:
            await runs.prepare(context, payload, ALL)

        async def anew(payload: Payload = payload) -> None:
            runs._checked.cache_clear()
            await runs.prepare(context, payload, ALL)

        told(name, await timed(anew), await timed(remembered))


async def keys() -> None:
    async with issuing() as issuer:
        token = issuer.token("ann")

        def verifier() -> TokenVerifier:
            return TokenVerifier(
                PublishedKeys(issuer.url), issuer=ISSUER, audiences=frozenset({AUDIENCE})
            )

        kept = verifier()

        async def remembered() -> None:
            await kept.claims(token)

        async def anew() -> None:
            fresh = verifier()
            await fresh.claims(token)
            await fresh.close()

        told("a token, its issuer on this machine", await timed(anew), await timed(remembered))
        await kept.close()


async def embeddings() -> None:
    async with openai_server() as server:
        embedder = OpenAIEmbedder.connect(api_key="k", base_url=server.url, model="m")
        await embedder.open()
        known: dict[str, object] = {}

        async def remembered() -> None:
            known.setdefault("a query", None)

        async def anew() -> None:
            await embedder.embed(["a query"])

        told(
            "a query's vector, the model on this machine",
            await timed(anew),
            await timed(remembered),
        )
        await embedder.close()


async def main() -> None:
    await documents()
    await keys()
    await embeddings()


if __name__ == "__main__":
    asyncio.run(main())
