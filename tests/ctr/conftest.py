"""A click log with a planted pattern."""

import pytest

from lorarec.data.click_logs import ClickLog
from tests.factories import planted_clicks


@pytest.fixture(scope="session")
def small_log() -> ClickLog:
    """A log of 40 users in which kinds below 2 are liked."""
    return planted_clicks(lambda profile, before, kind: kind < 2, users=40)
