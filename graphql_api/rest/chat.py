"""Asking the agent, and what was said before."""

from typing import Annotated, Any

from fastapi import APIRouter, Body, Header, Query, Request
from fastapi.responses import Response

from graphql_api.auth import SESSION_HEADER
from graphql_api.negotiation import Media, accepted_media
from graphql_api.rest import examples, openapi
from graphql_api.rest.bodies import SESSION_ID, ChatAnswer, ChatBody, Cleared, History
from graphql_api.rest.bodies import HistoryMessage as Message
from graphql_api.rest.caller import Asking, Caller, Visiting
from graphql_api.rest.openapi import example, problems
from graphql_api.rest.problems import ProblemRoute
from graphql_api.rest.turns import EVENTS, begin
from graphql_api.transports import EventStream, with_heartbeats
from resolvers.cursors import MAX_PAGE_SIZE, PageArguments, message_cursor
from resolvers.errors import InvalidInput, NotFound
from resolvers.messages import history_page
from resolvers.sessions import SessionName, clear_history, find_session

router = APIRouter(tags=["chat"], route_class=ProblemRoute)

Question = Annotated[ChatBody, Body(openapi_examples=examples.ASKING)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        description="Names this request, so that sending it again joins or replays the reply"
        " instead of asking twice. A UUID is the message's id; any other text will do."
    ),
]
SessionId = Annotated[
    str | None,
    Query(description=f"{SESSION_ID} Left out: the visitor's one lasting conversation."),
]
Chapter = Annotated[str | None, Query(description="Only messages of this chapter.")]

_ANSWERED = openapi.examples(
    "The reply has ended. It is kept, unless `persisted` is false.",
    kept=("As a rule", examples.ANSWER),
    unsaved=("While the database is away", examples.UNSAVED),
)
_ANSWERED["headers"] = {
    SESSION_HEADER: {
        "description": "The key of a new visitor, who sent none.",
        "schema": {"type": "string", "format": "uuid"},
    }
}
_STREAMED = {
    **_ANSWERED,
    "description": "The reply: as events while it is written, or whole once it has ended.",
    "content": {
        **_ANSWERED["content"],
        "text/event-stream": {"schema": {"type": "string"}, "example": examples.STREAM},
    },
}
_PROBLEMS = problems(400, 401, 404, 409, 429, 502, 503)
_NO_CREDENTIAL: dict[str, Any] = {"security": [{}]}
"OpenAPI for: none is needed either."


@router.post(
    "/chat",
    summary="Ask, and wait for the reply",
    description="Runs the agent and keeps both messages. The reply goes on, and is kept, if the"
    " client goes away. Without a credential the caller is a new visitor, whose key is in the"
    " answer's `X-Session-ID`: send it from then on.",
    responses={200: _ANSWERED, **_PROBLEMS},
    openapi_extra=_NO_CREDENTIAL,
)
async def chat(
    body: Question, caller: Visiting, idempotency_key: IdempotencyKey = None
) -> ChatAnswer:
    return await (await begin(caller, body, idempotency_key)).answer()


@router.post(
    "/chat/agent",
    summary="Ask, and watch the reply being written",
    description="As `/chat`. With `Accept: text/event-stream` the reply comes as Server-Sent"
    " Events: `started`, then `searched` and `delta`, and last `ended` (what `/chat` answers) or"
    " `error` (a problem).",
    response_model=ChatAnswer,
    responses={200: _STREAMED, **_PROBLEMS},
    openapi_extra=_NO_CREDENTIAL,
)
async def chat_agent(
    request: Request, body: Question, caller: Visiting, idempotency_key: IdempotencyKey = None
) -> ChatAnswer | Response:
    turn = await begin(caller, body, idempotency_key)
    accepted = accepted_media(request.headers.getlist("Accept"))
    ours = [media for media in accepted if media in (Media.JSON, Media.EVENTS)]
    if ours[:1] != [Media.EVENTS]:
        return await turn.answer()
    stream = with_heartbeats(turn.events(), _heartbeat, EVENTS.heartbeat_interval)
    return EventStream(stream, headers=EVENTS.headers)


@router.get(
    "/chat/history",
    summary="Read a conversation",
    description="The newest messages, in reading order; `before` gives those before them.",
    responses={200: example("The messages.", examples.HISTORY), **problems(400, 401, 404, 503)},
)
async def history(
    caller: Asking,
    session_id: SessionId = None,
    chapter: Chapter = None,
    limit: Annotated[
        int, Query(ge=1, le=MAX_PAGE_SIZE, description="How many messages at most.")
    ] = MAX_PAGE_SIZE,
    before: Annotated[
        str | None, Query(description="A `previous_cursor`: only what stands before it.")
    ] = None,
) -> History:
    name = _named(caller, session_id)
    viewer, database = caller.viewer, caller.context.database
    try:
        session = await find_session(viewer, database, name)
    except NotFound:
        if name != caller.lasting:
            raise
        return History(session_id=session_id or str(caller.key), messages=[], previous_cursor=None)
    asked = PageArguments(last=limit, before=before)
    page = await history_page(viewer, database, session.id, asked, chapter)
    return History(
        session_id=session_id or caller.calls(session),
        messages=[Message.of(row) for row in page.rows],
        previous_cursor=message_cursor(page.rows[0]) if page.has_previous and page.rows else None,
    )


@router.delete(
    "/chat/history",
    summary="Forget a conversation's messages",
    description="Deletes the messages, of one chapter if given, and keeps the conversation.",
    responses={200: example("They are gone.", examples.CLEARED), **problems(400, 401, 404, 503)},
)
async def forget(caller: Asking, session_id: SessionId = None, chapter: Chapter = None) -> Cleared:
    name = _named(caller, session_id)
    context = caller.context
    try:
        session = await find_session(caller.viewer, context.database, name)
        _, deleted = await clear_history(
            caller.viewer,
            context.database,
            context.services.replies,
            id=str(session.id),
            chapter=chapter,
            request_id=context.request_id,
        )
    except NotFound:
        if name != caller.lasting:
            raise
        deleted = 0
    return Cleared(deleted=deleted)


def _named(caller: Caller, session_id: str | None) -> SessionName:
    if session_id is not None:
        return caller.named(session_id)
    if caller.lasting is None:
        raise InvalidInput("Say which conversation: a user may have many.", "session_id")
    return caller.lasting


def _heartbeat() -> str:
    return EVENTS.encode_comment("still there")
