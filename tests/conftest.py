"""What holds for every test."""

from hypothesis import settings

# No test is a timed test: how long an example takes says how busy the machine is.
settings.register_profile("zeta", deadline=None)
settings.load_profile("zeta")
