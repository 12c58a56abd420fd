"""Whether the process lives, and how its database is."""

import asyncio
import time
from typing import cast

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import Response

from db.errors import DatabaseUnavailable
from db.migration import SchemaState, newest_revision, schema_state
from graphql_api.errors import RETRY_AFTER_SECONDS
from graphql_api.rest import examples
from graphql_api.rest.bodies import DatabaseHealth, Health, Pool, Schema
from graphql_api.rest.openapi import example
from graphql_api.rest.problems import ProblemRoute
from graphql_api.services import Services

PATIENCE_SECONDS = 5.0
"Several times what a sleeping database takes to wake; whoever asks wants to know before long."

router = APIRouter(tags=["health"], route_class=ProblemRoute)


@router.get(
    "/health",
    summary="Is the process alive?",
    description="Answers as soon as requests are served, without touching anything: the one to"
    " use as a liveness probe.",
    responses={200: example("It is.", {"status": "ok"})},
)
async def health() -> Health:
    return Health(status="ok")


router.add_api_route("/health", health, methods=["HEAD"], include_in_schema=False)


@router.get(
    "/db-health",
    summary="How is the database?",
    description="Asks the database where its schema stands. That wakes one that sleeps when"
    " nobody uses it, and restarting this process would not mend it: never use this as a"
    " liveness probe.",
    responses={
        200: example("It answers, and its schema has what this release needs.", examples.HEALTHY),
        503: example("It doesn't, or its schema is behind.", examples.DOWN)
        | {"model": DatabaseHealth},
    },
)
async def database_health(request: Request, response: Response) -> DatabaseHealth:
    database = cast("Services", request.app.state.services).database
    pool = Pool(**database.pool._asdict())
    reason, latency, began = None, None, time.perf_counter()
    try:
        async with asyncio.timeout(PATIENCE_SECONDS):
            schema = await schema_state(database)
        latency = round((time.perf_counter() - began) * 1000, 1)
    except (DatabaseUnavailable, TimeoutError) as outage:
        reason = str(outage) or type(outage).__name__
        schema = SchemaState(None, newest_revision())
    status = "down" if reason else "behind" if schema.is_behind else "ok"
    if status != "ok":
        response.status_code = 503
        response.headers["Retry-After"] = str(RETRY_AFTER_SECONDS)
    return DatabaseHealth(
        status=status,
        reason=reason,
        latency_ms=latency,
        schema=Schema(**schema._asdict()),
        pool=pool,
    )


router.add_api_route("/db-health", database_health, methods=["HEAD"], include_in_schema=False)
