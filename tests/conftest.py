"""Settings that all tests share."""

from hypothesis import HealthCheck, settings

# The machine that runs the tests may be busy: an example that takes long is not a failure.
settings.register_profile("refusalkit", deadline=None, max_examples=40)
# `make torture`, or pytest --hypothesis-profile=long: a test that names no number tries more.
settings.register_profile(
    "long", deadline=None, max_examples=2000, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("refusalkit")
