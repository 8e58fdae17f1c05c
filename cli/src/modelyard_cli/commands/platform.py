"""The platform on this machine: up, down, status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from typing import Annotated, Any

import httpx
import typer
from modelyard_common.errors import Unavailable
from rich.text import Text

from modelyard_cli.embedded.layout import SERVICES, Layout
from modelyard_cli.embedded.platform import Platform, find_supervisor, stop_leftovers
from modelyard_cli.output import ERR, OUT, Format, show
from modelyard_cli.session import Session

__all__ = ["add_to", "stop_on_signals"]

_STOP_S = 60.0


def add_to(app: typer.Typer) -> None:
    """Add the commands."""
    for command in (up, down, status):
        app.command(rich_help_panel="Platform")(command)


def stop_on_signals() -> dict[str, bool]:
    """Return a flag that SIGINT and SIGTERM set."""
    told = {"stop": False}

    def stop(number: int, frame: Any) -> None:
        del number, frame
        if told["stop"]:
            raise KeyboardInterrupt
        told["stop"] = True

    signal.signal(signal.SIGINT, stop)
    signal.signal(signal.SIGTERM, stop)
    return told


def up(
    context: typer.Context,
    detach: Annotated[bool, typer.Option("--detach", "-d", help="Return once everything is ready.")] = False,
) -> None:
    """Start the platform: MLflow and four services as processes on loopback, supervised until Ctrl-C.

    What was running on this data folder is found again, also after a kill -9 of any process or of this one.
    Prometheus is started too when it is on the PATH.
    """
    session: Session = context.obj
    if detach:
        _detach(session.layout)
        return
    told = stop_on_signals()
    platform = Platform(session.layout, lambda line: ERR.print(line, soft_wrap=True))
    platform.start()
    try:
        ERR.print(f"starting on {session.layout.home} …")
        platform.wait_ready()
        print_urls(session.layout, prometheus="prometheus" in platform.processes)
        ERR.print("Ctrl-C stops everything.")
        platform.run(lambda: told["stop"])
    finally:
        ERR.print("stopping …")
        platform.stop()


def print_urls(layout: Layout, *, prometheus: bool) -> None:
    """Print where everything is."""
    names = [*SERVICES, "mlflow", *(["prometheus"] if prometheus else [])]
    for name in names:
        path = "/docs" if name in SERVICES else ""
        OUT.print(f"  {name:<11} {layout.url(name)}{path}", soft_wrap=True)
    OUT.print(f"  {'logs':<11} {layout.home / 'logs'}", soft_wrap=True)


def _detach(layout: Layout) -> None:
    layout.home.mkdir(parents=True, exist_ok=True)
    (layout.home / "logs").mkdir(exist_ok=True)
    with layout.log("supervisor").open("ab") as log:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "modelyard_cli.main", "--data-dir", str(layout.home)),
                *("--port-base", str(layout.port_base), "up"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        if process.poll() is not None:
            text = layout.log("supervisor").read_text(errors="replace").strip().splitlines()
            raise Unavailable("the platform did not start: " + (text[-1] if text else "see its log"))
        if all(state["ready"] for state in _states(layout) if state["name"] != "prometheus"):
            print_urls(layout, prometheus=False)
            return
        time.sleep(0.3)
    raise Unavailable(f"the platform did not come up; see {layout.home / 'logs'}")


def down(context: typer.Context) -> None:
    """Stop the platform of this data folder; its data stays."""
    session: Session = context.obj
    supervisor = find_supervisor(session.layout)
    if supervisor is None:
        found = stop_leftovers(session.layout)
        ERR.print(f"stopped {found} processes" if found else "nothing runs on this data folder")
        return
    with suppress(ProcessLookupError):
        os.kill(supervisor, signal.SIGTERM)
    deadline = time.monotonic() + _STOP_S
    while find_supervisor(session.layout) is not None:
        if time.monotonic() > deadline:
            raise Unavailable(f"process {supervisor} did not stop within {_STOP_S:.0f} s")
        time.sleep(0.1)
    stop_leftovers(session.layout)
    ERR.print("stopped")


def status(context: typer.Context, output: Annotated[Format, typer.Option("--output", "-o")] = Format.table) -> None:
    """Show the services and what their health checks say. Exit code 5 when one of them is not ready."""
    session: Session = context.obj
    states = _states(session.layout, session)
    show(
        states,
        {
            "service": lambda state: state["name"],
            "state": lambda state: (
                Text("ready", style="green") if state["ready"] else Text(state["state"], style="red")
            ),
            "url": lambda state: state["url"],
            "checks": lambda state: "; ".join(f"{k}: {v}" for k, v in state["checks"].items() if v != "ok") or "ok",
        },
        output,
    )
    if not all(state["ready"] for state in states if state["name"] in SERVICES):
        raise typer.Exit(5)


def _states(layout: Layout, session: Session | None = None) -> list[dict[str, Any]]:
    states = []
    for name in (*SERVICES, "mlflow"):
        url = session.url(name) if session is not None and name in SERVICES else layout.url(name)
        path = "/health/ready" if name in SERVICES else "/health"
        try:
            answer = httpx.get(url + path, timeout=3.0, trust_env=False)
            ready, state = answer.status_code == 200, "unready"
            checks = answer.json().get("checks", {}) if name in SERVICES else {}
        except (httpx.HTTPError, ValueError):
            ready, state, checks = False, "away", {}
        states.append({"name": name, "url": url, "ready": ready, "state": state, "checks": checks})
    return states
