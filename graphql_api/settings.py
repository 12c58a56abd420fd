"""Settings: read once from the environment or `.env`, then handed down as arguments."""

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import (
    AliasChoices,
    Field,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    SecretStr,
    ValidationError,
    field_validator,
)
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict


class SettingsInvalid(Exception):
    """A setting can't be used; the message is one line that says which and why."""


class Settings(BaseSettings):
    """Every setting, with its default. The README's table is tested against this class."""

    model_config = SettingsConfigDict(
        env_file=".env", env_file_encoding="utf-8", extra="ignore", env_ignore_empty=True
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
    database_pool_size: PositiveInt = Field(
        5, description="How many connections to Postgres are kept."
    )
    database_pool_overflow: NonNegativeInt = Field(
        15, description="How many more may be opened when all of those are busy."
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
    auth_issuer: str | None = Field(
        None, description="The issuer of tokens; `parley ingest --subject` needs it or the realm."
    )
    auth_realm: str | None = Field(
        None, description="What user ids are made of, besides the subject; by default the issuer."
    )
    admin_subjects: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="Who may share documents with everyone: anonymous keys (or, of tokens,"
        " subjects), separated by commas.",
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
    allowed_origins: Annotated[frozenset[str], NoDecode] = Field(
        frozenset(),
        description="Other origins whose pages may open a WebSocket, separated by commas; `*`"
        " for any.",
    )
    graphiql: bool = Field(True, description="Serve GraphiQL to browsers at `/graphql`.")

    @field_validator("admin_subjects", "allowed_origins", mode="before")
    @classmethod
    def _split(cls, value: object) -> object:
        if isinstance(value, str):
            return frozenset(part.strip() for part in value.split(",") if part.strip())
        return value

    @property
    def realm(self) -> str | None:
        return self.auth_realm or self.auth_issuer

    @property
    def lease(self) -> timedelta:
        return timedelta(seconds=self.reply_lease_seconds)


def load_settings() -> Settings:
    """Read the settings. Raises `SettingsInvalid` with the first thing that is wrong."""
    try:
        return Settings()  # pyright: ignore[reportCallIssue] - it reads the environment
    except ValidationError as error:
        first = error.errors()[0]
        name = str(first["loc"][0]).upper() if first["loc"] else "a setting"
        raise SettingsInvalid(f"{name}: {first['msg']}") from None
