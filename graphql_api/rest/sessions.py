"""Conversations: listed, made, renamed, deleted."""

from typing import Annotated

from fastapi import APIRouter, Body, Path, Query, Response

from db.sessions import SessionRow
from graphql_api.rest import examples
from graphql_api.rest.bodies import SESSION_ID, Session, SessionBody, Sessions, TitleBody
from graphql_api.rest.caller import Asking, Caller
from graphql_api.rest.openapi import example, problems
from graphql_api.rest.problems import ProblemRoute
from resolvers import sessions
from resolvers.cursors import DEFAULT_PAGE_SIZE, MAX_PAGE_SIZE, PageArguments, session_cursor
from resolvers.sessions import SessionName

router = APIRouter(tags=["sessions"], route_class=ProblemRoute)

Named = Annotated[str, Path(description=SESSION_ID)]
ONE = "/sessions/{session_id:path}"
"A client's own key may hold slashes."


@router.get(
    "/sessions",
    summary="List conversations",
    responses={
        200: example("The one last used first.", examples.SESSIONS),
        **problems(400, 401, 503),
    },
)
async def list_sessions(
    caller: Asking,
    limit: Annotated[
        int, Query(ge=1, le=MAX_PAGE_SIZE, description="How many at most.")
    ] = DEFAULT_PAGE_SIZE,
    cursor: Annotated[
        str | None, Query(description="A `next_cursor`: what comes after it.")
    ] = None,
) -> Sessions:
    asked = PageArguments(first=limit, after=cursor)
    page = await sessions.sessions_page(caller.viewer, caller.context.database, asked)
    return Sessions(
        sessions=[_shown(caller, row) for row in page.rows],
        next_cursor=session_cursor(page.rows[-1]) if page.has_next else None,
    )


@router.post(
    "/sessions",
    status_code=201,
    summary="Make a conversation",
    description="An empty one. Sending a message to one that is not there makes it too.",
    responses={
        201: example("It was made.", examples.SESSION),
        200: example("It was there, just so.", examples.SESSION) | {"model": Session},
        **problems(400, 401, 409, 503),
    },
)
async def create_session(
    body: Annotated[SessionBody, Body(openapi_examples=examples.NEW_SESSION)],
    caller: Asking,
    response: Response,
) -> Session:
    name = SessionName(None, None) if body.session_id is None else caller.named(body.session_id)
    made = await sessions.make_session(
        caller.viewer,
        caller.context.database,
        name,
        title=body.title,
        request_id=caller.context.request_id,
    )
    response.status_code = 201 if made.is_new else 200
    return _shown(caller, made.session)


@router.get(
    ONE,
    summary="Read about a conversation",
    responses={200: example("It.", examples.SESSION), **problems(401, 404, 503)},
)
async def read_session(session_id: Named, caller: Asking) -> Session:
    return _shown(caller, await _found(caller, session_id))


@router.patch(
    ONE,
    summary="Rename a conversation",
    responses={200: example("As it is now.", examples.SESSION), **problems(400, 401, 404, 503)},
)
async def rename_session(
    session_id: Named,
    body: Annotated[TitleBody, Body(openapi_examples=examples.TITLE)],
    caller: Asking,
) -> Session:
    row = await sessions.update_session(
        caller.viewer,
        caller.context.database,
        id=str((await _found(caller, session_id)).id),
        title=body.title,
        request_id=caller.context.request_id,
    )
    return _shown(caller, row)


@router.delete(
    ONE,
    status_code=204,
    summary="Delete a conversation",
    description="With all its messages. A reply that is being written is stopped first.",
    responses={204: {"description": "It is gone."}, **problems(401, 404, 503)},
)
async def delete_session(session_id: Named, caller: Asking) -> None:
    await sessions.delete_session(
        caller.viewer,
        caller.context.database,
        caller.context.services.replies,
        id=str((await _found(caller, session_id)).id),
        request_id=caller.context.request_id,
    )


async def _found(caller: Caller, session_id: str) -> SessionRow:
    name = caller.named(session_id)
    return await sessions.find_session(caller.viewer, caller.context.database, name)


def _shown(caller: Caller, row: SessionRow) -> Session:
    return Session.of(row, caller.calls(row))
