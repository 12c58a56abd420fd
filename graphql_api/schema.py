"""The schema that is served. `parley schema` prints it; `schema.graphql` is that print."""

import strawberry
from graphql import (
    GraphQLArgument,
    GraphQLError,
    GraphQLInputField,
    GraphQLInputObjectType,
    GraphQLInterfaceType,
    GraphQLObjectType,
    GraphQLSchema,
    Undefined,
    is_introspection_type,
)
from strawberry.schema.config import StrawberryConfig
from strawberry.types.execution import ExecutionContext

from graphql_api.context import Context
from graphql_api.errors import UNION_MEMBERS, ErrorCode, show
from graphql_api.mutations import Mutation
from graphql_api.operations import PreparedExtension
from graphql_api.queries import Query
from graphql_api.subscriptions import Subscription
from graphql_api.types.scalars import SCALARS

ONE_OF = "directive @oneOf on INPUT_OBJECT\n\n"
"One of GraphQL's own directives, which a schema as text does not repeat."


class ParleySchema(strawberry.Schema):
    """A schema whose errors are fit to be shown."""

    def process_errors(
        self, errors: list[GraphQLError], execution_context: ExecutionContext | None = None
    ) -> None:
        context = execution_context.context if execution_context else None
        show(errors, context if isinstance(context, Context) else None)


schema = ParleySchema(
    query=Query,
    mutation=Mutation,
    subscription=Subscription,
    types=[ErrorCode],
    exception_handlers=UNION_MEMBERS,
    extensions=[PreparedExtension],
    config=StrawberryConfig(sort_schema=False, scalar_map=SCALARS),
)


def _forget_null_defaults(definitions: GraphQLSchema) -> None:
    """Let what may be left out have no default, where Strawberry makes one of Python's None.

    `= null` tells a client nothing; the resolver gets the same None either way.
    """
    for each in definitions.type_map.values():
        given: list[GraphQLArgument | GraphQLInputField] = []
        match each:
            case GraphQLInputObjectType():
                given += each.fields.values()
            case GraphQLObjectType() | GraphQLInterfaceType() if not is_introspection_type(each):
                for field in each.fields.values():
                    given += field.args.values()
            case _:
                pass
        for value in given:
            if value.default_value is None:
                value.default_value = Undefined


_forget_null_defaults(schema._schema)


def printed_schema() -> str:
    """Give the schema as text, as `schema.graphql` holds it."""
    return schema.as_str().removeprefix(ONE_OF) + "\n"
