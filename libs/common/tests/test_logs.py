"""Logs: one ECS JSON object a line whatever happens, and no secret in any of them."""

from __future__ import annotations

import contextvars
import io
import json
import logging
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import APIRouter, Body
from modelyard_common import context
from modelyard_common.app import create_app
from modelyard_common.auth.tokens import hash_token
from modelyard_common.health import Health
from modelyard_common.identity import Identity
from modelyard_common.logs import configure_logging, get_logger
from modelyard_common.settings import ServiceSettings
from modelyard_common.testing import running
from pydantic import BaseModel


class Lines:
    """What was logged."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def documents(self) -> list[dict[str, Any]]:
        return [json.loads(line, parse_constant=_refuse) for line in self.stream.getvalue().splitlines()]

    @property
    def last(self) -> dict[str, Any]:
        return self.documents[-1]


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


@pytest.fixture
def lines() -> Iterator[Lines]:
    root = logging.getLogger()
    before = root.handlers[:], root.level
    lines = Lines()
    configure_logging(Identity("test-service", "staging"), "debug", lines.stream)
    yield lines
    root.handlers[:] = before[0]
    root.setLevel(before[1])


def test_an_event_is_one_line_with_its_fields_apart(lines: Lines) -> None:
    get_logger("modelyard_test").info("run.started", run="r-1", rows=3)

    line = lines.last
    assert line["message"] == line["event.action"] == "run.started"
    assert line["modelyard"] == {"run": "r-1", "rows": 3}
    assert (line["log.level"], line["service.name"], line["log.logger"]) == ("info", "test-service", "modelyard_test")
    assert (line["ecs.version"], line["service.environment"]) == ("9.4.0", "staging")
    assert datetime.fromisoformat(line["@timestamp"]).utcoffset() is not None
    assert "http.request.id" not in line
    assert "error.type" not in line


def test_a_failure_carries_its_stack(lines: Lines) -> None:
    try:
        raise KeyError("lost")
    except KeyError as exc:
        get_logger("t").error("round.failed", error=exc, round=1)

    line = lines.last
    assert (line["error.type"], line["error.message"], line["log.level"]) == ("KeyError", "'lost'", "error")
    assert "test_a_failure_carries_its_stack" in line["error.stack_trace"]
    assert line["modelyard"] == {"round": 1}


def test_a_line_knows_its_request_and_trace(lines: Lines) -> None:
    def run() -> None:
        context.request_id.set("r-1")
        context.traceparent.set(f"00-{'a' * 32}-{'b' * 16}-01")
        get_logger("t").warning("thing.happened")

    contextvars.copy_context().run(run)

    assert (lines.last["http.request.id"], lines.last["trace.id"], lines.last["span.id"]) == (
        "r-1",
        "a" * 32,
        "b" * 16,
    )


def test_a_trace_begins_with_the_first_line_of_a_request_and_goes_on(lines: Lines) -> None:
    seen: list[str | None] = []

    def run() -> None:
        context.request_id.set("r-1")
        for _ in range(2):
            get_logger("t").warning("thing.happened")
            seen.append(lines.last["trace.id"])
        seen.append((context.trace_in_hand() or "").split("-")[1])

    contextvars.copy_context().run(run)
    get_logger("t").warning("thing.happened")

    assert len(set(seen)) == 1
    assert "trace.id" not in lines.last  # nothing begins one outside of a request


CYCLE: dict[str, Any] = {}
CYCLE["self"] = CYCLE


@pytest.mark.parametrize(
    "value",
    [
        float("nan"),
        float("inf"),
        CYCLE,
        {(1, 2): 3},
        {1, 2},
        Path("/x"),
        b"\xff",
        "line\nbreak",
        "ü",
        datetime(2026, 1, 1),
    ],
    ids=repr,
)
def test_no_field_breaks_a_line(lines: Lines, value: object) -> None:
    get_logger("t").info("thing.happened", value=value)

    assert len(lines.documents) == 1
    assert lines.last["message"] == "thing.happened"


def test_records_of_libraries_are_lines_too(lines: Lines) -> None:
    logging.getLogger("library").warning("%s of %d", "one", 2)

    assert lines.last["message"] == "one of 2"
    assert "event.action" not in lines.last


def test_the_level_is_kept(lines: Lines) -> None:
    configure_logging(Identity("test-service"), "warning", lines.stream)
    get_logger("t").info("quiet")
    get_logger("t").warning("loud")

    assert [line["message"] for line in lines.documents] == ["loud"]


def test_what_ecs_has_a_name_for_goes_under_that(lines: Lines) -> None:
    get_logger("t").info("thing.happened", ecs={"event.duration": 7}, mine=1)

    assert (lines.last["event.duration"], lines.last["modelyard"]) == (7, {"mine": 1})


def test_a_refused_value_is_not_quoted(lines: Lines) -> None:
    value = "row-data"  # apart from the line that fails, which a stack trace shows
    try:
        try:
            Row.model_validate({"age": value})
        except ValueError as exc:
            raise RuntimeError("the row is wrong") from exc
    except RuntimeError as exc:
        get_logger("t").error("row.refused", error=exc)
        get_logger("t").error("row.refused", error=exc.__cause__)

    assert "row-data" not in lines.stream.getvalue()
    assert lines.last["error.message"].startswith("Row: age: Input should be a valid integer")
    assert "the row is wrong" in lines.documents[0]["error.stack_trace"]


class Row(BaseModel):
    age: int


def test_neither_tokens_nor_bodies_reach_the_log(lines: Lines, tmp_path: Path) -> None:
    router = APIRouter()

    @router.post("/rows")
    def rows(row: Row) -> int:
        return row.age

    @router.post("/fails")
    def fails(row: Any = Body()) -> None:
        raise RuntimeError("a bug")

    tokens = tmp_path / "tokens"
    tokens.write_text(f"app client {hash_token('token-of-app')}\n")
    settings = ServiceSettings(auth="token", tokens_file=tokens)
    app = create_app(service="s", settings=settings, routers=[router], health=Health())
    with running(app) as url:
        for token in ("token-of-app", "token-guessed"):
            headers = {"authorization": f"Bearer {token}"}
            for path in ("/rows", "/fails", "/nothing"):
                httpx.post(url + path, json={"age": "row-data"}, headers=headers, params={"q": "query-data"})

    written = lines.stream.getvalue()
    assert "request.failed" in written
    for secret in ("token-of-app", "token-guessed", hash_token("token-of-app"), "row-data", "query-data"):
        assert secret not in written
