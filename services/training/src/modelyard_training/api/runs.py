"""Runs over HTTP: submit, look, cancel, read the log and the Evaluation; and what jobs report."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import PlainTextResponse
from modelyard_common.db.idempotency import request_digest
from modelyard_common.errors import Invalid, NotFound
from modelyard_common.pagination import MAX_PAGE, decode_cursor, encode_cursor
from modelyard_contracts.evaluation_v1 import Evaluation
from modelyard_contracts.pages import Page
from modelyard_contracts.problem import FieldError
from modelyard_contracts.refs import ModelName
from modelyard_contracts.training_v1 import RunReport, RunState, RunView, ScheduleView, SubmitRunRequest

from modelyard_training.api.bounds import JsonRoute
from modelyard_training.api.services import ANYBODY, WRITERS, Services
from modelyard_training.api.views import run_view, schedule_view
from modelyard_training.domain.runs import Run, State, Trigger
from modelyard_training.usecases.submit import Submission

__all__ = ["router"]

router = APIRouter(prefix="/v1", tags=["runs"], route_class=JsonRoute)

_OURS = frozenset({"spec", "cron"})


@router.post("/runs", status_code=201, dependencies=WRITERS)
def submit_run(
    body: SubmitRunRequest,
    response: Response,
    services: Services,
    idempotency_key: Annotated[str | None, Header(min_length=1, max_length=200)] = None,
) -> RunView:
    """Ask for a training run; 200 with the run as it is when it was asked for before."""
    if body.trigger.kind in _OURS:
        error = FieldError(path="trigger.kind", message=f"{body.trigger.kind} runs are made by this service alone")
        raise Invalid("the trigger cannot be given", errors=(error,))
    submitted = services.submit(
        Submission(
            model=body.model,
            trigger=Trigger(body.trigger.kind, body.trigger.reason, body.trigger.episode),
            until_label_seq=body.until_label_seq,
            idempotency_key=idempotency_key,
            request_digest=request_digest("runs.submit", body.model_dump(mode="json")) if idempotency_key else "",
        )
    )
    if not submitted.new:
        response.status_code = 200
    return run_view(submitted.run)


@router.get("/runs", dependencies=ANYBODY)
def list_runs(
    services: Services,
    model: Annotated[ModelName | None, Query()] = None,
    state: RunState | None = None,
    cursor: str | None = None,
    limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 100,
) -> Page[RunView]:
    """Return runs, newest first."""
    before = decode_cursor(cursor)
    with services.transactions.read() as reader:
        runs = reader.runs(
            model=model,
            state=State(state) if state is not None else None,
            before=str(before) if before is not None else None,
            limit=limit,
        )
    more = encode_cursor(runs[-1].id) if len(runs) == limit else None
    return Page(items=tuple(run_view(run) for run in runs), next_cursor=more)


@router.get("/runs/{run_id}", dependencies=ANYBODY)
def get_run(run_id: str, services: Services) -> RunView:
    """Return a run."""
    return run_view(_find(services, run_id))


@router.post("/runs/{run_id}/cancel", dependencies=WRITERS)
def cancel_run(run_id: str, services: Services) -> RunView:
    """End a run; one that is at work ends when its process has."""
    return run_view(services.cancel(run_id))


@router.get("/runs/{run_id}/logs", dependencies=ANYBODY, response_class=PlainTextResponse)
def get_logs(
    run_id: str,
    services: Services,
    offset: int = 0,
    limit_bytes: Annotated[int, Query(ge=1, le=16 * 2**20)] = 2**20,
) -> PlainTextResponse:
    """Return what a run wrote from a byte offset on; the header ``modelyard-next-offset`` says where to go on."""
    _find(services, run_id)
    page = services.launcher.log(run_id, offset=offset, limit_bytes=limit_bytes)
    return PlainTextResponse(page.text, headers={"modelyard-next-offset": str(page.next_offset)})


@router.get("/runs/{run_id}/evaluation", dependencies=ANYBODY)
def get_evaluation(run_id: str, services: Services) -> Evaluation:
    """Return a run's Evaluation record."""
    run = _find(services, run_id)
    if run.evaluation is None:
        raise NotFound(f"run {run_id} is {run.state} and has no evaluation")
    return Evaluation.model_validate(run.evaluation)


@router.post("/runs/{run_id}/reports", dependencies=WRITERS)
def report_run(run_id: str, body: RunReport, services: Services) -> RunView:
    """Take what a job says about itself; a report that was taken before changes nothing."""
    return run_view(services.report(run_id, body))


@router.get("/schedules", dependencies=ANYBODY)
def list_schedules(services: Services, model: Annotated[ModelName | None, Query()] = None) -> Page[ScheduleView]:
    """Return cron triggers, with what became of their last due time."""
    with services.transactions.read() as reader:
        return Page(items=tuple(schedule_view(schedule) for schedule in reader.schedules(model)))


def _find(services: Services, run_id: str) -> Run:
    with services.transactions.read() as reader:
        run = reader.run(run_id)
    if run is None:
        raise NotFound(f"there is no run {run_id[:80]!r}")
    return run
