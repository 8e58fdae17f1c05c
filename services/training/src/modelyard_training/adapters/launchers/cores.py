"""How many threads a job may use: libraries ask the machine, which has more cores than the job was given."""

from __future__ import annotations

__all__ = ["thread_limits"]

_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS")


def thread_limits(cpu: str) -> dict[str, str]:
    """Return the environment that keeps a job to the manifest's amount: ``500m`` is half of a core."""
    cores = float(cpu[:-1]) / 1000 if cpu.endswith("m") else float(cpu)
    return dict.fromkeys(_VARIABLES, str(max(1, int(cores))))
