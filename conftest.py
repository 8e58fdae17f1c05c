"""What holds for the tests of all members."""

from __future__ import annotations

import hypothesis

# A busy machine is slow now and then; the suite's own timeout bounds a test.
hypothesis.settings.register_profile("patient", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("patient")
