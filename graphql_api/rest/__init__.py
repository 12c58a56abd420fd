"""REST, for frontends that exist already: thin routes over the same resolvers."""

from graphql_api.rest.openapi import describe
from graphql_api.rest.router import rest_router

__all__ = ["describe", "rest_router"]
