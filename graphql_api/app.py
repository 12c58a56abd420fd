"""The application, put together: here the adapters are chosen, and nowhere else.

The clients of OpenAI and Qdrant are imported where they are configured: they take seconds to
import, which every start would pay.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta

import structlog
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from fastapi.staticfiles import StaticFiles
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection

from db import turns
from db.engine import Database
from db.errors import DatabaseError
from graphql_api.auth import SESSION_HEADER, Identities, token_verifier
from graphql_api.context import Context
from graphql_api.errors import ErrorCode, refusal
from graphql_api.graphiql import STATIC, STATIC_URL
from graphql_api.limits import Limits
from graphql_api.operations import Operations, Policy
from graphql_api.persisted import PersistedDocuments, read_manifest
from graphql_api.rates import Meter
from graphql_api.request_bodies import BodyLimits
from graphql_api.requests import REQUEST_ID_HEADER, Requests, request_id
from graphql_api.rest import describe, rest_router
from graphql_api.router import ParleyRouter
from graphql_api.schema import schema
from graphql_api.services import Services
from graphql_api.settings import Settings
from rag.agent import Agent
from rag.edge_index import EdgeIndex
from rag.extractive_model import ExtractiveModel
from rag.fetching import Fetcher
from rag.ingestion import Ingestion
from rag.ports import ChatModel, Embedder, IndexUnavailable, VectorIndex
from rag.retrieval import Retrieval
from resolvers.documents import Library
from resolvers.errors import Unauthenticated, Unavailable
from resolvers.intake import Intake
from resolvers.quotas import NoQuotas, Quotas
from resolvers.replies import Replies
from resolvers.runs import RunningReplies
from resolvers.turns import Turns
from resolvers.unsaved import UnsavedReplies
from resolvers.watches import Watches

log = structlog.get_logger(__name__)

DEFAULT_EMBEDDING_MODEL = "text-embedding-3-small"
GRAPHQL_PATH = "/graphql"
QDRANT_COLLECTION = "parley"
PREFLIGHT_SECONDS = 7200
"How long browsers may remember what other origins are allowed; they take no more than this."

OnStart = Callable[[Services], Awaitable[None]]


@asynccontextmanager
async def open_services(
    settings: Settings,
    database: Database,
    quotas: Quotas | None = None,
    reads: Database | None = None,
) -> AsyncGenerator[Services]:
    """Put the parts together, and take them apart in the right order.

    Raises `IndexUnavailable` and `EmbedderUnavailable` where what is configured is not there.
    """
    async with AsyncExitStack() as stack:
        model = _model(settings)
        stack.push_async_callback(model.close)
        embedder = _embedder(settings)
        if embedder is not None:
            stack.push_async_callback(embedder.close)
            await embedder.open()
        index = _index(settings, embedder)
        stack.push_async_callback(_close_index, index)
        await index.open()
        fetcher = Fetcher(
            max_bytes=settings.max_upload_bytes, timeout_seconds=settings.fetch_timeout_seconds
        )
        stack.push_async_callback(fetcher.close)
        ingestion = Ingestion(database, index, embedder, lease=settings.lease)
        stack.push_async_callback(ingestion.close)
        reply_timeout = timedelta(seconds=settings.reply_timeout_seconds)
        running = RunningReplies(database, lease=settings.lease, reply_timeout=reply_timeout)
        stack.push_async_callback(running.close, timedelta(seconds=settings.shutdown_grace_seconds))
        watches = Watches(database)
        stack.push_async_callback(watches.close)
        replies = Replies(database, running, watches)
        retrieval = Retrieval(database, index, embedder)
        quotas = quotas or NoQuotas()
        agent = Agent(model, history_budget_tokens=settings.history_budget_tokens)
        sends = Turns(database, agent, retrieval, running, replies, quotas)
        stack.push_async_callback(sends.close)
        yield Services(
            database=database,
            reads=reads or database,
            turns=sends,
            replies=replies,
            unsaved=UnsavedReplies(agent, retrieval, quotas, reply_timeout=reply_timeout),
            library=Library(database, retrieval, index),
            intake=Intake(
                database,
                fetcher,
                ingestion.take_up,
                quotas,
                max_bytes=settings.max_upload_bytes,
            ),
            ingestion=ingestion,
            running=running,
        )


def create_app(
    settings: Settings,
    database: Database,
    on_start: OnStart | None = None,
    reads: Database | None = None,
) -> FastAPI:
    """Make the application over a database whose schema is up to date.

    `on_start` runs before the first request is served. Queries are answered from `reads`, where
    that is given.
    """

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncGenerator[None]:
        async with open_services(settings, database, meter, reads) as services:
            app.state.services = services
            if on_start is not None:
                await on_start(services)
            await turns.settle_expired(database)
            await services.ingestion.take_up_unfinished()
            filling = asyncio.create_task(_fill_index(services.ingestion), name="fill index")
            yield
            filling.cancel()
            await asyncio.gather(filling, return_exceptions=True)
        if tokens is not None:
            await tokens.close()

    app = FastAPI(lifespan=lifespan, docs_url=None, redoc_url=None)
    describe(app)
    app.state.body_limits = body_limits = BodyLimits(
        settings.max_body_bytes, settings.max_upload_bytes, settings.max_batch_operations
    )
    meter = Meter(settings)
    tokens = token_verifier(settings)
    app.state.identities = identities = Identities(settings, tokens)
    if tokens is not None and not settings.auth_audience:
        log.warning("auth.any_audience", hint="set AUTH_AUDIENCE: tokens for others are taken too")

    async def context(connection: HTTPConnection) -> Context:
        # A socket says who it is in its first message.
        is_http = connection.scope["type"] == "http"
        viewer = await identities.viewer(connection.headers) if is_http else None
        context = Context(app.state.services, viewer, request_id(connection.scope))
        context.hides_suggestions = settings.is_production
        return context

    @app.exception_handler(Unauthenticated)
    async def refuse(_: Request, error: Unauthenticated) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        headers = {"WWW-Authenticate": "Bearer"}
        return refusal(401, ErrorCode.UNAUTHENTICATED, error.message, headers)

    @app.exception_handler(405)
    async def name_methods(request: Request, error: HTTPException) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        message, headers = error.detail, dict(error.headers or {})
        if request.url.path == GRAPHQL_PATH:
            message = "GraphQL is asked by POST, or by GET for queries."
            headers["Allow"] = "GET, POST"
        return refusal(405, ErrorCode.BAD_USER_INPUT, message, headers)

    @app.exception_handler(Unavailable)
    async def put_off(_: Request, error: Unavailable) -> JSONResponse:  # pyright: ignore[reportUnusedFunction]
        headers = {"Retry-After": str(error.retry_after_seconds)}
        return refusal(503, ErrorCode.UNAVAILABLE, error.message, headers)

    if settings.serves_graphiql and STATIC.is_dir():
        app.mount(STATIC_URL, StaticFiles(directory=STATIC))
    router = ParleyRouter(
        context,
        identities.viewer,
        operations(settings, meter),
        body_limits=body_limits,
        graphiql=settings.serves_graphiql,
        takes_keys=settings.allows_anonymous,
        allowed_origins=settings.allowed_origins,
    )
    app.include_router(router, prefix=GRAPHQL_PATH, include_in_schema=False)
    app.include_router(rest_router(context, identities.anonymous, meter.count_request))
    if settings.allowed_origins:
        app.add_middleware(
            CORSMiddleware,
            allow_origins=sorted(settings.allowed_origins),
            allow_methods=["GET", "POST", "PATCH", "DELETE"],
            allow_headers=["*"],
            expose_headers=[SESSION_HEADER, REQUEST_ID_HEADER, "Retry-After"],
            max_age=PREFLIGHT_SECONDS,
        )
    app.add_middleware(Requests)
    return app


def operations(settings: Settings, meter: Meter) -> Operations:
    """Say what operations may do. Raises `SettingsInvalid` for a manifest that is none."""
    policy = Policy(
        limits=Limits(
            tokens=settings.max_query_tokens,
            depth=settings.max_query_depth,
            aliases=settings.max_query_aliases,
            directives=settings.max_query_directives,
            cost=settings.max_query_cost,
        ),
        timeout_seconds=settings.query_timeout_seconds,
        slow_seconds=settings.slow_query_seconds,
        introspection=settings.introspection,
    )
    manifest = settings.trusted_documents
    persisted = PersistedDocuments(None if manifest is None else read_manifest(manifest))
    return Operations(schema, policy, persisted, meter)


async def _close_index(index: VectorIndex) -> None:
    """Close the index; what it could not write is filled in at the next start."""
    try:
        await index.close()
    except IndexUnavailable as error:
        log.warning("index.not_closed", reason=str(error.__cause__ or error))


async def _fill_index(ingestion: Ingestion) -> None:
    try:
        await ingestion.fill_index()
    except (IndexUnavailable, DatabaseError) as error:
        log.warning("index.not_filled", reason=str(error))


def _model(settings: Settings) -> ChatModel:
    if settings.openai_api_key is None and settings.openai_base_url is None:
        return ExtractiveModel()
    from rag.openai_model import OpenAIModel

    return OpenAIModel.connect(
        api_key=_openai_key(settings),
        base_url=settings.openai_base_url,
        model=settings.openai_model,
    )


def _embedder(settings: Settings) -> Embedder | None:
    """OpenAI has embeddings; of another server we only know if it is said."""
    model = settings.embedding_model
    if model is None and settings.openai_api_key and settings.openai_base_url is None:
        model = DEFAULT_EMBEDDING_MODEL
    if model is None:
        return None
    from rag.openai_embedder import OpenAIEmbedder

    return OpenAIEmbedder.connect(
        api_key=_openai_key(settings), base_url=settings.openai_base_url, model=model
    )


def _openai_key(settings: Settings) -> str:
    return settings.openai_api_key.get_secret_value() if settings.openai_api_key else ""


def _index(settings: Settings, embedder: Embedder | None) -> VectorIndex:
    """Choose the index. Vectors of two models can't be compared, so each has a place of its own."""
    dimension = embedder.dimension if embedder else None
    model = re.sub(r"[^a-z0-9]+", "-", embedder.model.lower()).strip("-") if embedder else "text"
    if settings.qdrant_url is None:
        return EdgeIndex(settings.data_dir / "vectors" / model, dimension)
    from rag.qdrant_index import QdrantIndex, connect

    key = settings.qdrant_api_key
    client = connect(settings.qdrant_url, key.get_secret_value() if key else None)
    return QdrantIndex(client, f"{QDRANT_COLLECTION}-{model}", dimension)
