"""Database URLs as people have them."""

import ssl
from typing import Any

import pytest
from sqlalchemy import text

from db.engine import Database
from db.errors import DatabaseUrlInvalid
from db.urls import parse_url

NEON = "ep-cool-name-123456.eu-central-1.aws.neon.tech"
NEON_POOLER = "ep-cool-name-123456-pooler.eu-central-1.aws.neon.tech"


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+asyncpg"])
def test_all_names_of_postgres_are_understood(scheme: str):
    url = parse_url(f" {scheme}://alice:secret@db.example:5433/chat\n").sqlalchemy
    assert url.drivername == "postgresql+asyncpg"
    assert (url.username, url.password) == ("alice", "secret")
    assert (url.host, url.port, url.database) == ("db.example", 5433, "chat")


def test_a_password_with_special_characters_is_unquoted():
    assert parse_url("postgres://alice:p%40ss%2Fword@db.example/chat").sqlalchemy.password == (
        "p@ss/word"
    )


@pytest.mark.parametrize(
    "url",
    [
        "",
        "db.example",
        "postgresql://",
        "postgresql://db.example",
        "postgresql://db.example/",
        "postgresql://db.example:port/chat",
        "mysql://alice:secret@db.example/chat",
        "postgresql+psycopg2://alice:secret@db.example/chat",
        "sqlite:///chat.db",
        "postgresql://alice:secret@db.example/chat?sslmode=always",
        "postgresql://alice:secret@db.example/chat?sslmode=require&sslrootcert=/nowhere.pem",
        "postgresql://alice:secret@db.example:0/chat",
        "postgresql://alice:secret@db.example:-1/chat",
        "postgresql://alice:secret@db.example:65536/chat",
        "postgresql://alice:secret@one,two:65536/chat",
        "postgresql://alice:secret@db..example/chat",
        f"postgresql://alice:secret@{'d' * 64}.example/chat",
        "postgresql://alice:word@secret@db.example/chat",
    ],
)
def test_what_can_not_work_is_refused_without_its_password(url: str):
    with pytest.raises(DatabaseUrlInvalid) as refused:
        parse_url(url)
    assert "secret" not in str(refused.value)


def test_what_is_shown_has_no_password():
    url = parse_url("postgresql://alice:secret@db.example/chat")
    assert "secret" not in url.shown
    assert "alice" in url.shown
    assert "secret" not in repr(url)


async def test_without_a_host_it_is_this_machine_whatever_libpqs_settings_say(
    postgres_url: str, monkeypatch: pytest.MonkeyPatch
):
    """One that is far away would be spoken to without TLS."""
    before, _, place = postgres_url.partition("@127.0.0.1")
    monkeypatch.setenv("PGHOST", "192.0.2.1")
    monkeypatch.setenv("PGPORT", "1")
    database = Database(parse_url(f"{before}@{place}"))
    assert [tuple(row) for row in await database.rows(text("SELECT 1"), {})] == [(1,)]
    await database.close()


# --- TLS ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "query", "expected"),
    [
        ("localhost", "", "plain"),
        ("127.0.0.1", "", "plain"),
        ("[::1]", "", "plain"),
        ("127.0.0.1", "?sslmode=prefer", "plain"),
        ("127.0.0.1", "?sslmode=require", "verified"),
        (NEON, "", "verified"),
        (NEON, "?sslmode=require", "verified"),
        (NEON, "?sslmode=require&channel_binding=require", "verified"),
        (NEON, "?sslmode=prefer", "verified"),
        (NEON, "?sslmode=verify-full", "verified"),
        (NEON, "?sslmode=verify-ca", "verified but for its name"),
        (NEON, "?sslmode=disable", "plain"),
        ("postgres", "?sslmode=disable", "plain"),
    ],
)
def test_a_connection_is_verified_unless_it_is_local(host: str, query: str, expected: str):
    tls: Any = parse_url(f"postgresql://alice:secret@{host}/chat{query}").connect_args["ssl"]
    if expected == "plain":
        assert tls is False
        return
    assert tls.verify_mode == ssl.CERT_REQUIRED
    assert tls.check_hostname == (expected == "verified")


@pytest.mark.parametrize(
    "query", ["sslmode=require", "channel_binding=require", "sslmode=require&sslmode=disable"]
)
def test_what_asyncpg_does_not_know_is_taken_out(query: str):
    assert not parse_url(f"postgresql://alice@db.example/chat?{query}").sqlalchemy.query


# --- poolers --------------------------------------------------------------------------


def test_behind_a_pooler_statements_are_not_prepared_for_later():
    arguments = parse_url(f"postgresql://alice:secret@{NEON_POOLER}/chat").connect_args
    assert arguments["statement_cache_size"] == 0


def test_before_a_server_of_ones_own_statements_are_kept():
    arguments = parse_url(f"postgresql://alice:secret@{NEON}/chat").connect_args
    assert "statement_cache_size" not in arguments


# --- the real thing -------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "sslmode=prefer",
        "sslmode=disable&channel_binding=prefer",
        "connect_timeout=10",
        "application_name=parley",
        "options=-c%20statement_timeout%3D5000",
        "target_session_attrs=read-write",
        "pgbouncer=true",
    ],
)
async def test_a_url_connects_or_is_refused(query: str, database_url: str):
    try:
        url = parse_url(f"{database_url}?{query}")
    except DatabaseUrlInvalid:
        return
    database = Database(url)
    assert [tuple(row) for row in await database.rows(text("SELECT 1"), {})] == [(1,)]
    await database.close()


def test_migrations_go_past_each_of_several_poolers():
    url = parse_url("postgresql://alice:secret@a-pooler.neon.tech,b-pooler.neon.tech/chat").direct
    assert url.connect_args["host"] == ["a.neon.tech", "b.neon.tech"]
    assert "statement_cache_size" not in url.connect_args


def test_a_pooler_on_this_machine_is_all_that_is_known_of_it():
    url = parse_url("postgresql:///chat", "transaction")
    assert url.direct is url
