"""A visitor, and the user who they turn out to be."""

import pytest

from graphql_api.settings import Settings
from tests.issuer import Issuer
from tests.openai_server import OpenAIServer
from tests.people import Parley, Person


@pytest.fixture
def settings(settings: Settings, issuer: Issuer, model: OpenAIServer) -> Settings:
    return settings.model_copy(
        update={
            **issuer.settings,
            "allow_anonymous": True,
            "openai_base_url": model.url,
            "openai_model": "m",
        }
    )


@pytest.fixture
def visitor(parley: Parley) -> Person:
    return parley.person()


@pytest.fixture
def ann(parley: Parley, issuer: Issuer) -> Person:
    return parley.bearer(issuer.token("ann"))
