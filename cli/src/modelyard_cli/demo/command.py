"""`modelyard demo`: start a platform on an empty folder, apply an example, replay its stream, tell the story."""

from __future__ import annotations

import json
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated, Any

import typer
from modelyard_client import Modelyard
from modelyard_common.errors import ModelyardError, Unavailable
from modelyard_contracts.training_v1 import TERMINAL_STATES
from rich.console import Console

from modelyard_cli.commands.platform import print_urls, stop_on_signals
from modelyard_cli.demo.holding import Holder
from modelyard_cli.demo.replayer import Replayer
from modelyard_cli.demo.story import Story
from modelyard_cli.demo.stream import Stream, find_example, load_stream
from modelyard_cli.demo.summary import frozen_answers, summarise, write_record
from modelyard_cli.demo.view import View
from modelyard_cli.embedded.layout import Layout
from modelyard_cli.embedded.platform import Platform
from modelyard_cli.exits import RunEndedBadly
from modelyard_cli.manifests import with_uploaded_data
from modelyard_cli.session import Session

__all__ = ["demo"]

_FIRST_VERSION_S = 180.0


class _Interrupted(Exception):
    """Ctrl-C."""


def demo(
    context: typer.Context,
    example: Annotated[str, typer.Argument(help="An example with a stream: electricity, sea.")] = "electricity",
    finite: Annotated[bool, typer.Option("--exit", help="Stop the platform at the end.")] = False,
    as_json: Annotated[
        bool, typer.Option("--json", help="The last line of standard output is one JSON object.")
    ] = False,
    data: Annotated[Path | None, typer.Option(help="Another folder with history.parquet and stream.parquet.")] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Only so many rows of the stream.")] = None,
) -> None:
    """Watch the loop close on real data: train, serve, drift, retrain, judge, roll out.

    Starts a platform on an empty folder of its own, applies the example's manifest, and replays its recorded stream
    against the inference API in the order of event time; true labels are sent when they would have been known.
    """
    session: Session = context.obj
    layout = Layout(session.layout.home / f"demo-{example}", session.layout.port_base)
    console = Console(stderr=as_json, highlight=False)
    told = stop_on_signals()
    stream = load_stream(find_example(example), data, limit)
    view = View(console, len(stream))
    view.say(
        f"[bold]{stream.name}[/bold]: {stream.history_rows} rows to learn from, {len(stream)} rows to live through"
    )
    started = time.monotonic()
    platform = Platform(layout, lambda line: view.say(f"[dim]platform[/dim] {line}"))
    _empty(layout)
    platform.start()
    try:
        result = _play(platform, stream, view, started=started, told=told)
        _tell(console, result, layout)
        if not finite:
            print_urls(layout, prometheus="prometheus" in platform.processes)
            view.say("The platform goes on serving. Ctrl-C stops it.")
            platform.run(lambda: told["stop"])
    except _Interrupted:
        view.say("stopped before the end")
    finally:
        view.say("[dim]stopping …[/dim]")
        platform.stop()
    if as_json and not told["stop"]:
        sys.stdout.write(json.dumps(result) + "\n")
        sys.stdout.flush()


def _empty(layout: Layout) -> None:
    """Forget an earlier demo: its folder is its own. Left alone while a platform runs there, which start refuses."""
    probe = Platform(layout, lambda _: None)
    layout.home.mkdir(parents=True, exist_ok=True)
    probe.claim()
    probe.abandon()
    shutil.rmtree(layout.home, ignore_errors=True)


def _play(platform: Platform, stream: Stream, view: View, *, started: float, told: dict[str, bool]) -> dict[str, Any]:
    layout = platform.layout
    client = Session(layout, {}, None).connect()
    story = Story(client, stream.name, stream.history_rows)

    def keep_alive() -> None:
        platform.watch()
        if told["stop"]:
            raise _Interrupted

    view.say(f"[dim]platform[/dim] starting MLflow and four services on {layout.home}")
    platform.wait_ready("registry", "training")
    manifest, _ = with_uploaded_data(stream.manifest_of_history(), stream.data, client.training)
    client.registry.apply(manifest)
    view.say(f"[dim]platform[/dim] applied {stream.folder.name}/model.yaml after {time.monotonic() - started:.1f} s")
    view.story = story
    holder = Holder(client, stream.name, keep_alive)

    def seen(done: int) -> None:
        keep_alive()
        view.rows(done, f"held {holder.held_s:.0f} s")

    replayer = Replayer(stream, [layout.url("inference")], client.drift, holder, keep_alive, seen)
    with view.showing():
        _wait_served(client, stream.name, keep_alive)
        replayer.run()
    first = replayer.first_correct
    frozen = frozen_answers(client, stream, story)
    write_record(layout.home / "demo" / "answers.csv", stream, replayer.answers, frozen)
    result = summarise(
        stream,
        story,
        replayer.answers,
        frozen=frozen,
        held_s=holder.held_s,
        first_prediction_s=None if first is None else first - started,
    )
    (layout.home / "demo" / "result.json").write_text(json.dumps(result, indent=1))
    client.close()
    return result


def _wait_served(client: Modelyard, model: str, keep_alive: Any) -> None:
    """Wait until the first version answers.

    Raises:
        RunEndedBadly: its run failed; says why.
        Unavailable: nothing is served after three minutes.
    """
    deadline = time.monotonic() + _FIRST_VERSION_S
    while not client.inference.ready(model):
        keep_alive()
        try:
            runs = client.training.runs(model)
        except ModelyardError:
            runs = []
        ended = [run for run in runs if run.state in TERMINAL_STATES]
        if ended and ended[0].state != "succeeded":
            raise RunEndedBadly(f"the first run {ended[0].state}: {ended[0].reason}")
        if time.monotonic() > deadline:
            raise Unavailable(f"no version of {model} is served after {_FIRST_VERSION_S:.0f} s")
        time.sleep(0.1)


def _tell(console: Console, result: dict[str, Any], layout: Layout) -> None:
    gain = result["accuracy_platform"] - result["accuracy_frozen"]
    promoted = sum(1 for v in result["versions"] for r in v["rollout"] if r["state"] == "completed")
    refused = sum(
        1 for v in result["versions"] if v["verdict"] and v["verdict"]["decision"] in ("keep", "insufficient")
    )
    lines = [
        "",
        f"[bold]{result['requests']}[/bold] requests, {result['failed_requests']} failed; "
        f"p50 {result['p50_ms']} ms, p99 {result['p99_ms']} ms; held {result['held_s']} s; "
        f"first correct prediction after {result['first_prediction_s']} s",
        f"{len(result['episodes'])} episodes, {len(result['runs'])} runs, {len(result['versions'])} versions, "
        f"{promoted} rollouts completed, {refused} versions refused by the gates; "
        f"champion: version {result['champion']}",
        f"accuracy  platform [bold]{result['accuracy_platform']:.4f}[/bold]   "
        f"first version left alone {result['accuracy_frozen']:.4f} ({gain:+.4f})   "
        f"naive {result['accuracy_naive']:.4f}",
        f"[dim]every answer: {layout.home / 'demo' / 'answers.csv'}[/dim]",
    ]
    for line in lines:
        console.print(line, soft_wrap=True)
