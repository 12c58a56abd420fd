"""Alice and Bob, each with a frontend that speaks REST."""

import pytest

from tests.graphql_api.rest.frontends import Frontend
from tests.people import Parley


@pytest.fixture
def alice(parley: Parley) -> Frontend:
    return Frontend(parley.person())


@pytest.fixture
def bob(parley: Parley) -> Frontend:
    return Frontend(parley.person())
