"""Requests that are refused before anything of them runs."""

from collections.abc import Mapping, Sequence

from graphql import GraphQLError

from graphql_api.errors import ErrorCode


class Refused(Exception):
    """A request, or one operation of it, that is not executed.

    `status` is what HTTP answers, whatever the client accepts; null: what GraphQL over HTTP
    has for errors of a document or its variables, which depends on what is accepted.
    `extensions` are told beside the errors.
    """

    def __init__(
        self,
        code: ErrorCode,
        message: str,
        status: int | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.extensions: Mapping[str, object] = {}
        self.headers = dict(headers or {})
        self.errors: Sequence[GraphQLError] = [
            GraphQLError(message, extensions={"code": code.value})
        ]

    @classmethod
    def because_of(cls, errors: Sequence[GraphQLError], status: int | None = None) -> "Refused":
        """Refuse with errors that have their codes already."""
        refused = cls(ErrorCode.BAD_USER_INPUT, "", status)
        refused.errors = errors
        return refused
