"""Settings that hold for all tests."""

import pytest
from hypothesis import settings

# The same examples in every run; new ones are tried with `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")

# The fixture of a whole run, which every worker would make for itself.
COSTLY = "finished"


# First, since pytest-xdist reads the groups at the same point.
@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items):
    """Tests of a module run on one worker of pytest-xdist; so do all that use what takes long to make."""
    for item in items:
        group = COSTLY if COSTLY in item.fixturenames else item.path.stem
        item.add_marker(pytest.mark.xdist_group(group))
