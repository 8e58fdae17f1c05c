"""Fixtures of the service kit's tests."""

from modelyard_common.testing.databases import *  # noqa: F403
