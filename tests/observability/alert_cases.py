"""For each alert: series under which it fires, what it then says, and series under which it stays calm."""

from __future__ import annotations

from collections.abc import Callable

from tests.observability.alert_case import HTTP, MODEL, NM, Case, Series
from tests.observability.alert_cases_services import LOGS, SERVICES

__all__ = ["CASES"]

EPISODES = f"modelyard_drift_open_episodes_count{{{NM}"
EDGE = 'namespace="n",job="modelyard-inference",route="/v2/models/{model}/infer",method="POST",service="inference"'
UNTIL = "modelyard_registry_champion_data_until_seconds"
SINCE = "modelyard_registry_champion_since_seconds"
OTHER = 'namespace="n",model="other"'
SECONDS = "modelyard_http_request_seconds"
GRPC = 'namespace="n",job="modelyard-inference",service="inference"'
CALLS = "modelyard_grpc"


def _burns(
    name: str, title: str, promise: str, slo: str, *, budget: float, series: Callable[[float, float], Series]
) -> list[Case]:
    """Return a case for each pair of windows, at a rate and a time at which this pair alone fires.

    Args:
        budget: share of requests that may be bad, in percent.
        series: (burn rate, requests a minute) to series.
    """
    rows: list[tuple[str, str, str, str, str, float]] = [
        ("critical", "1h", "5m", "14.4", "12m", 20),
        ("critical", "6h", "30m", "6", "30m", 8),
        ("warning", "1d", "2h", "3", "2h", 4),
        ("warning", "3d", "6h", "1", "4h", 2),
    ]
    return [
        Case(
            alert=name,
            severity=severity,
            extra={"slo": slo, "long": long},
            labels={"namespace": "n"},
            series=series(burn, 10_000),
            at=at,
            summary=f"{title} is being lost",
            description=(
                f"{promise} Its error budget is spent {rate} times too fast (over {long} and {short}): "
                f"{budget * burn:g}% of requests are bad."
            ),
            # Within the budget; and too few requests to judge by.
            calm=(series(0.5, 10_000), series(burn, 0.2)),
        )
        for severity, long, short, rate, at, burn in rows
    ]


def _availability(burn: float, requests: float) -> Series:
    """Return series of which each protocol has a third; all must be counted for the share to come out right."""
    part, bad = requests / 3, requests / 3 * burn * 0.001
    found = {
        f'{HTTP}{{{EDGE},status="200"}}': f"0+{part - bad:g}x300",
        f'{HTTP}{{{EDGE},status="503"}}': f"0+{bad:g}x300",
    }
    # The faults of both kinds of calls come in one of them, so that neither can be left out.
    for method, faults in (("ModelInfer", 0.0), ("ModelStreamInfer", 2 * bad)):
        found[f'{CALLS}_requests_total{{{GRPC},method="{method}",code="OK"}}'] = f"0+{part - faults:g}x300"
        found[f'{CALLS}_requests_total{{{GRPC},method="{method}",code="UNAVAILABLE"}}'] = f"0+{faults:g}x300"
    return found


def _latency(burn: float, requests: float) -> Series:
    part, late = requests / 3, requests / 3 * burn * 0.01
    found = {
        f"{SECONDS}_count{{{EDGE}}}": f"0+{part:g}x300",
        f'{SECONDS}_bucket{{{EDGE},le="0.1"}}': f"0+{part - late:g}x300",
    }
    for method, slow in (("ModelInfer", 0.0), ("ModelStreamInfer", 2 * late)):
        found[f'{CALLS}_request_seconds_count{{{GRPC},method="{method}"}}'] = f"0+{part:g}x300"
        found[f'{CALLS}_request_seconds_bucket{{{GRPC},method="{method}",le="0.1"}}'] = f"0+{part - slow:g}x300"
    return found


MODELS = (
    Case(
        "ModelPerformsBelowFloor",
        {f'{EPISODES},severity="critical"}}': "1x20", f'{EPISODES},severity="high"}}': "0x20"},
        "6m",
        MODEL,
        "m performs below the floor of its manifest",
        "Labels say that the answers of m are worse than its manifest allows.",
        calm=({f'{EPISODES},severity="critical"}}': "0x20", f'{EPISODES},severity="high"}}': "1x20"},),
        severity="critical",
    ),
    Case(
        "ModelDrifts",
        {f'{EPISODES},severity="high"}}': "1x70"},
        "61m",
        MODEL,
        "m has drifted for an hour",
        "What m is asked has changed in a feature that matters, and no newer version has ended it.",
        # A promotion ended it; nothing that matters has changed.
        calm=({f'{EPISODES},severity="high"}}': "1x50 0x20"}, {f'{EPISODES},severity="high"}}': "0x70"}),
    ),
    Case(
        "ModelIsStale",
        {
            f"modelyard_drift_watermark_seconds{{{NM}}}": "3600000x70",
            f"{UNTIL}{{{NM}}}": "1000000x70",
            # How long ago by the clock it became champion is not asked where its data have times.
            f"{SINCE}{{{NM}}}": "0x70",
            f"modelyard_drift_watermark_seconds{{{OTHER}}}": "3600000x70",
            f"{UNTIL}{{{OTHER}}}": "3500000x70",
        },
        "61m",
        MODEL,
        "m learned from old data",
        "Its champion has learned nothing of the last 30d 2h 13m 20s: of event time, or where its data have none, "
        "since it is champion.",
        calm=(
            {f"{UNTIL}{{{NM}}}": "1100000x70"},
            # Thirty days, and not more.
            {f"{UNTIL}{{{NM}}}": "1008000x70"},
            # It is asked about times before those that it learned from.
            {f"{UNTIL}{{{NM}}}": "9000000x70"},
            # Another champion came within the hour.
            {f"{UNTIL}{{{NM}}}": "1000000x50 3500000x20"},
            # Nobody has asked it yet; and there is no champion any more.
            {f"modelyard_drift_watermark_seconds{{{NM}}}": "_x70"},
            {f"{UNTIL}{{{NM}}}": "1000000x50 stale", f"{SINCE}{{{NM}}}": "0x50 stale"},
        ),
    ),
    Case(
        "ModelIsStale",
        {
            # Two replicas of the registry, and data without times: nothing but the clock can tell.
            f'{SINCE}{{{NM},kind="new",instance="a"}}': "-2600000x70",
            f'{SINCE}{{{NM},kind="new",instance="b"}}': "-2600000x70",
            f"modelyard_drift_watermark_seconds{{{NM}}}": "100x70",
            f'{SINCE}{{{OTHER},kind="new"}}': "-2000000x70",
        },
        "61m",
        MODEL,
        "m learned from old data",
        "Its champion has learned nothing of the last 30d 3h 14m 20s: of event time, or where its data have none, "
        "since it is champion.",
        calm=(
            # Another champion; and one whose data have times.
            {
                f'{SINCE}{{{NM},kind="new",instance="a"}}': "-2600000x40 2400x30",
                f'{SINCE}{{{NM},kind="new",instance="b"}}': "-2600000x40 2400x30",
            },
            {f"{UNTIL}{{{NM}}}": "0x70"},
        ),
        way="no-event-time",
    ),
    Case(
        "ChampionNotServedEverywhere",
        {
            'up{namespace="n",job="modelyard-inference",instance="a"}': "1x20",
            'up{namespace="n",job="modelyard-inference",instance="b"}': "1x20",
            'up{namespace="n",job="modelyard-inference",instance="c"}': "0x20",
            f'modelyard_inference_served_number{{{NM},role="champion",instance="a"}}': "3x20",
            f'modelyard_inference_served_number{{{NM},role="champion",instance="b"}}': "2x20",
            f"modelyard_registry_champion_number{{{NM}}}": "3x20",
        },
        "6m",
        MODEL,
        "Some inference servers do not serve the champion of m",
        "On 1 of them callers of m get answers of an older version, or none.",
        calm=(
            {f'modelyard_inference_served_number{{{NM},role="champion",instance="b"}}': "3x20"},
            # It has no champion yet.
            {
                f"modelyard_registry_champion_number{{{NM}}}": "0x20",
                f'modelyard_inference_served_number{{{NM},role="champion",instance="a"}}': "_x20",
                f'modelyard_inference_served_number{{{NM},role="champion",instance="b"}}': "_x20",
            },
            # A server takes over within five minutes.
            {f'modelyard_inference_served_number{{{NM},role="champion",instance="b"}}': "2x3 3x17"},
        ),
        severity="critical",
    ),
    Case(
        "ChampionNotServedEverywhere",
        {
            # What a server that is gone said of itself is gone too.
            'up{namespace="n",job="modelyard-inference",instance="a"}': "0x20",
            'up{namespace="n",job="modelyard-inference",instance="b"}': "0x20",
            f"modelyard_registry_champion_number{{{NM}}}": "3x20",
        },
        "6m",
        MODEL,
        "Some inference servers do not serve the champion of m",
        "On 2 of them callers of m get answers of an older version, or none.",
        calm=(
            {f"modelyard_registry_champion_number{{{NM}}}": "0x20"},
            # One is back and serves it; that the other is down is told by ServiceIsDown.
            {
                'up{namespace="n",job="modelyard-inference",instance="a"}': "0x3 1x17",
                f'modelyard_inference_served_number{{{NM},role="champion",instance="a"}}': "_x3 3x17",
            },
        ),
        severity="critical",
        way="all-servers-down",
    ),
    Case(
        "ChampionNotServedEverywhere",
        {f"modelyard_registry_champion_number{{{NM}}}": "3x20"},
        "6m",
        MODEL,
        "Some inference servers do not serve the champion of m",
        "On 1 of them callers of m get answers of an older version, or none.",
        calm=({f"modelyard_registry_champion_number{{{NM}}}": "0x20"},),
        severity="critical",
        way="no-target",
    ),
    Case(
        "CandidateTripped",
        {f'modelyard_inference_candidate_tripped_state{{{NM},instance="a"}}': "1x20"},
        "6m",
        MODEL,
        "The candidate of m failed too often in a row",
        "It gets no more requests where it tripped; the champion answers. Its rollout should have been aborted.",
        calm=({f'modelyard_inference_candidate_tripped_state{{{NM},instance="a"}}': "0x20"},),
    ),
    Case(
        "LabelsAreMissing",
        {
            f"modelyard_drift_labels_missing_rows{{{NM}}}": "0+60x130",
            f"modelyard_drift_requests_rows{{{NM}}}": "0+100x130",
            f"modelyard_drift_labelled_rows{{{NM}}}": "500x130",
        },
        "2h",
        MODEL,
        "Labels of m have stopped coming",
        "Of the rows of the last day 60% have no label although it is due: performance is not known.",
        calm=(
            {f"modelyard_drift_labels_missing_rows{{{NM}}}": "20x130"},
            # Nobody ever sent labels, and nobody promised any.
            {f"modelyard_drift_labelled_rows{{{NM}}}": "0x130"},
            # Nobody asks.
            {
                f"modelyard_drift_requests_rows{{{NM}}}": "100x130",
                f"modelyard_drift_labels_missing_rows{{{NM}}}": "90x130",
            },
        ),
    ),
)

ROADS = (
    Case(
        "TrainingIsOverdue",
        {f"modelyard_training_schedule_due_seconds{{{NM}}}": "0x40"},
        "25m",
        MODEL,
        "A scheduled training of m does not start",
        "Its cron trigger has been due for 25m 0s.",
        calm=({f"modelyard_training_schedule_due_seconds{{{NM}}}": "86400x40"},),
    ),
    Case(
        "TrainingFails",
        {
            f'modelyard_training_runs_ended_total{{{NM},state="failed"}}': "0x5 1x5 2x5 3x40",
            f'modelyard_training_runs_ended_total{{{NM},state="succeeded"}}': "0x55",
        },
        "40m",
        MODEL,
        "Training of m fails",
        "Within a day 3 runs failed and none succeeded: m does not learn.",
        calm=(
            {f'modelyard_training_runs_ended_total{{{NM},state="succeeded"}}': "0x5 1x50"},
            {f'modelyard_training_runs_ended_total{{{NM},state="failed"}}': "0x5 1x50"},
        ),
    ),
    Case(
        "TrainingQueueIsStuck",
        {'modelyard_training_queue_wait_seconds{namespace="n"}': "2000x20"},
        "6m",
        {"namespace": "n"},
        "Training runs wait and do not begin",
        "The oldest has waited for 33m 20s.",
        calm=({'modelyard_training_queue_wait_seconds{namespace="n"}': "600x20"},),
    ),
    Case(
        "GateRefuses",
        {
            f'modelyard_registry_verdicts_total{{{NM},decision="keep"}}': "0x5 1x5 2x5 3x40",
            f'modelyard_registry_verdicts_total{{{NM},decision="promote"}}': "0x55",
        },
        "40m",
        MODEL,
        "The gate refuses every new version of m",
        "Within a week 3 versions were judged and none was better: training brings nothing.",
        calm=(
            {f'modelyard_registry_verdicts_total{{{NM},decision="promote"}}': "0x5 1x50"},
            {f'modelyard_registry_verdicts_total{{{NM},decision="keep"}}': "0x5 1x50"},
        ),
    ),
    Case(
        "RolloutIsHeld",
        {f"modelyard_registry_rollout_step_started_seconds{{{NM}}}": "0x400"},
        "370m",
        MODEL,
        "The rollout of m does not move",
        "Its step began 6h 10m 0s ago; it waits for evidence, or somebody paused it.",
        # The next step began; the rollout is over.
        calm=(
            {f"modelyard_registry_rollout_step_started_seconds{{{NM}}}": "0x300 18000x100"},
            {f"modelyard_registry_rollout_step_started_seconds{{{NM}}}": "0x300 stale"},
        ),
    ),
    Case(
        "PromotionWaits",
        {f"modelyard_registry_promotion_waiting_since_seconds{{{NM}}}": "0x1500"},
        "1450m",
        MODEL,
        "A version of m waits for somebody to approve it",
        "It was asked for 1d 0h 10m 0s ago, and what serves stays as it is until it is decided.",
        calm=(
            # It was decided; and a newer one has been asked for since.
            {f"modelyard_registry_promotion_waiting_since_seconds{{{NM}}}": "0x1440 stale"},
            {f"modelyard_registry_promotion_waiting_since_seconds{{{NM}}}": "0x1400 80000x100"},
        ),
    ),
    Case(
        "CommandsAreNotDelivered",
        {f"modelyard_drift_pending_commands_count{{{NM}}}": "2x20"},
        "16m",
        MODEL,
        "Training does not take the retrain command of m",
        "The loop is open: drift has decided, and 2 commands wait in its outbox.",
        calm=({f"modelyard_drift_pending_commands_count{{{NM}}}": "2x10 0x10"},),
    ),
)

BURNS = (
    *_burns(
        "InferenceAvailabilityBurns",
        "Inference availability",
        "99.9 % of predictions are answered without an error of ours.",
        "inference-availability",
        budget=0.1,
        series=_availability,
    ),
    *_burns(
        "InferenceLatencyBurns",
        "Inference latency",
        "99 % of predictions are answered within 100 ms, measured at the service.",
        "inference-latency",
        budget=1,
        series=_latency,
    ),
)

CASES = (*BURNS, *MODELS, *ROADS, *LOGS, *SERVICES)
