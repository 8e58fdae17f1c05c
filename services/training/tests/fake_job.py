"""A job for tests: does what its job.json says under ``spec.behaviour``. Runs without the platform's packages."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from contextlib import suppress
from pathlib import Path

DEADLINE_S = 60.0


def wait_for(path: Path) -> None:
    """Wait until a test makes the file; give up rather than outlive the tests."""
    deadline = time.monotonic() + DEADLINE_S
    while not path.exists():
        if time.monotonic() > deadline:
            sys.exit(99)
        time.sleep(0.02)


def report(job: dict, document: dict) -> None:
    """Report as a real job does, until it is heard."""
    url = f"{job['training_url']}/v1/runs/{job['run']}/reports"
    deadline = time.monotonic() + DEADLINE_S
    while True:
        request = urllib.request.Request(url, json.dumps(document).encode(), {"content-type": "application/json"})
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main() -> None:
    """Play the part."""
    job = json.loads(Path(sys.argv[1]).read_text())
    work_dir = Path(job["work_dir"])
    behaviour = job["spec"].get("behaviour", {})
    kind = behaviour.get("kind", "end")
    (work_dir / "environment.json").write_text(json.dumps(dict(os.environ)))
    if kind == "stubborn":
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    if kind == "family":
        for _ in range(2):
            subprocess.Popen(["sleep", "60"])
        subprocess.Popen(["sleep", "60"], process_group=0)
    with suppress(OSError), (work_dir.parent / "starts").open("a") as starts:  # a real pod's file system is read-only
        starts.write(f"{os.getpid()}\n")
    sys.stdout.write(behaviour.get("say", f"hello from {job['run']}") + "\n")
    sys.stdout.flush()
    if kind == "end":
        sys.exit(behaviour.get("code", 0))
    if kind == "result":
        for path in (work_dir / "exit.json", job.get("termination_log")):
            if path:
                Path(path).write_text(json.dumps(behaviour["report"]))
        sys.exit(1)
    if kind == "hungry":  # only for a container with a limit
        held = []
        while True:
            held.append(b"x" * 2**20)
    wait_for(work_dir.parent / "go")
    if kind == "report":
        report(job, {"seq": 1, "stage": "fit", "progress": 0.5})
        report(job, behaviour["report"])


main()
