"""What the tests of this room share."""

from __future__ import annotations

import pytest
from report_fixtures import MakeRun, build_run


@pytest.fixture(scope="session")
def make_run() -> MakeRun:
    """``make_run(folder)`` builds corpora and a finished run below a folder and returns the run."""
    return build_run
