"""The pipeline of a run: load, validate, split, fit, package, evaluate, track, register. Reads as the story it is."""

from __future__ import annotations

from importlib.metadata import version
from typing import Any

from modelyard_bundle.packaging import Packed, environment, pack
from modelyard_bundle.runtimes.base import Predicted, positive_scores
from modelyard_bundle.runtimes.sklearn import answer
from modelyard_common.errors import NotFound
from modelyard_contracts.bundle_v1 import Lineage, Signature
from modelyard_contracts.registry_v1 import ModelView, VersionView
from modelyard_stats.baseline import build_baseline

from modelyard_trainer.context import RunContext, patiently
from modelyard_trainer.rows import Rows
from modelyard_trainer.steps.evaluate import evaluate, importances, labels_of, load_contenders, slices
from modelyard_trainer.steps.fit import fit
from modelyard_trainer.steps.infer import infer_signature, learned_signature
from modelyard_trainer.steps.load import Loaded, load
from modelyard_trainer.steps.register import register
from modelyard_trainer.steps.split import Division, split_first, split_fresh
from modelyard_trainer.steps.validate import feedback_rows, history_rows

__all__ = ["run"]


def run(context: RunContext) -> VersionView:
    """Make one version of the model and hand it over; return it as the registry sees it.

    Raises:
        RunFailed: with a sentence that a person can act on.
    """
    spec, reporter = context.spec, context.reporter
    reporter.stage("load", 0.05)
    loaded = load(context)
    reporter.stage("validate", 0.15)
    signature = infer_signature(spec, loaded.history)
    rows = _rows(context, signature, loaded)
    view = _model(context)
    reporter.stage("split", 0.2)
    division = _divide(context, rows, view)
    signature = learned_signature(spec, signature, division.learn)
    reporter.stage("fit", 0.25)
    pipeline = fit(spec, signature, division.learn)
    reporter.stage("package", 0.55)
    answers = _answers(signature, pipeline, division.judge)
    packed = _package(context, loaded, rows, division, signature, pipeline, answers)
    reporter.stage("evaluate", 0.7)
    evaluation = evaluate(
        context.job.run,
        division,
        signature=signature,
        candidate=answers,
        digest=str(packed.digest),
        data_until=packed.manifest.lineage.data_until,
        contenders=load_contenders(context.registry, view, division.judge, work_dir=context.work_dir),
    )
    metrics = {name: value.value for name, value in evaluation.scores[0].metrics.items()} if evaluation.scores else {}
    reporter.stage("track", 0.8)
    tracker_run = context.tracker.track(packed.folder, packed.manifest, metrics)
    reporter.stage("register", 0.9)
    registered = register(context, packed, tracker_run, evaluation)
    reporter.succeeded(version=str(packed.digest), tracker_run=tracker_run, metrics=metrics, evaluation=evaluation)
    return registered


def _model(context: RunContext) -> ModelView | None:
    try:
        return patiently("model", lambda: context.registry.model(context.job.model), for_s=120.0)
    except NotFound:
        return None


def _rows(context: RunContext, signature: Signature, loaded: Loaded) -> Rows:
    rows = history_rows(context.spec, signature, loaded.history)
    if loaded.feedback is None or loaded.feedback.empty:
        return rows
    fed_back = feedback_rows(context.spec, signature, loaded.feedback)
    if not context.spec.train.learn_from.history:
        return fed_back
    return rows.followed_by(fed_back)


def _divide(context: RunContext, rows: Rows, view: ModelView | None) -> Division:
    if context.is_retraining and context.spec.fresh is not None:
        champion = view.champion if view is not None else None
        return split_fresh(context.spec, rows, seen_until=champion.data_until if champion else None)
    return split_first(context.spec, rows, seed=context.spec.train.seed)


def _answers(signature: Signature, pipeline: Any, rows: Rows) -> Predicted | None:
    return answer(pipeline, signature, rows.columns) if len(rows) else None


def _package(
    context: RunContext,
    loaded: Loaded,
    rows: Rows,
    division: Division,
    signature: Signature,
    pipeline: Any,
    answers: Predicted | None,
) -> Packed:
    """Write the bundle. Its baseline: inputs as learned from, answers on rows that the model had not seen."""
    spec, learn = context.spec, division.learn
    unseen, given = (division.judge, answers) if answers is not None else (learn, _answers(signature, pipeline, learn))
    assert given is not None  # noqa: S101  # there are always rows to learn from
    metrics = slices(signature, unseen, given)
    watched = positive_scores(signature, given)
    baseline = build_baseline(
        learn.columns,
        importances=importances(signature, labels_of(pipeline, signature), unseen, seed=spec.train.seed),
        predictions=given.labels if watched is None else watched,
        metrics=metrics[0].metrics,
    )
    lineage = Lineage(
        run=context.job.run,
        dataset=rows.digest,
        source=loaded.source_digest,
        data_from=learn.time_of(0),
        data_until=learn.time_of(-1),
        label_seq=context.job.until_label_seq or 0,
        rows=len(learn),
        estimator=spec.train.recipe.estimator,
        params=dict(spec.train.recipe.params),
        seed=spec.train.seed,
        code=f"modelyard-trainer {version('modelyard-trainer')}",
        environment=environment(),
        training_digest=context.job.training_digest,
    )
    return pack(
        context.work_dir / "bundle",
        model=context.job.model,
        estimator=pipeline,
        signature=signature,
        sample=unseen.columns if len(unseen) else learn.columns,
        lineage=lineage,
        baseline_json=baseline.to_json(),
        metrics=metrics,
        created=context.clock.now(),
    )
