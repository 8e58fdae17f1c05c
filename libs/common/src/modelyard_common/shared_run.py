"""Runs a module as the program, with what it counts in an area that was passed: ``<fd> <module> [argument …]``.

Apart from what it runs, since where a metric is kept is settled when it is made: nothing that makes one is imported
before.
"""

from __future__ import annotations

import runpy
import sys

from modelyard_common import shared_metrics

__all__ = ["main"]


def main() -> None:
    """Run the module."""
    shared_metrics.shared = shared_metrics.share(int(sys.argv[1]))
    sys.argv = sys.argv[2:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
