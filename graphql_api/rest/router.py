"""All REST routes, put together."""

from fastapi import APIRouter, Depends

from graphql_api.rest import chat, documents, health, sessions
from graphql_api.rest.caller import Count, GetContext, GetVisitor, identified_by


def rest_router(context: GetContext, visitor: GetVisitor, count: Count) -> APIRouter:
    """Give the routes.

    `context` makes a request's context; `visitor` gives the viewer of a key that was made for
    somebody who has none, and raises `Unauthenticated` where such people are not let in. `count`
    counts a request of a viewer's, and raises `RateLimited`.
    """
    router = APIRouter()
    identify = Depends(identified_by(context, visitor, count))
    for part in (chat.router, sessions.router, documents.router):
        router.include_router(part, dependencies=[identify])
    router.include_router(health.router)
    return router
