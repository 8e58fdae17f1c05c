"""Inference beside its peers, in one run: throughput, latency, CPU, memory and start, and the goals as ratios.

The same rows go to every server, each in a process of its own on one core, the load on another: an empty ASGI echo as
the limit of its server; our service as it is deployed, with routing, validation, the log of payloads, metrics and ids;
the peers, each with its own pinned packages under ``.tools/peers``. Answers are compared with scikit-learn's before a
figure counts; a failed request makes it not count. Compare ratios, never the numbers of different machines.

Ctrl-C begins nothing else, and reports what was measured by then. The document and its record are renewed by
``--publish docs``, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from pathlib import Path

from bench.inference import document, variants
from bench.inference.campaign import Plan, run
from bench.inference.contenders import CONTENDERS, Contender
from bench.inference.load import LoadMissing
from bench.inference.names import DIALECTS, MODELS
from bench.inference.places import Extent, places
from bench.inference.record import Record
from bench.inference.report import ablations_text, as_markdown, as_text

ALWAYS = ("echo", "modelyard")
QUICK = (*ALWAYS, "fastapi")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure, print and write; return 1 where nothing of ours counts."""
    given = _parser().parse_args(argv)
    if given.markdown is not None:
        print(as_markdown(Record.read(given.markdown)), end="")
        return 0
    plan = _plan(given)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: _stop(plan))
    try:
        record = run(plan, lambda line: print(f"{datetime.now():%H:%M:%S} {line}", file=sys.stderr, flush=True))
    except LoadMissing as exc:
        print(exc, file=sys.stderr)
        return 2
    text = ablations_text(record) if given.ablations else as_text(record)
    print(text)
    name = "ablations" if given.ablations else "inference"
    record.write(given.results / f"{name}.json")
    (given.results / f"{name}.txt").write_text(text + "\n")
    if given.publish is not None:
        document.publish(record, name, given.publish)
    return 0 if any(cell.counts and cell.server == "modelyard" for cell in record.cells) else 1


def _stop(plan: Plan) -> None:
    """Begin nothing else; at the second time leave, which ends the servers too."""
    if plan.stopped.is_set():
        sys.exit(130)
    plan.stopped.set()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    keys = [contender.key for contender in CONTENDERS if contender.key not in ALWAYS]
    parser.add_argument("--quick", action="store_true", help="the echo, FastAPI and us; one model; short")
    parser.add_argument("--ablations", action="store_true", help="instead of peers: ours with one choice undone each")
    parser.add_argument("--peers", type=_names(keys), default=None, help=f"beside the echo and us: {','.join(keys)}")
    parser.add_argument("--models", type=_names(MODELS), default=None, help=",".join(MODELS))
    parser.add_argument("--dialects", type=_names(DIALECTS), default=tuple(DIALECTS), help=",".join(DIALECTS))
    parser.add_argument("--rows", type=int, nargs="+", default=None, help="rows a request (default: 1 32)")
    parser.add_argument("--connections", type=int, nargs="+", default=None, help="(default: 1 16 64)")
    parser.add_argument("--rounds", type=int, default=None, help="turns that every server gets (default: 3)")
    parser.add_argument("--seconds", type=float, default=None, help="length of a turn (default: 1)")
    parser.add_argument("--minutes", type=float, default=25.0, help="after which no other place is begun")
    parser.add_argument("--results", type=Path, default=Path("build/bench"), help="folder for the record and the text")
    parser.add_argument("--note", default="", help="what is to be known of the machine, for the record")
    parser.add_argument("--publish", type=Path, metavar="DOCS", help="renew performance.md and its record there")
    parser.add_argument("--markdown", type=Path, metavar="RECORD", help="measure nothing: print a record as Markdown")
    return parser


def _names(known: Iterable[str]) -> Callable[[str], tuple[str, ...]]:
    def read(text: str) -> tuple[str, ...]:
        names = tuple(text.split(","))
        if unknown := set(names) - set(known):
            raise argparse.ArgumentTypeError(f"{min(unknown)!r} is not known; there is {', '.join(known)}")
        return names

    return read


def _plan(given: argparse.Namespace) -> Plan:
    contenders = _contenders(given)
    short = given.quick or given.ablations
    models = given.models or (("linear", "forest") if given.ablations else ("linear",) if short else tuple(MODELS))
    rows = given.rows or ([1] if given.quick else [1, 32])
    connections = given.connections or ([1, 64] if given.quick else [1, 16, 64])
    extent: Extent = "ablations" if given.ablations else "quick" if given.quick else "all"
    return Plan(
        contenders=contenders,
        places=places(models, given.dialects, rows, connections, extent),
        rounds=given.rounds or (2 if given.quick else 3),
        seconds=given.seconds or (0.5 if short else 1.0),
        budget_s=given.minutes * 60,
        neighbours=given.note,
    )


def _contenders(given: argparse.Namespace) -> tuple[Contender, ...]:
    if given.ablations:
        return variants.VARIANTS
    if given.peers is not None:
        wanted = {*ALWAYS, *given.peers}
    else:
        wanted = set(QUICK) if given.quick else {contender.key for contender in CONTENDERS}
    return tuple(contender for contender in CONTENDERS if contender.key in wanted)


if __name__ == "__main__":
    sys.exit(main())
