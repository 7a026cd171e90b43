"""Settings that hold for all tests."""

from hypothesis import settings

# The same examples in every run; new ones are tried with `pytest --hypothesis-profile=default`.
settings.register_profile("repeatable", derandomize=True)
settings.load_profile("repeatable")
