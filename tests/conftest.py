"""For all tests: no deadlines in property tests, since machines may be shared and slow."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

settings.register_profile("gptnode", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("gptnode")
