"""A run: for each model all servers are started, checked, and asked in turns, round by round.

Rounds take turns (A B C, A B C), so that a slow moment of the machine meets all alike; figures are medians of rounds.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench.inference.asks import Ask, answer_of
from bench.inference.contenders import Contender, Start, python_of
from bench.inference.environments import OURS, PEERS, ROOT, NotInstalled, interpreter
from bench.inference.load import find_h2load, measure
from bench.inference.models import Kit, Question, make_kit
from bench.inference.processes import Cores, Process, started
from bench.inference.record import Cell, Place, Record, Round, Served

__all__ = ["Plan", "run"]

_START_S = 120.0
_WARM_S = 0.3
_ANSWERS = 4
_SLOW_S = 3.0
"""As long as a turn gets for a server that answers each caller fewer times than that in a turn."""
_OURS = ("scikit-learn", "onnxruntime", "fastapi", "uvicorn", "uvloop", "httptools", "numpy")


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        seconds: length of a turn.
        budget_s: each model gets its part of it, after which no other place of it is begun.
        stopped: set to end the run early; what was measured is kept.
    """

    contenders: Sequence[Contender]
    places: Sequence[Place]
    rounds: int
    seconds: float
    budget_s: float
    neighbours: str = ""
    stopped: threading.Event = field(default_factory=threading.Event)

    def is_over(self, until: float) -> bool:
        """Return whether no other place is begun."""
        return self.stopped.is_set() or time.monotonic() > until

    @property
    def models(self) -> tuple[str, ...]:
        """Return the models, in order."""
        return tuple(dict.fromkeys(place.model for place in self.places))


@dataclass(slots=True)
class _Running:
    """A server that has answered right."""

    contender: Contender
    start: Start
    process: Process
    served: Served
    asked: dict[tuple[Ask, int], str | None] = field(default_factory=dict)
    """What is wrong with its answers, by protocol and number of rows."""


@dataclass(slots=True)
class _Taken:
    served: list[Served] = field(default_factory=list)
    cells: list[Cell] = field(default_factory=list)
    missing: dict[str, str] = field(default_factory=dict)
    cut: list[Place] = field(default_factory=list)
    events: dict[str, int] = field(default_factory=dict)


def run(plan: Plan, say: Callable[[str], None]) -> Record:
    """Measure, and return what was measured. Raises LoadMissing."""
    find_h2load()
    cores, begun_s, taken = Cores.split(), time.monotonic(), _Taken()
    begun, commit = os.getloadavg()[0], _commit()
    say(f"{cores.sentence}; {plan.rounds} rounds of {plan.seconds:g} s")
    pythons = _pythons(plan.contenders, taken.missing, say)
    rows = tuple(sorted({place.rows for place in plan.places}))
    with tempfile.TemporaryDirectory(prefix="modelyard-bench-") as name, _own_core(cores):
        for part, model in enumerate(plan.models, start=1):
            until = begun_s + plan.budget_s * part / len(plan.models)
            if plan.is_over(until):
                taken.cut += [place for place in plan.places if place.model == model]
                continue
            say(f"{model}: fit, convert, start")
            kit = make_kit(model, Path(name) / model, rows)
            with ExitStack() as stack:
                running = list(_start_all(plan, kit, Path(name) / model, pythons, cores, taken, stack, say))
                for place in (place for place in plan.places if place.model == model):
                    if plan.is_over(until):
                        taken.cut.append(place)
                    else:
                        taken.cells += _measure_place(plan, place, running, kit, cores, say)
                taken.served += [_with_memory(server) for server in running]
                for server in running:
                    if server.start.around is not None:
                        taken.events[f"{server.contender.key}, {model}"] = _events_taken(server.start.around.argv)
    load = f"load average {begun:.1f} before, {os.getloadavg()[0]:.1f} after"
    return Record(
        taken=datetime.now(UTC).isoformat(timespec="minutes"),
        commit=commit,
        machine=_machine(),
        cores=cores.sentence,
        neighbours=f"{plan.neighbours}; {load}" if plan.neighbours else load,
        versions=_versions(plan.contenders),
        rounds=plan.rounds,
        seconds=plan.seconds,
        titles={contender.key: contender.title for contender in plan.contenders},
        kinds={contender.key: contender.kind for contender in plan.contenders},
        batching=tuple(contender.key for contender in plan.contenders if contender.batches),
        served=tuple(taken.served),
        cells=tuple(taken.cells),
        missing=taken.missing,
        cut=tuple(taken.cut),
        events=taken.events,
    )


def _pythons(contenders: Sequence[Contender], missing: dict[str, str], say: Callable[[str], None]) -> Mapping[str, str]:
    found: dict[str, str] = {}
    for contender in contenders:
        try:
            found[contender.key] = python_of(contender, interpreter)
        except NotInstalled as exc:
            missing[contender.key] = str(exc)
            say(f"{contender.title}: not installed: {exc}")
    return found


def _start_all(
    plan: Plan,
    kit: Kit,
    folder: Path,
    pythons: Mapping[str, str],
    cores: Cores,
    taken: _Taken,
    stack: ExitStack,
    say: Callable[[str], None],
) -> Iterator[_Running]:
    """Start one server after the other, so that none is slowed by another's start; each is stopped until its turn."""
    for contender in plan.contenders:
        if contender.key not in pythons or plan.stopped.is_set():
            continue
        home = folder / contender.key
        start = contender.start(kit, home, pythons[contender.key])
        if start.around is not None:
            around = stack.enter_context(started(start.around.argv, start.around.env, cores.around, home / "around"))
            _wait_for_port(around, int(start.around.argv[start.around.argv.index("--port") + 1]))
        process = stack.enter_context(started(start.command.argv, start.command.env, cores.servers, home))
        problem = _wait(start, process, kit)
        served = Served(server=contender.key, model=kit.name, problem=problem)
        if problem is not None:
            say(f"{contender.title}: {problem}")
            taken.served.append(served)
            process.pause()
            continue
        took = {"start_s": time.monotonic() - process.spawned, "start_cpu_s": process.cpu_s()}
        process.settle()
        process.pause()
        yield _Running(contender, start, process, served.model_copy(update=took))


def _wait(start: Start, process: Process, kit: Kit) -> str | None:
    """Wait for the first right answer; return what is wrong if there is none."""
    ask = start.asks["json"]
    question = kit.questions[min(kit.questions)][0]
    until, last = time.monotonic() + _START_S, "no answer"
    while time.monotonic() < until and process.is_running:
        try:
            if _is_right(ask, start.port_of(ask), question):
                return None
            last = "wrong answer"
        except OSError as exc:
            last = str(exc)
        time.sleep(0.01)
    return f"did not start ({last}): {process.last_words()}"


def _wait_for_port(process: Process, port: int) -> None:
    until = time.monotonic() + _START_S
    while time.monotonic() < until and process.is_running:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/taken", timeout=2):  # loopback
                return
        except OSError:
            time.sleep(0.05)
    raise RuntimeError(f"registry and drift did not start: {process.last_words()}")


def _is_right(ask: Ask, port: int, question: Question) -> bool:
    body, headers = answer_of(ask, port, ask.write(question.rows))
    return not ask.predicts or tuple(ask.read(body, headers)) == question.labels


def _measure_place(
    plan: Plan, place: Place, running: Sequence[_Running], kit: Kit, cores: Cores, say: Callable[[str], None]
) -> list[Cell]:
    speaking = [server for server in running if place.dialect in server.start.asks]
    cells = {server.contender.key: Cell(server=server.contender.key, place=place) for server in speaking}
    seconds: dict[str, float] = {}
    for server in speaking:
        problem = _check(server, place, kit)
        if problem is not None:
            cells[server.contender.key] = cells[server.contender.key].model_copy(update={"problem": problem})
            continue
        warm = _turn(server, place, kit, cores, _WARM_S)
        seconds[server.contender.key] = _long_enough(warm, plan.seconds)
    for _ in range(plan.rounds):
        for server in speaking:
            cell = cells[server.contender.key]
            if cell.problem is None:
                cells[server.contender.key] = _with_turn(
                    cell, _turn(server, place, kit, cores, seconds[server.contender.key])
                )
    for cell in cells.values():
        figures = f"{cell.rate:.0f}/s, p99 {cell.p99_ms:.2f} ms" if cell.counts else f"does not count: {cell.problem}"
        rows = f"{place.rows} row{'' if place.rows == 1 else 's'}"
        say(f"{place.model}, {place.dialect}, {rows}, c={place.connections}: {cell.server}: {figures}")
    return list(cells.values())


def _check(server: _Running, place: Place, kit: Kit) -> str | None:
    """Return what is wrong with the answers to many questions at once: batches must not mix callers up."""
    ask = server.start.asks[place.dialect]
    key = (ask, place.rows)
    if key not in server.asked:
        questions = kit.questions[place.rows] * 2
        try:
            with server.process.going(), ThreadPoolExecutor(len(questions)) as callers:
                port = server.start.port_of(ask)
                right = list(callers.map(lambda question: _is_right(ask, port, question), questions))
            wrong = right.count(False)
            server.asked[key] = f"{wrong} of {len(right)} answers are not scikit-learn's" if wrong else None
        except (OSError, LookupError, ValueError) as exc:
            server.asked[key] = f"does not answer: {exc}"
    return server.asked[key]


def _long_enough(warm: Round | str, seconds: float) -> float:
    """Return how long a turn lasts: as planned, unless a server is so slow that each caller gets few answers."""
    if isinstance(warm, str):
        return max(seconds, _SLOW_S)
    return min(max(seconds, _ANSWERS * warm.p50_ms / 1e3), max(seconds, _SLOW_S))


def _turn(server: _Running, place: Place, kit: Kit, cores: Cores, seconds: float) -> Round | str:
    """Return a turn, or what went wrong. All other servers are stopped meanwhile."""
    with server.process.going():
        return _asked(server, place, kit, cores, seconds)


def _asked(server: _Running, place: Place, kit: Kit, cores: Cores, seconds: float) -> Round | str:
    ask = server.start.asks[place.dialect]
    port = server.start.port_of(ask)
    message = ask.write(kit.questions[place.rows][0].rows)
    try:
        length = len(answer_of(ask, port, message)[0])
        before = server.process.cpu_s()
        load = measure(
            ask,
            port,
            message,
            connections=place.connections,
            seconds=seconds,
            answer_bytes=length,
            core=cores.load,
        )
        spent_s = server.process.cpu_s() - before
    except (OSError, RuntimeError, subprocess.TimeoutExpired) as exc:
        return str(exc)
    finally:
        server.process.settle()
    if server.contender.kind == "ours":
        # What it writes down and sends to drift later belongs to these requests. Of others this would be the
        # requests that were under way at the end, which nobody counted.
        spent_s = server.process.cpu_s() - before
    return Round(
        seconds=seconds,
        requests=load.requests,
        failed=load.failed,
        p50_ms=round(load.p50_ms, 4),
        p99_ms=round(load.p99_ms, 4),
        server_cpu_s=round(spent_s, 3),
        load_cpu_s=round(load.load_cpu_s, 3),
    )


def _with_turn(cell: Cell, turn: Round | str) -> Cell:
    if isinstance(turn, str):
        return cell.model_copy(update={"problem": turn})
    problem = f"{turn.failed} of {turn.requests + turn.failed} requests failed" if turn.failed else None
    return cell.model_copy(update={"rounds": (*cell.rounds, turn), "problem": problem})


def _with_memory(server: _Running) -> Served:
    usage = server.process.usage()
    return server.served.model_copy(
        update={"rss_mib": round(usage.rss_mib, 1), "processes": usage.processes}
        | ({} if usage.pss_mib is None else {"pss_mib": round(usage.pss_mib, 1)})
    )


def _events_taken(argv: Sequence[str]) -> int:
    port = argv[argv.index("--port") + 1]
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/taken", timeout=10) as answer:  # loopback
        return int(json.load(answer))


@contextmanager
def _own_core(cores: Cores) -> Iterator[None]:
    """Keep this process off the servers' core."""
    if cores.load is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cores.load})
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _commit() -> str:
    found = subprocess.run(
        ["git", "-C", str(ROOT), "rev-parse", "--short=12", "HEAD"], check=False, capture_output=True, text=True
    )
    return found.stdout.strip() or "unknown"


def _machine() -> str:
    cpus = [line.split(":", 1)[1].strip() for line in _cpuinfo() if line.startswith("model name")]
    memory_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    name = cpus[0] if cpus else platform.processor() or platform.machine()
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return f"{os.cpu_count()} cores ({name}), {memory_gib:.0f} GiB, {platform.system()} {platform.release()}, {python}"


def _cpuinfo() -> Sequence[str]:
    path = Path("/proc/cpuinfo")
    return path.read_text().splitlines() if path.exists() else ()


def _versions(contenders: Sequence[Contender]) -> dict[str, str]:
    found = {name: version(name) for name in _OURS}
    for environment in dict.fromkeys(contender.environment for contender in contenders):
        if environment not in {None, OURS}:
            pins = (PEERS / f"{environment}.txt").read_text().splitlines()
            found |= dict(line.split("==") for line in pins if line.startswith(f"{environment}=="))
    return found
