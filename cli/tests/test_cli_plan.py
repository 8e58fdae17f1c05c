"""`apply --dry-run` tells what would happen to models, from files and folders, and changes nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from cli_stage import Services, manifest


def names(services: Services) -> list[str]:
    return [view["name"] for view in services("get", "models", "-o", "json").ok().json]


def datasets(services: Services) -> list[str]:
    return [view["digest"] for view in services("get", "datasets", "-o", "json").ok().json]


def test_model_that_is_not_there_would_be_made_and_trained(services: Services, tmp_path: Path) -> None:
    known = datasets(services)
    path = manifest(tmp_path, "planned")
    (tmp_path / "rows.csv").write_text("a,b,y\n" + "".join(f"{i},{-i},{i * 3.5}\n" for i in range(60)))

    said = services("apply", "-f", path, "--dry-run").ok()

    lines = said.out.splitlines()
    assert lines[0] == "model/planned would be made, generation 1"
    assert "  now    training: training starts a run, unless exactly this data and recipe had one before" in lines
    assert "planned" not in names(services)
    assert datasets(services) == known


def test_fields_that_would_change_are_shown_with_what_follows(services: Services, tmp_path: Path) -> None:
    path = manifest(tmp_path, "revised")
    services("apply", "-f", path).ok()
    path.write_text(path.read_text().replace("ridge}", "ridge, params: {alpha: 2.0}}") + "  owner: grid-team\n")

    said = services("apply", "-f", path, "--dry-run").ok()

    assert said.out.splitlines()[:3] == [
        "model/revised would change, generation 2",
        '  ~ spec.owner: "" → "grid-team"  (record)',
        "  + spec.train.recipe.params.alpha: 2.0  (training)",
    ]
    assert "data: rows.csv is not uploaded by a dry run: taken as the rows of dataset://sha256:" in said.err
    assert services("apply", "-f", path, "-o", "json").ok().json["generation"] == 2


def test_plan_of_what_is_applied_already_is_that_nothing_would_change(services: Services, tmp_path: Path) -> None:
    path = manifest(tmp_path, "settled")
    services("apply", "-f", path).ok()

    assert services("apply", "-f", path, "--dry-run").ok().out == "model/settled would not change, generation 1\n"


def test_plan_is_json_for_programs(services: Services, tmp_path: Path) -> None:
    path = manifest(tmp_path, "parsed")
    services("apply", "-f", path).ok()
    path.write_text(path.read_text() + "  gate: [{metric: r2, min: 0.3}]\n")

    plan = services("apply", "-f", path, "--dry-run", "-o", "json").ok().json

    assert (plan["model"], plan["action"], plan["generation"]) == ("parsed", "update", 2)
    assert [(change["path"], change["op"], change["part"]) for change in plan["changes"]] == [
        ("spec.gate[0]", "added", "gate")
    ]
    assert [(one["part"], one["when"]) for one in plan["consequences"]] == [("gate", "later")]


def test_folder_of_manifests_is_validated_planned_and_applied_as_one(services: Services, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / f"{name}.yaml").write_text(manifest(tmp_path, f"{name}-folder").read_text())
    (tmp_path / "model.yaml").unlink()

    validated = services("validate", "-f", tmp_path).ok().out.splitlines()
    planned = services("apply", "-f", tmp_path, "--dry-run").ok().out
    applied = services("apply", "-f", tmp_path).ok().out.splitlines()

    assert validated == ["model/here-folder is valid", "model/there-folder is valid"]
    assert "model/here-folder would be made" in planned and "model/there-folder would be made" in planned
    assert applied == ["model/here-folder applied, generation 1", "model/there-folder applied, generation 1"]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("validate",), "holds no manifest: no file of it ends with .yaml"),
        (("apply", "--dry-run"), "holds no manifest: no file of it ends with .yaml"),
    ],
    ids=lambda value: value[0],
)
def test_folder_without_manifests_says_so(
    services: Services, tmp_path: Path, words: tuple[str, ...], sentence: str
) -> None:
    said = services(*words, "-f", tmp_path)

    assert said.code == 2
    assert sentence in said.err.replace("\n", " ")


def test_data_that_is_not_there_is_named_before_the_registry_is_asked(services: Services, tmp_path: Path) -> None:
    said = services("apply", "-f", manifest(tmp_path, data="gone.csv"), "--dry-run")

    assert said.code == 2
    assert "spec.data.source.uri: there is no file" in said.err


@pytest.mark.parametrize(
    ("policy", "fate"),
    [
        ("", "are kept, and taken up again when its manifest is applied again"),
        ("  deletionPolicy: delete\n", "are given up, with their bundles; only the ledger stays"),
    ],
    ids=["retain", "delete"],
)
def test_deleting_can_be_tried_and_tells_what_becomes_of_versions(
    services: Services, tmp_path: Path, policy: str, fate: str
) -> None:
    path = manifest(tmp_path, "leaving")
    path.write_text(path.read_text() + policy)
    services("apply", "-f", path).ok()

    said = services("delete", "leaving", "--dry-run").ok()

    assert said.out.splitlines() == [
        "model/leaving would be deleted: it is trained and served no longer",
        f"  now    its versions (0) {fate}",
    ]
    assert "leaving" in names(services)
    assert services("delete", "nothere", "--dry-run").code == 3
