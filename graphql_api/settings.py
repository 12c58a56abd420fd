"""Settings: read once from the environment or `.env`, then handed down as arguments."""

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Literal, Self

from limits import parse_many
from pydantic import (
    AliasChoices,
    BeforeValidator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class SettingsInvalid(Exception):
    """A setting can't be used; the message is one line that says which and why."""


def _split(value: object) -> object:
    if isinstance(value, str):
        return frozenset(part.strip() for part in value.split(",") if part.strip())
    return value


_ORIGIN = re.compile(r"https?://[^/?#@\s]+", re.IGNORECASE)


def _check_rate(value: object) -> object:
    if isinstance(value, str) and value != "off":
        try:
            [rate] = parse_many(value)
        except ValueError:
            raise ValueError(f"{value!r} is no rate such as 600/minute, nor off") from None
        if not rate.amount:
            raise ValueError(f"{value!r} lets nobody in")
    return value


Rate = Annotated[str, BeforeValidator(_check_rate)]
CommaSeparated = Annotated[frozenset[str], NoDecode, BeforeValidator(_split)]


class Settings(BaseSettings):
    """Every setting, with its default. The README's table is tested against this class."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True
    )

    environment: Literal["development", "production"] = Field(
        "development",
        description="`production` turns GraphiQL and the suggestions in error messages off, and"
        " logs JSON.",
    )
    host: str = Field("127.0.0.1", description="The address to listen on.")
    port: int = Field(8000, ge=0, le=65535, description="The port to listen on.")
    data_dir: Path = Field(
        Path(".parley"), description="Where the embedded Postgres and vector store live."
    )
    database_url: SecretStr | None = Field(
        None,
        validation_alias=AliasChoices("DATABASE_URL", "NEON_DATABASE_URL"),
        description="A Postgres 15 or newer to use instead of the embedded one.",
    )
    database_direct_url: SecretStr | None = Field(
        None,
        description="For migrations, where `DATABASE_URL` is a pooler's; by default its host"
        " without `-pooler`.",
    )
    database_read_url: SecretStr | None = Field(
        None, description="A read replica that GraphQL queries are answered from."
    )
    database_pooler: Literal["auto", "none", "transaction"] = Field(
        "auto",
        description="Whether a pooler in transaction mode stands before Postgres; `auto`: where"
        " the host's name has `-pooler`.",
    )
    database_pool_size: PositiveInt = Field(
        5, description="How many connections to Postgres are kept."
    )
    database_pool_overflow: NonNegativeInt = Field(
        15, description="How many more may be opened when all of those are busy."
    )
    database_acquire_timeout_seconds: PositiveFloat = Field(
        30, description="How long to wait for one of our connections while all are busy."
    )
    database_statement_timeout_seconds: PositiveFloat = Field(
        30, description="How long one statement may take; migrations may take longer."
    )
    database_retry_seconds: NonNegativeFloat = Field(
        5, description="How long what the database breaks off is tried again."
    )
    auto_migrate: bool = Field(
        False, description="Bring the schema of `DATABASE_URL` up to date at each start."
    )
    qdrant_url: str | None = Field(
        None, description="A Qdrant server to use instead of the embedded vector store."
    )
    qdrant_api_key: SecretStr | None = Field(None, description="The key for `QDRANT_URL`.")
    openai_api_key: SecretStr | None = Field(
        None, description="Turns on the language model and the embeddings."
    )
    openai_base_url: str | None = Field(
        None, description="Anything that speaks OpenAI's API; the key may be left out then."
    )
    openai_model: str = Field("gpt-5-mini", description="The chat model.")
    embedding_model: str | None = Field(
        None,
        description="The embedding model; with `OPENAI_API_KEY` and no `OPENAI_BASE_URL`,"
        " `text-embedding-3-small`.",
    )
    auth_jwks_url: str | None = Field(
        None, description="Where the issuer of tokens publishes its keys; turns bearer tokens on."
    )
    auth_issuer: str | None = Field(
        None, description="The `iss` of tokens, to the letter; needed with `AUTH_JWKS_URL`."
    )
    auth_audience: CommaSeparated = Field(
        frozenset(),
        description="The `aud` that tokens must have, or several, separated by commas; without"
        " it, those made for others are taken too.",
    )
    auth_realm: str | None = Field(
        None, description="What user ids are made of, besides the subject; by default the issuer."
    )
    auth_admin_claim: str | None = Field(
        None, description="`name=value` of a claim that makes administrators, such as `role=admin`."
    )
    admin_subjects: CommaSeparated = Field(
        frozenset(),
        description="Who may share documents with everyone, separated by commas: subjects of"
        " tokens, or anonymous keys where no tokens are taken.",
    )
    allow_anonymous: bool | None = Field(
        None,
        description="Let visitors in by a key of their own (`X-Session-ID`); by default, if no"
        " tokens are taken.",
    )
    history_budget_tokens: PositiveInt = Field(
        6_000, description="How much of a session the model is given to read."
    )
    reply_timeout_seconds: PositiveFloat = Field(
        300, description="How long a reply may take in all."
    )
    reply_lease_seconds: PositiveFloat = Field(
        30, description="How long after its server's death a reply counts as interrupted."
    )
    shutdown_grace_seconds: PositiveFloat = Field(
        10, description="How long replies may go on when the server is told to stop."
    )
    max_upload_bytes: PositiveInt = Field(
        20 * 1024 * 1024, description="The largest document that is taken."
    )
    fetch_timeout_seconds: PositiveFloat = Field(
        30, description="How long fetching a document's URL may take."
    )
    allowed_origins: CommaSeparated = Field(
        frozenset(),
        description="Other origins whose pages may use the API, separated by commas; `*` for any.",
    )
    graphiql: bool | None = Field(
        None, description="Serve GraphiQL to browsers at `/graphql`; by default, in development."
    )
    introspection: bool = Field(True, description="Let clients ask for the schema.")
    trusted_documents: Path | None = Field(
        None,
        description="A manifest of GraphQL documents, as Relay, Apollo or graphql-codegen write"
        " it: no others are run.",
    )
    max_body_bytes: PositiveInt = Field(
        32 * 1024 * 1024, description="The largest request body, uploads apart."
    )
    max_batch_operations: PositiveInt = Field(
        1, description="How many operations may stand in one request; 1 turns batches off."
    )
    max_query_tokens: PositiveInt = Field(2_000, description="The longest GraphQL document.")
    max_query_depth: PositiveInt = Field(15, description="How deep fields may nest.")
    max_query_aliases: PositiveInt = Field(
        30, description="How many aliases an operation may have."
    )
    max_query_directives: PositiveInt = Field(
        30, description="How many directives an operation may have."
    )
    max_query_cost: PositiveInt = Field(
        50_000, description="What an operation may cost: its fields, times the rows of their pages."
    )
    query_timeout_seconds: PositiveFloat = Field(
        60, description="How long a query may take; mutations and subscriptions may take longer."
    )
    slow_query_seconds: PositiveFloat = Field(
        1, description="Queries that take longer are named in the log."
    )
    rate_limit: Rate = Field(
        "600/minute", description="How often a viewer may ask; `off` for as often as they like."
    )
    send_message_quota: Rate = Field(
        "off", description="How many messages a viewer may send, such as `100/day`."
    )
    add_document_quota: Rate = Field(
        "off", description="How many documents a viewer may add, such as `20/day`."
    )
    redis_url: SecretStr | None = Field(
        None, description="Where rates and quotas are counted for all processes together."
    )

    @field_validator("auth_jwks_url")
    @classmethod
    def _is_web_address(cls, value: str | None) -> str | None:
        if value is not None and not value.startswith(("https://", "http://")):
            raise ValueError("it is no web address")
        return value

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, values: frozenset[str]) -> frozenset[str]:
        for value in values:
            if value != "*" and not _ORIGIN.fullmatch(value):
                raise ValueError(f"{value!r} is no origin such as https://app.example.com")
        return values

    @field_validator("auth_realm")
    @classmethod
    def _is_no_other_realm(cls, value: str | None) -> str | None:
        if value is not None and (value == "anonymous" or "\n" in value):
            raise ValueError("it would mix tokens' users with others")
        return value

    @field_validator("auth_admin_claim")
    @classmethod
    def _names_a_value(cls, value: str | None) -> str | None:
        if value is not None and not all(value.partition("=")):
            raise ValueError("it must be of the form name=value")
        return value

    @model_validator(mode="after")
    def _says_whose_tokens(self) -> Self:
        if self.auth_jwks_url is not None and self.auth_issuer is None:
            raise ValueError("AUTH_ISSUER: AUTH_JWKS_URL needs it, to know whose tokens to take")
        return self

    @property
    def serves_graphiql(self) -> bool:
        return not self.is_production if self.graphiql is None else self.graphiql

    @property
    def is_production(self) -> bool:
        return self.environment == "production"

    @property
    def realm(self) -> str | None:
        return self.auth_realm or self.auth_issuer

    @property
    def allows_anonymous(self) -> bool:
        return self.auth_jwks_url is None if self.allow_anonymous is None else self.allow_anonymous

    @property
    def admin_claim(self) -> tuple[str, str] | None:
        name, _, value = (self.auth_admin_claim or "").partition("=")
        return (name, value) if name else None

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.reply_lease_seconds)


def load_settings() -> Settings:
    """Read the settings. Raises `SettingsInvalid` with the first thing that is wrong."""
    try:
        return Settings()  # pyright: ignore[reportCallIssue] - it reads the environment
    except ValidationError as error:
        first = error.errors()[0]
        message = first["msg"].removeprefix("Value error, ")
        name = f"{first['loc'][0]}: ".upper() if first["loc"] else ""
        raise SettingsInvalid(f"{name}{message}") from None
