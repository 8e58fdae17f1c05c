"""Databases for the tests of migrations."""

from modelyard_common.testing.databases import *  # noqa: F403
