"""Settings of the laws of statistics."""

from __future__ import annotations

import hypothesis

# A busy machine is slow now and then; the suite's own timeout bounds a test.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")
