"""What people read: tables and verdicts of a record, as plain text and as Markdown. Pure; the record holds all."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bench.inference.goals import Goal, judge, lacking
from bench.inference.names import DIALECTS, MODELS
from bench.inference.record import Cell, Place, Record
from bench.tables import markdown, table

__all__ = ["ablations_markdown", "ablations_text", "as_markdown", "as_text", "reasons"]

Tables = Callable[[Sequence[str], Sequence[Sequence[str]]], str]


def as_text(record: Record) -> str:
    """Return a record for a terminal."""
    return "\n".join(_parts(record, table, lambda title: f"\n== {title}"))


def as_markdown(record: Record) -> str:
    """Return a record for a document, its titles one level below the section that holds it."""
    return "\n".join(_parts(record, markdown, lambda title: f"\n### {title}\n")).strip() + "\n"


def reasons(goal: Goal, record: Record) -> Sequence[str]:
    """Return why a goal was not measured, in the document's words; nothing if a server that it needs has none."""
    found = [_problems(server) for server in lacking(goal, record)]
    return list(dict.fromkeys(reason for server in found for reason in server)) if all(found) else []


def _parts(record: Record, draw: Tables, title: Callable[[str], str]) -> list[str]:
    parts = [_head(record)]
    parts += [title("Goals"), draw(*_goals(record))] if record.of_kind("peer") else []
    for place in sorted(record.places(), key=_rank):
        parts += [title(_name(place)), draw(*_figures(record, place))]
    parts += [title("Start and memory"), draw(*_served(record))]
    problems = [*_problems(record)]
    if problems:
        parts += [title("What does not count"), *(f"- {problem}" for problem in problems)]
    return parts


def _head(record: Record) -> str:
    versions = ", ".join(f"{name} {number}" for name, number in record.versions.items())
    events = ", ".join(f"{count} ({server})" for server, count in record.events.items())
    lines = [
        f"Taken {record.taken} at commit {record.commit} on {record.machine}.",
        f"Cores: {record.cores}. Neighbours: {record.neighbours}.",
        f"{record.rounds} rounds of {record.seconds:g} s at each place; figures are medians of the rounds.",
        f"Versions: {versions}.",
        _ceiling(record),
    ]
    if events:
        lines.append(f"Drift's stand-in was reachable; prediction events that it took meanwhile: {events}.")
    return "\n\n".join(line for line in lines if line)


def _ceiling(record: Record) -> str:
    """Say whether the load could have been what was measured."""
    cells = [cell for cell in record.cells if cell.counts]
    if not cells:
        return "Nothing counts."
    quickest = max(cells, key=lambda cell: cell.rate)
    busy = max(turn.load_cpu_s / turn.seconds for cell in cells for turn in cell.rounds)
    return (
        f"The load (h2load) took {quickest.load_us:.1f} µs of CPU a request at the highest rate "
        f"({quickest.rate:,.0f}/s, {record.titles[quickest.server]}), so its ceiling is about "
        f"{1e6 / quickest.load_us:,.0f}/s; at most {busy:.0%} of its core were busy."
    )


def _goals(record: Record) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    rows = [
        [goal.what, goal.target, found.measured, found.by_cpu, found.against, found.verdict]
        for goal, found in judge(record)
    ]
    return ["goal", "target", "measured", "by CPU", "against", "verdict"], rows


def _rank(place: Place) -> tuple[int, int, int, int]:
    models, dialects = list(MODELS), list(DIALECTS)
    return models.index(place.model), dialects.index(place.dialect), place.rows, place.connections


def _name(place: Place) -> str:
    rows = f"{place.rows} row{'' if place.rows == 1 else 's'}"
    connections = f"{place.connections} connection{'' if place.connections == 1 else 's'}"
    return f"{MODELS[place.model].capitalize()}: {rows}, {connections}, {DIALECTS[place.dialect]}"


def _figures(record: Record, place: Place) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    cells = record.at(place)
    ours = cells.get("modelyard")
    rows = [[record.titles[server], *_cells(cell, ours)] for server, cell in cells.items()]
    return ["server", "requests/s", "p50 ms", "p99 ms", "CPU µs", "ours is x", "by CPU x"], rows


def _cells(cell: Cell, ours: Cell | None) -> list[str]:
    figures = [f"{cell.rate:,.0f}", f"{cell.p50_ms:.2f}", f"{cell.p99_ms:.2f}", f"{cell.cpu_us:,.0f}"]
    if ours is None or ours is cell:
        return [*figures, "", ""]
    return [*figures, f"{ours.rate / cell.rate:.2f}", f"{cell.cpu_us / ours.cpu_us:.2f}"]


def _served(record: Record) -> tuple[Sequence[str], Sequence[Sequence[str]]]:
    def figure(value: float | None, digits: int) -> str:
        return "-" if value is None else f"{value:.{digits}f}"

    rows = [
        [
            record.titles[one.server],
            one.model,
            figure(one.start_s, 2),
            figure(one.start_cpu_s, 2),
            figure(one.rss_mib, 0),
            figure(one.pss_mib, 0),
            figure(one.processes, 0),
        ]
        for one in record.served
        if one.problem is None
    ]
    return ["server", "model", "start s", "start CPU s", "RSS MiB", "PSS MiB", "processes"], rows


def _problems(record: Record) -> Sequence[str]:
    found = [f"{record.titles[server]}: not installed: {_short(why)}" for server, why in record.missing.items()]
    found += [
        f"{record.titles[one.server]}, {one.model}: {_short(one.problem)}" for one in record.served if one.problem
    ]
    found += [
        f"{record.titles[cell.server]}, {_name(cell.place)}: {_short(cell.problem)}"
        for cell in record.cells
        if cell.problem
    ]
    return [*found, *(f"{_name(place)}: no time was left" for place in record.cut)]


def _short(text: str) -> str:
    return " ".join(text.split())[:200]


def ablations_text(record: Record) -> str:
    """Return what each choice buys, for a terminal."""
    return "\n".join(_ablations(record, table, lambda title: f"\n== {title}"))


def ablations_markdown(record: Record) -> str:
    """Return the same for a document."""
    return "\n".join(_ablations(record, markdown, lambda title: f"\n### {title}\n")).strip() + "\n"


def _ablations(record: Record, draw: Tables, title: Callable[[str], str]) -> list[str]:
    parts = [_head(record)]
    for place in record.places():
        cells = record.at(place)
        shipped = cells.get("modelyard")
        if shipped is None:
            continue
        rows = [[record.titles[server], *_undone(cell, shipped)] for server, cell in cells.items()]
        heads = ["undone", "requests/s", "p50 ms", "p99 ms", "CPU µs", "CPU x as shipped"]
        parts += [title(_name(place)), draw(heads, rows)]
    problems = [*_problems(record)]
    if problems:
        parts += [title("What does not count"), *(f"- {problem}" for problem in problems)]
    return parts


def _undone(cell: Cell, shipped: Cell) -> list[str]:
    figures = [f"{cell.rate:,.0f}", f"{cell.p50_ms:.2f}", f"{cell.p99_ms:.2f}", f"{cell.cpu_us:,.0f}"]
    return [*figures, f"{cell.cpu_us / shipped.cpu_us:.2f}"]
