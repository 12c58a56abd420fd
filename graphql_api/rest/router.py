"""All REST routes, put together."""

from collections.abc import Iterable

from fastapi import APIRouter, Depends

from graphql_api.rest import chat, documents, health, sessions
from graphql_api.rest.caller import Count, GetContext, GetVisitor, identified_by
from graphql_api.rest.problems import ProblemRoute

ROUTERS = (chat.router, sessions.router, documents.router, health.router)
"Nobody has to say who they are to the last."


def _tell_methods(routers: Iterable[APIRouter]) -> None:
    """Tell each route which methods its path has."""
    routes = [each for part in routers for each in part.routes if isinstance(each, ProblemRoute)]
    for route in routes:
        same = (each.methods or () for each in routes if each.path == route.path)
        route.methods_of_path = {method for methods in same for method in methods}


def rest_router(context: GetContext, visitor: GetVisitor, count: Count) -> APIRouter:
    """Give the routes.

    `context` makes a request's context; `visitor` gives the viewer of a key that was made for
    somebody who has none, and raises `Unauthenticated` where such people are not let in. `count`
    counts a request of a viewer's, and raises `RateLimited`.
    """
    router = APIRouter()
    _tell_methods(ROUTERS)
    identify = Depends(identified_by(context, visitor, count))
    for part in ROUTERS[:-1]:
        router.include_router(part, dependencies=[identify])
    router.include_router(health.router)
    return router
