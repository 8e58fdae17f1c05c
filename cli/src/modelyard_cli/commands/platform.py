"""The platform on this machine: up, down, status."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any

import httpx
import typer
from modelyard_common.errors import Conflict, Invalid, ModelyardError, Unavailable
from modelyard_common.trust import trust_for
from rich.text import Text

from modelyard_cli.embedded.layout import SERVICES, Layout
from modelyard_cli.embedded.platform import Platform, find_supervisor, stop_leftovers, taken
from modelyard_cli.embedded.process import living
from modelyard_cli.exits import exit_code_of
from modelyard_cli.output import ERR, OUT, Format, show
from modelyard_cli.session import Session

__all__ = ["add_to", "print_urls", "stop_on_signals"]

_START_S = 120.0
_STOP_S = 60.0
_POLL_S = 0.2
_PROBE_S = 3.0


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
    Prometheus is started too when it is on the PATH. Every process writes to a file of its own in DATA-DIR/logs.

    Examples:
      modelyard up                   in the foreground, until Ctrl-C
      modelyard up --detach          in the background; see modelyard down
      modelyard --data-dir /tmp/two --port-base 9080 up      a second one
    """
    session: Session = context.obj
    if detach:
        _detach(session.layout)
        return
    told = stop_on_signals()
    platform = Platform(session.layout, lambda line: ERR.print(line, soft_wrap=True, markup=False))
    platform.start()
    try:
        ERR.print(f"starting on {session.layout.home} …", soft_wrap=True, markup=False)
        platform.wait_ready(stopped=lambda: told["stop"])
        if not told["stop"]:
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
    if (owner := find_supervisor(layout)) is not None:
        raise Conflict(taken(layout, owner))
    (layout.home / "logs").mkdir(parents=True, exist_ok=True)
    log = layout.log("supervisor")
    begin = log.stat().st_size if log.exists() else 0
    with log.open("ab") as output:
        process = subprocess.Popen(
            [
                *(sys.executable, "-m", "modelyard_cli.main", "--data-dir", str(layout.home)),
                *("--port-base", str(layout.port_base), "up"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline:
        if (code := process.poll()) is not None:
            raise _refusal(code, log, begin)
        # Only once its own processes live: what answers on these ports before that is somebody else's platform.
        own = all(living(layout.record(name)) is not None for name in (*SERVICES, "mlflow"))
        if own and find_supervisor(layout) == process.pid and all(state["ready"] for state in _states(layout)):
            print_urls(layout, prometheus=_has_prometheus(layout))
            return
        time.sleep(_POLL_S)
    raise Unavailable(f"the platform did not come up within {_START_S:.0f} s; see {layout.home / 'logs'}")


def _refusal(code: int, log: Path, begin: int) -> ModelyardError:
    """Return the error that a supervisor ended with, in the words that it left in its log."""
    with log.open("rb") as handle:
        handle.seek(begin)
        lines = handle.read().decode(errors="replace").strip().splitlines() or [f"see {log}"]
    kind = {exit_code_of(error): type(error) for error in (Invalid(), Conflict())}.get(code, Unavailable)
    return kind(lines[-1].removeprefix("error: "))


def _has_prometheus(layout: Layout) -> bool:
    return layout.record("prometheus").exists()


def down(context: typer.Context) -> None:
    """Stop the platform of this data folder, training jobs too; its data stays.

    Examples:
      modelyard down                          the platform of ./.modelyard
      modelyard --data-dir /tmp/two down      another one
    """
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
    """Show the services and what their health checks say. Exit code 5 when one of them is not ready.

    Examples:
      modelyard status
      modelyard status -o json | jq '.[] | select(.ready | not)'
      until modelyard status; do sleep 1; done
    """
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
            "checks": _checks,
        },
        output,
        prose=("checks",),
    )
    up = any(state["state"] != "away" for state in states)
    if up and not any(session.urls.values()) and find_supervisor(session.layout) is None:
        ERR.print("[yellow]nobody supervises these processes: `modelyard up` takes them over[/yellow]")
    if not all(state["ready"] for state in states if state["name"] in SERVICES):
        raise typer.Exit(exit_code_of(Unavailable()))


def _checks(state: dict[str, Any]) -> str:
    if state["state"] == "away":
        return "does not answer; start it with `modelyard up`"
    return "; ".join(f"{name}: {said}" for name, said in state["checks"].items() if said != "ok") or "ok"


def _states(layout: Layout, session: Session | None = None) -> list[dict[str, Any]]:
    states = []
    for name in (*SERVICES, "mlflow", *(["prometheus"] if _has_prometheus(layout) else [])):
        url = session.url(name) if session is not None else layout.url(name)
        try:
            answer = httpx.get(url + layout.probe(name), timeout=_PROBE_S, trust_env=False, verify=trust_for(url))
            ready = answer.status_code == 200
            checks = answer.json().get("checks", {}) if name in SERVICES else {}
            state = "ready" if ready else "unready"
        except (httpx.HTTPError, ValueError):
            ready, state, checks = False, "away", {}
        states.append({"name": name, "url": url, "ready": ready, "state": state, "checks": checks})
    return states
