"""An outage and a mistake are told apart, however they are put."""

from typing import Any, cast

import asyncpg
import pytest

from db.errors import DatabaseUnavailable, ServerFull
from db.outages import outages_named


def refusal(state: str, message: str) -> asyncpg.PostgresError:
    """Give what asyncpg raises for what a server, or a proxy before it, says."""
    make = cast("Any", asyncpg.PostgresError).new
    return make({"S": "FATAL", "C": state, "M": message})


@pytest.mark.parametrize(
    ("state", "message", "may_pass"),
    [
        ("XX000", "Couldn't connect to compute node", True),  # Neon's proxy
        ("58000", "something of the system", True),
        ("55000", "the database is not accepting connections", True),
        ("08P01", "server login failed", True),
        ("42501", "no right to connect", False),
        ("28P01", "wrong password", False),
    ],
)
def test_whatever_is_said_while_connecting_is_an_outage(state: str, message: str, may_pass: bool):
    with pytest.raises(DatabaseUnavailable) as told, outages_named(connecting=True):
        raise refusal(state, message)
    assert told.value.may_pass is may_pass
    assert not isinstance(told.value, ServerFull)


@pytest.mark.parametrize("state", ["XX000", "55000", "42501"])
def test_of_a_statement_it_is_a_mistake(state: str):
    with pytest.raises(asyncpg.PostgresError), outages_named():
        raise refusal(state, "no")


@pytest.mark.parametrize(
    ("state", "message"),
    [
        ("53300", "sorry, too many clients already"),
        ("08P01", "no more connections allowed (max_client_conn)"),  # PgBouncer
        ("08P01", "query_wait_timeout"),
    ],
)
def test_a_server_or_pooler_that_is_full_goes_on_for_those_who_have_a_connection(
    state: str, message: str
):
    with pytest.raises(ServerFull), outages_named(connecting=True):
        raise refusal(state, message)
