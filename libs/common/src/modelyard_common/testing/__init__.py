"""What tests of all members share; never imported from src."""

from modelyard_common.testing.clock import FakeClock
from modelyard_common.testing.ports import free_port, free_port_base
from modelyard_common.testing.server import running

__all__ = ["FakeClock", "free_port", "free_port_base", "running"]
