"""A person's way through a live platform: the diabetes example as its README tells it, then every other command."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow.sklearn
import pandas as pd
import pytest
import skops.io
from cli_stage import COMMAND, ROOT, LivePlatform, Said, wait_until
from sklearn.ensemble import RandomForestRegressor
from sklearn.linear_model import LinearRegression

pytestmark = [pytest.mark.acceptance, pytest.mark.timeout(240)]

FEATURES = ["age", "sex", "bmi", "bp", "s1", "s2", "s3", "s4", "s5", "s6"]


@dataclass(frozen=True)
class Journey:
    """What the README's commands said, and the folder that they ran in."""

    folder: Path
    said: dict[str, Said]

    @property
    def rows(self) -> Path:
        return self.folder / "examples/diabetes/data/diabetes.csv"


def readme_commands() -> list[str]:
    text = (ROOT / "examples/diabetes/README.md").read_text()
    return [line for block in re.findall(r"```\w*\n(.*?)```", text, flags=re.DOTALL) for line in block.splitlines()]


@pytest.fixture(scope="module")
def journey(one_platform: LivePlatform, tmp_path_factory: pytest.TempPathFactory) -> Journey:
    """Run the README's commands as they stand, in a copy of the repository's examples."""
    one_platform.ensure_up()
    folder = tmp_path_factory.mktemp("clone")
    shutil.copytree(ROOT / "examples/diabetes", folder / "examples/diabetes", ignore=shutil.ignore_patterns("data"))
    where = {
        "MODELYARD_DATA_DIR": str(one_platform.layout.home),
        "MODELYARD_PORT_BASE": str(one_platform.layout.port_base),
    }
    programs = {"modelyard": COMMAND, "python": (sys.executable,)}
    said: dict[str, Said] = {}
    for command in readme_commands():
        if command in {"modelyard up --detach", "modelyard down"}:
            continue  # this platform is up already, and others need it
        name, *words = shlex.split(command, comments=True)
        done = subprocess.run(
            [*programs[name], *words],
            cwd=folder,
            env=os.environ | where,
            capture_output=True,
            text=True,
            check=False,
            timeout=150,
        )
        said[command] = Said(done.returncode, done.stdout, done.stderr).ok()
    return Journey(folder, said)


@pytest.fixture
def brought(journey: Journey, tmp_path: Path) -> Callable[..., tuple[Path, Path]]:
    """Fit a model elsewhere, on columns in an order of its own; return its file and rows that it has not seen."""

    def fit(estimator: Any, *, mlflow_folder: bool = False) -> tuple[Path, Path]:
        frame = pd.read_csv(journey.rows)
        fitted = estimator.fit(frame[FEATURES[::-1]][:300], frame["progression"][:300])
        sample = tmp_path / "sample.parquet"
        frame[300:].to_parquet(sample, index=False)
        path = tmp_path / ("folder" if mlflow_folder else "model.skops")
        if mlflow_folder:
            trusted = {"skops_trusted_types": ["sklearn.tree._tree.Tree"], "pip_requirements": ["scikit-learn"]}
            mlflow.sklearn.save_model(fitted, str(path), serialization_format="skops", **trusted)
        else:
            skops.io.dump(fitted, path)
        return path, sample

    return fit


def champion(platform: LivePlatform, model: str) -> dict[str, Any]:
    found: dict[str, Any] = platform("describe", model, "-o", "json").ok().json["model"]["champion"] or {}
    return found


def wait_champion(platform: LivePlatform, model: str, number: int) -> None:
    wait_until(lambda: champion(platform, model).get("number") == number, f"version {number} is champion")

    def served() -> bool:
        rows = json.dumps(dict.fromkeys(FEATURES, 1.0))
        answer = platform("predict", model, "-o", "json", stdin=rows)
        return answer.code == 0 and answer.json["version"] == str(number)

    wait_until(served, f"version {number} answers")


def test_the_readme_starts_and_stops_a_platform_and_goes_all_the_way() -> None:
    commands = readme_commands()

    assert (commands[0], commands[-1]) == ("modelyard up --detach", "modelyard down")
    assert [shlex.split(command)[1] for command in commands if command.startswith("modelyard")] == [
        *("up", "apply", "train", "predict", "describe", "down")
    ]


def test_the_diabetes_example_trains_and_predicts_as_its_readme_says(platform: LivePlatform, journey: Journey) -> None:
    said = {command.split()[1]: answer for command, answer in journey.said.items()}

    assert "model/diabetes applied, generation 1" in said["apply"].out
    assert "442 rows" in said["apply"].err
    assert re.search(r"run \S+: succeeded, version [0-9a-f]{12}", said["train"].out)
    lines = said["predict"].out.splitlines()
    truth = pd.read_csv(journey.rows)["progression"][:3]
    answers = [float(line.split()[-1]) for line in lines[1:4]]
    assert [abs(answer - value) < 100 for answer, value in zip(answers, truth, strict=True)] == [True] * 3
    assert re.fullmatch(r"answered by version \d", lines[-1])
    assert "How far will the disease progress within a year?" in said["describe"].out


@pytest.mark.parametrize(
    ("words", "columns", "key"),
    [
        (("models",), ["NAME", "TASK", "CHAMPION"], "name"),
        (("versions", "diabetes"), ["VERSION", "DIGEST", "STATE"], "digest"),
        (("runs", "diabetes"), ["RUN", "MODEL", "STATE"], "id"),
        (("datasets",), ["DIGEST", "NAME", "ROWS"], "digest"),
        (("events", "diabetes"), ["SEQ", "AT", "WHO"], "hash"),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_get_answers_a_table_for_people_and_json_for_programs(
    platform: LivePlatform, journey: Journey, words: tuple[str, ...], columns: list[str], key: str
) -> None:
    table = platform("get", *words).ok().out.splitlines()
    found = platform("get", *words, "-o", "json").ok().json
    items = found["items"] if isinstance(found, dict) else found

    assert table[0].split()[:3] == columns
    rows = [line for line in table[1:] if line != "the chain is intact"]
    assert len(rows) == len(items) > 0
    assert all(item[key] for item in items)


def test_describe_tells_policy_champion_and_the_reasons(platform: LivePlatform, journey: Journey) -> None:
    text = platform("describe", "diabetes").ok().out

    for part in ("Policy", "ridge(alpha=1.0)", "r2 >= 0.3", "Champion", "learned from  354 rows", "Versions", "Runs"):
        assert part in text, part
    # Of the first version, or of the one that was trained after it, as far as its rollout has come.
    assert re.search(r"verdict +promote: .*(all gates passed|r2)", text)


def test_logs_of_a_run_are_events_one_a_line(platform: LivePlatform, journey: Journey) -> None:
    run = platform("get", "runs", "diabetes", "-o", "json").ok().json[0]["id"]

    lines = platform("logs", run, "--follow").ok().out.splitlines()

    stages = [event["modelyard"]["stage"] for event in map(json.loads, lines) if event["message"] == "run.stage"]
    assert stages[:3] == ["load", "validate", "split"]
    assert stages[-1] == "register"


def test_wrong_rows_are_refused_with_the_features_that_the_model_takes(
    platform: LivePlatform, journey: Journey
) -> None:
    row = dict.fromkeys(FEATURES, 1.0)
    misspelt = {("agee" if name == "age" else name): value for name, value in row.items()}

    missing = platform("predict", "diabetes", stdin=json.dumps(misspelt))
    text = platform("predict", "diabetes", stdin=json.dumps(row | {"bmi": "high"}))
    nobody = platform("predict", "nothere", stdin=json.dumps(row))
    version = platform("predict", "diabetes", "--version", "77", stdin=json.dumps(row))

    assert missing.code == 2
    assert missing.err.splitlines()[0] == "error: [0].age: is required"
    assert f"left out: agee: no features of diabetes; its features are {', '.join(FEATURES)}" in missing.err
    assert (text.code, text.err.strip()) == (2, "error: [0].bmi: must be a number")
    assert nobody.code == 3 and "there is no model 'nothere'" in nobody.err
    assert version.code == 3 and "no such version" in version.err


def test_run_is_watched_with_a_bar_and_one_that_fails_says_why_with_exit_code_6(
    platform: LivePlatform, journey: Journey, tmp_path: Path
) -> None:
    shutil.copy(journey.rows, tmp_path / "rows.csv")
    path = tmp_path / "model.yaml"
    text = (ROOT / "examples/diabetes/model.yaml").read_text()
    path.write_text(text.replace("name: diabetes", "name: hopeless").replace("data/diabetes.csv", "rows.csv"))
    path.write_text(path.read_text().replace("target: progression", "target: progress"))
    platform("apply", "-f", path).ok()

    said = platform.at_a_terminal("train", "hopeless", "--wait")

    assert said.code == 6
    assert re.search("hopeless.*━", said.err), "there is a progress bar"
    assert re.search(r"run \S+: failed", said.out)
    assert "spec.data.target: the data has no column 'progress'; its columns are age, " in said.err
    assert "Traceback" not in said.err


def test_waiting_for_training_tells_the_verdict_and_leaves_with_7_when_the_gates_refuse(
    platform: LivePlatform, journey: Journey, tmp_path: Path
) -> None:
    shutil.copy(journey.rows, tmp_path / "rows.csv")
    path = tmp_path / "model.yaml"
    text = (ROOT / "examples/diabetes/model.yaml").read_text()
    text = text.replace("name: diabetes", "name: strict").replace("data/diabetes.csv", "rows.csv")
    path.write_text(text.replace("min: 0.3", "min: 0.99"))
    platform("apply", "-f", path).ok()

    refused = platform("train", "strict", "--wait")
    as_json = platform("train", "strict", "--wait", "-o", "json")
    path.write_text(text.replace("seed: 7", "seed: 11"))
    platform("apply", "-f", path).ok()
    promoted = platform("train", "strict", "--wait")

    assert (refused.code, as_json.code, promoted.code) == (7, 7, 0)
    assert re.search(r"^  keep: r2 .*still no champion$", refused.out, flags=re.MULTILINE)
    assert "and the gates did not let it pass" in refused.err
    assert (as_json.json["state"], as_json.json["verdict"]["decision"]) == ("succeeded", "keep")
    assert re.search(r"^  promote: ", promoted.out, flags=re.MULTILINE)


def test_versions_that_wait_for_a_person_are_shown_and_then_rejected_or_approved(
    platform: LivePlatform, journey: Journey, tmp_path: Path
) -> None:
    shutil.copy(journey.rows, tmp_path / "rows.csv")
    path = tmp_path / "model.yaml"
    text = (ROOT / "examples/diabetes/model.yaml").read_text() + "  rollout: {promote: manual}\n"
    text = text.replace("name: diabetes", "name: approved").replace("data/diabetes.csv", "rows.csv")
    for seed in (7, 11):
        path.write_text(text.replace("seed: 7", f"seed: {seed}"))
        platform("apply", "-f", path).ok()
        platform("train", "approved", "--wait")

    def known() -> Any:
        return platform("describe", "approved", "-o", "json").ok().json

    numbers = {one["digest"]: str(one["number"]) for one in known()["versions"]}
    newest, older, *others = [numbers[one["version"]] for one in known()["waiting"]]
    page = platform("describe", "approved").ok().out
    undecided = platform("approve", "approved")
    rejected = platform("reject", "approved", newest).ok()
    approved = platform("approve", "approved", older, "-o", "json").ok()
    for number in others:
        platform("reject", "approved", number).ok()

    shown = page[page.index("Waits for approval") : page.index("Drift")]
    lines = re.findall(r"^ *version (\d+) +for \d+[sm]: waits for approval", shown, flags=re.MULTILINE)
    assert lines == [newest, older, *others], shown
    assert undecided.code == 4
    assert f"wait for approval: {', '.join([newest, older, *others])}; name one" in undecided.err
    assert rejected.out.strip().endswith(": rejected")
    assert approved.json["state"] == "approved"
    wait_until(lambda: known()["model"]["champion"], "there is a champion")
    after = known()
    assert after["waiting"] == []
    states = {str(one["number"]): one["state"] for one in after["versions"]}
    assert (states[newest], states[older]) == ("refused", "champion")
    assert platform("approve", "approved").code == 3


@pytest.mark.filterwarnings("ignore:.*Any type hint is inferred:UserWarning")  # MLflow, about its own classes
def test_model_fitted_elsewhere_is_judged_promoted_and_answers_like_itself(
    platform: LivePlatform, journey: Journey, brought: Callable[..., tuple[Path, Path]]
) -> None:
    path, sample = brought(RandomForestRegressor(20, random_state=0), mlflow_folder=True)

    version = platform("register", path, "--model", "diabetes", "--data", sample, "-o", "json").ok().json

    assert version["run"] == "external"
    assert (version["state"], version["verdict"]["decision"]) == ("champion", "promote")
    wait_champion(platform, "diabetes", version["number"])
    frame = pd.read_parquet(sample)
    expected = mlflow.sklearn.load_model(str(path)).predict(frame[FEATURES[::-1]])
    answered = platform("predict", "diabetes", "-f", sample, "-o", "json").ok().json["predictions"]
    assert answered == pytest.approx(list(expected), rel=1e-4)


def test_skops_file_is_promoted_by_hand_and_rolled_back(
    platform: LivePlatform, journey: Journey, brought: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    before = champion(platform, "diabetes")["number"]
    path, sample = brought(LinearRegression())
    registered = platform("register", path, "--model", "diabetes", "--data", sample).ok().out
    number = int(re.match(r"version (\d+)", registered)[1])  # type: ignore[index]
    wait_champion(platform, "diabetes", number)

    back = platform("rollback", "diabetes", "-m", "a test").ok()
    assert back.out.startswith("rolled back to ")
    wait_champion(platform, "diabetes", before)
    again = platform("promote", "diabetes", number, "--direct", "-m", "measured by hand").ok()
    assert again.out.rstrip().endswith("approved")
    wait_champion(platform, "diabetes", number)
    assert platform("promote", "diabetes", number).code == 4

    reasons = {entry["body"].get("reason") for entry in platform("get", "events", "-o", "json").ok().json["items"]}
    assert {"a test", "measured by hand"} <= reasons


def test_rollout_is_paused_resumed_and_aborted(
    platform: LivePlatform, journey: Journey, brought: Callable[..., tuple[Path, Path]], tmp_path: Path
) -> None:
    path, sample = brought(LinearRegression())
    shutil.copy(journey.rows, tmp_path / "rows.csv")
    manifest = tmp_path / "model.yaml"
    text = (ROOT / "examples/diabetes/model.yaml").read_text()
    text = text.replace("name: diabetes", "name: careful").replace("data/diabetes.csv", "rows.csv")
    manifest.write_text(text + "  rollout: {steps: [{weight: 20, minRequests: 100000}]}\n")
    platform("apply", "-f", manifest).ok()
    wait_until(lambda: champion(platform, "careful"), "the first version is champion")
    version = platform("register", path, "--model", "careful", "--data", sample, "-o", "json").ok().json
    assert version["state"] == "candidate"

    def state(verb: str) -> str:
        return str(platform(verb, "careful", "-o", "json").ok().json["state"])

    states = [state(verb) for verb in ("pause", "pause", "resume", "abort")]
    assert states == ["paused", "paused", "running", "aborted"]
    assert platform("resume", "careful").code == 4
    assert "20 %: aborted" in platform("describe", "careful").ok().out


def test_drift_shows_windows_and_writes_a_report(platform: LivePlatform, journey: Journey, tmp_path: Path) -> None:
    frame = pd.concat([pd.read_csv(journey.rows)] * 2, ignore_index=True)
    shifted = tmp_path / "shifted.parquet"
    frame.assign(bmi=frame["bmi"] + 40).to_parquet(shifted, index=False)
    early = platform("report", "careful-not-there")
    assert early.code == 3
    for _ in range(2):
        platform("predict", "diabetes", "-f", shifted).ok()

    def drifted() -> bool:
        windows = platform("drift", "diabetes", "-o", "json").ok().json["windows"]
        return any(window["state"] == "scored" for window in windows)

    # What other tests asked, and what they promoted meanwhile, has closed windows of few rows.
    wait_until(drifted, "a window with enough rows closes")

    text = platform("drift", "diabetes").ok().out
    assert re.search(r"WINDOW +ROWS +UNTIL +SEVERITY", text)
    assert re.search(r"^w\d+ .*bmi \(\d", text, flags=re.MULTILINE), text
    window = platform("drift", "diabetes", "-o", "json").ok().json["windows"][0]["id"]
    assert platform("report", "diabetes").ok().json["window"]["id"] == window
    page = tmp_path / "report.html"
    platform("report", "diabetes", window, "--html", page).ok()
    assert "<svg" in page.read_text() and "bmi" in page.read_text()
    unwritable = platform("report", "diabetes", "--html", tmp_path / "no" / "page.html")
    assert (unwritable.code, "cannot be written" in unwritable.err) == (2, True)
    table = platform("get", "episodes", "diabetes").ok().out
    assert "bmi" in table
    assert platform("get", "episodes", "diabetes", "-o", "json").ok().json[0]["features"]


def test_pickle_is_refused(platform: LivePlatform, journey: Journey, tmp_path: Path) -> None:
    path = tmp_path / "model.pkl"
    path.write_bytes(b"\x80\x04.")

    said = platform("register", path, "--model", "diabetes", "--data", journey.rows)

    sentence = "model.pkl is no .skops file: write the model with skops.io.dump; pickles are refused"
    assert (said.code, said.err.strip()) == (2, f"error: {sentence}")
