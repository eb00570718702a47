"""Settings for all tests."""

from hypothesis import settings

# The machine decides how fast an example is, and a failure must come back: no deadline, the same examples always.
settings.register_profile("suite", deadline=None, derandomize=True)
settings.load_profile("suite")
