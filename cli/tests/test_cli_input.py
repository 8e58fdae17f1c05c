"""Wrong input and services that are away: a clear sentence, each wrong field with its fix, the right exit code."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_stage import NOBODY, Services, manifest, modelyard
from modelyard_cli.exits import NothingPromoted, RunEndedBadly, exit_code_of
from modelyard_common import errors
from modelyard_common.testing import free_port_base


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.ModelyardError, 1),
        (errors.Invalid, 2),
        (errors.TooLarge, 2),
        (errors.NotFound, 3),
        (errors.Conflict, 4),
        (errors.Denied, 4),
        (errors.Unauthenticated, 4),
        (errors.Unavailable, 5),
        (errors.Overloaded, 5),
        (RunEndedBadly, 6),
        (NothingPromoted, 7),
    ],
)
def test_every_branch_of_the_error_tree_has_its_exit_code(error: type[errors.ModelyardError], code: int) -> None:
    assert exit_code_of(error()) == code


def test_no_branch_of_the_error_tree_was_forgotten() -> None:
    branches = [getattr(errors, name) for name in errors.__all__ if name != "ModelyardError"]

    assert {exit_code_of(branch()) for branch in branches} == {2, 3, 4, 5}


@pytest.mark.parametrize("command", ["apply", "validate"])
def test_typing_mistakes_in_a_manifest_are_all_named_with_the_fix(
    services: Services, tmp_path: Path, command: str
) -> None:
    path = manifest(tmp_path)
    path.write_text(path.read_text().replace("task:", "tsk:").replace("ridge", "rigde"))

    said = services(command, "-f", path)

    assert said.code == 2
    assert said.err.splitlines()[0] == f"error: {path} is not a manifest that can be applied"
    assert "spec.task: is required" in said.err
    assert "spec.tsk: is not a field of this object; did you mean task?" in said.err
    assert "spec.train.recipe.estimator: found 'rigde', allowed: " in said.err
    assert said.out == ""


def test_unbuilt_field_is_refused_with_what_to_do_instead(services: Services, tmp_path: Path) -> None:
    path = manifest(tmp_path)
    path.write_text(path.read_text() + "  serve: {explain: true}\n")

    said = services("apply", "-f", path)

    told = "spec.serve.explain: there is nothing to turn on: every model answers POST /v1/models/<name>:explain"
    assert (said.code, said.err.splitlines()[1].strip()) == (2, told)


@pytest.mark.parametrize(
    ("text", "code", "sentence"),
    [
        ("a: [1,\nb: {", 2, "line 2, column 5: not YAML"),
        ("", 2, "holds no manifest"),
        ("---\n---\n", 2, "holds no manifest"),
        ("just words", 2, "(document): found 'just words', allowed: an object"),
        (b"\xff\xfe\x00", 2, "cannot be read"),
    ],
    ids=["bad YAML", "empty", "only separators", "no object", "no text"],
)
def test_file_that_holds_no_manifest_says_why(
    services: Services, tmp_path: Path, text: str | bytes, code: int, sentence: str
) -> None:
    path = tmp_path / "model.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())

    said = services("apply", "-f", path)

    assert said.code == code
    assert sentence in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    ("data", "sentence"),
    [
        ("gone.csv", "spec.data.source.uri: there is no file"),
        ("rows.txt", "spec.data.source.uri: rows.txt is neither .parquet nor .csv"),
    ],
)
def test_data_of_a_manifest_that_cannot_be_uploaded_is_named(
    services: Services, tmp_path: Path, data: str, sentence: str
) -> None:
    (tmp_path / "rows.txt").write_text("a\n1\n")

    said = services("apply", "-f", manifest(tmp_path, data=data))

    assert said.code == 2
    assert sentence in said.err


def test_file_that_is_not_there_is_not_found(services: Services, tmp_path: Path) -> None:
    said = services("apply", "-f", tmp_path / "none.yaml")

    assert (said.code, said.err.strip()) == (3, f"error: there is no file {tmp_path / 'none.yaml'}")


def test_one_file_may_hold_several_manifests_and_applying_again_changes_nothing(
    services: Services, tmp_path: Path
) -> None:
    path = manifest(tmp_path, "first")
    path.write_text(path.read_text() + "---\n" + path.read_text().replace("first", "second"))

    first = services("apply", "-f", path).ok()
    again = services("apply", "-f", path, "-o", "json").ok()

    assert first.out.splitlines() == ["model/first applied, generation 1", "model/second applied, generation 1"]
    assert "rows.csv: 60 rows, sha256:" in first.err
    assert [(view["name"], view["generation"]) for view in again.json] == [("first", 1), ("second", 1)]
    assert again.json[0]["spec"]["data"]["source"]["uri"].startswith("dataset://sha256:")


@pytest.mark.parametrize(
    "words",
    [
        ("describe", "nothere"),
        ("get", "versions", "nothere"),
        ("train", "nothere"),
        ("promote", "nothere", "1"),
        ("approve", "nothere"),
        ("reject", "nothere"),
        ("rollback", "nothere"),
        ("pause", "nothere"),
        ("delete", "nothere", "--yes"),
    ],
    ids=lambda words: words[0],
)
def test_missing_model_is_named_with_what_to_do(services: Services, words: tuple[str, ...]) -> None:
    said = services(*words)

    assert said.code == 3
    assert said.err.strip() == "error: there is no model 'nothere'; apply its manifest first"


@pytest.mark.parametrize(
    ("words", "code", "sentence"),
    [
        (("promote", "known", "9"), 3, "model 'known' has no version '9'"),
        (("promote", "known", "newest"), 2, "'newest' is neither the number of a version nor a digest"),
        (("approve", "known"), 3, "no version of model 'known' waits for approval"),
        (("reject", "known", "4"), 3, "version 4 of model 'known' does not wait for approval"),
        (("rollback", "known"), 4, "model 'known' has no previous champion to return to"),
        (("pause", "known"), 4, "model 'known' has no rollout under way"),
        (("resume", "known"), 4, "model 'known' has no rollout under way"),
        (("abort", "known"), 4, "model 'known' has no rollout under way"),
        (("logs", "run-x"), 3, "there is no run 'run-x'"),
        (("cancel", "run-x"), 3, "there is no run 'run-x'"),
        (("delete", "known"), 2, "say --yes"),
        (("register", "gone.skops", "--model", "known", "--data", "x.csv"), 3, "there is no gone.skops"),
        (("predict", "known", "-f", "gone.csv"), 3, "there is no file gone.csv"),
        (("predict", "known", "--version", "x"), 2, "not JSON"),
        (("drift", "known"), 5, f"drift at {NOBODY} cannot be reached"),
        (("report", "known"), 5, f"drift at {NOBODY} cannot be reached"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_what_cannot_be_done_is_said_in_one_line(
    services: Services, tmp_path: Path, words: tuple[str, ...], code: int, sentence: str
) -> None:
    services("apply", "-f", manifest(tmp_path, "known")).ok()

    said = services(*words)

    assert said.code == code
    assert sentence in said.err
    assert len(said.err.strip().splitlines()) == (2 if code == 5 else 1), "with a hint where somebody is away"
    assert said.out == ""


@pytest.mark.parametrize(
    ("stdin", "sentence"),
    [
        ("{bad", "standard input is not JSON"),
        ("[]", "standard input: rows are a JSON object, or a list of objects"),
        ("[1, 2]", "standard input: rows are a JSON object, or a list of objects"),
        ("3", "standard input: rows are a JSON object, or a list of objects"),
    ],
)
def test_rows_that_are_no_rows_are_refused_before_anyone_is_asked(
    services: Services, stdin: str, sentence: str
) -> None:
    said = services("predict", "known", stdin=stdin)

    assert said.code == 2
    assert sentence in said.err


@pytest.mark.parametrize(
    ("name", "content", "sentence"),
    [
        ("empty.csv", b"a,b\n", "has no rows"),
        ("torn.csv", b"a,b\n1\n2,3,4\n", "cannot be read"),
        ("no.parquet", b"PAR?", "cannot be read"),
        ("rows.txt", b"a,b\n1,2\n", "is not JSON (.csv and .parquet are told by their names)"),
        ("latin.json", b"\xff", "is not JSON"),
    ],
)
def test_file_of_rows_that_cannot_be_read_says_why(
    services: Services, tmp_path: Path, name: str, content: bytes, sentence: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)

    said = services("predict", "known", "-f", path)

    assert said.code == 2
    assert sentence in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize(
    "words",
    [("get", "nonsense"), ("nonsense",), ("apply",), ("--port-base", "80", "status"), ("get", "models", "-o", "x")],
)
def test_wrong_usage_is_exit_code_2_and_no_traceback(words: tuple[str, ...]) -> None:
    said = modelyard(*words)

    assert said.code == 2
    assert "Usage:" in said.err
    assert "Traceback" not in said.err


def test_platform_that_is_not_there_is_exit_code_5_and_says_how_to_start_one(tmp_path: Path) -> None:
    options = ("--data-dir", tmp_path, "--port-base", free_port_base())

    status = modelyard(*options, "status")
    models = modelyard(*options, "get", "models")

    assert status.code == 5
    assert status.out.count("does not answer; start it with `modelyard up`") == 5
    assert models.code == 5
    assert "registry at http://127.0.0.1:" in models.err
    assert "`modelyard up`" in models.err


def test_one_service_that_is_away_does_not_hide_the_others_from_describe(services: Services, tmp_path: Path) -> None:
    services("apply", "-f", manifest(tmp_path, "seen")).ok()

    said = services("describe", "seen").ok()

    assert "ridge()" in said.out
    assert "none: every version passes" in said.out
    assert "drift cannot be asked: drift at" in said.err


def test_token_file_that_is_not_there_is_refused_by_name(services: Services, tmp_path: Path) -> None:
    said = services("--token-file", tmp_path / "token", "get", "models")

    assert said.code == 4
    assert said.err.strip() == f"error: the token file {tmp_path / 'token'} cannot be read (No such file or directory)"


def test_deleted_model_is_no_longer_listed(services: Services, tmp_path: Path) -> None:
    services("apply", "-f", manifest(tmp_path, "shortlived")).ok()

    assert services("delete", "shortlived", "--yes").ok().out == "model/shortlived deleted\n"

    assert "shortlived" not in [view["name"] for view in services("get", "models", "-o", "json").ok().json]
    assert "model.deleted" in [entry["kind"] for entry in services("get", "events", "-o", "json").ok().json["items"]]
