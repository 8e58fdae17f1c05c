"""What runs is decided by digest in one file; promoting it changes images and nothing else."""

from __future__ import annotations

import difflib
from pathlib import Path

import pytest
import yaml

from tests.argocd.argo import ARGOCD, ROOT, Checkout
from tests.argocd.test_argocd_rendering import DIGEST, PINNED, rendered
from tools.release import HEADER, UNPUBLISHED, main

IMAGES = ("drift", "inference", "inference-runtime", "mlflow", "operator", "registry", "trainer", "training")
DIGESTS = {image: f"sha256:{number:064x}" for number, image in enumerate(IMAGES, start=1)}


def said(envs: Path, *words: str) -> None:
    main(list(words), envs)


def pinned(envs: Path) -> None:
    said(envs, "pin", "dev", *(f"{image}={digest}" for image, digest in DIGESTS.items()))


@pytest.fixture
def envs(scratch: Checkout) -> Path:
    return scratch.folder / ARGOCD / "envs"


def test_what_was_pinned_is_promoted_step_by_step_and_changes_images_only(scratch: Checkout, envs: Path) -> None:
    before = yaml.safe_dump_all(rendered(scratch, "production"))
    pinned(envs)
    said(envs, "promote", "dev", "staging")
    said(envs, "promote", "staging", "production")
    again = Checkout(scratch.folder, scratch.helm)

    after = yaml.safe_dump_all(rendered(again, "production"))

    changed = [
        line[1:] for line in difflib.unified_diff(before.splitlines(), after.splitlines(), n=0) if line[0] in "+-"
    ]
    changed = [line for line in changed if not line.startswith(("--", "++"))]
    assert changed and all(PINNED.search(line) for line in changed), changed
    assert set(DIGEST.findall(after)) == set(DIGESTS.values())
    releases = {name: (envs / name / "release.yaml").read_text() for name in ("dev", "staging", "production")}
    assert {name: sorted(DIGEST.findall(text)) for name, text in releases.items()} == dict.fromkeys(
        releases, sorted(DIGESTS.values())
    )


def test_each_digest_gets_to_its_own_image(scratch: Checkout, envs: Path) -> None:
    pinned(envs)

    images = set(PINNED.findall(yaml.safe_dump_all(rendered(scratch, "dev"), width=1000)))

    own = {image: f"modelyard/{image}" for image in IMAGES} | {"mlflow": "mlflow/mlflow"}
    assert images == {f"registry.example.com/{own[image]}@{digest}" for image, digest in DIGESTS.items()}


def test_pinning_one_image_leaves_the_others(envs: Path) -> None:
    pinned(envs)
    new = "sha256:" + "f" * 64

    said(envs, "pin", "dev", f"drift={new}")

    text = (envs / "dev/release.yaml").read_text()
    assert sorted(DIGEST.findall(text)) == sorted({**DIGESTS, "drift": new}.values())


@pytest.mark.parametrize("name", ["dev", "staging", "production"])
def test_the_files_are_as_the_tool_writes_them(name: str) -> None:
    text = (ROOT / ARGOCD / "envs" / name / "release.yaml").read_text()

    assert text == HEADER + yaml.safe_dump(yaml.safe_load(text), sort_keys=False)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        pytest.param(("pin", "moon", "drift=x"), "no environment 'moon'; there is dev, production", id="place"),
        pytest.param(("pin", "dev", "drifts=x"), "dev runs no image 'drifts'; it runs drift, inf", id="image"),
        pytest.param(("pin", "dev", "drift=v1.2"), "drift=v1.2 is no digest", id="tag"),
        pytest.param(("pin", "dev", f"drift={UNPUBLISHED}"), "is no digest", id="zeros"),
        pytest.param(("pin", "dev", f"drift={DIGESTS['drift'].upper()}"), "is no digest", id="upper case"),
        pytest.param(
            ("promote", "dev", "staging"),
            "dev has no published drift, inference, inference-runtime, ml",
            id="unpublished",
        ),
        pytest.param(("promote", "dev", "moon"), "there is no environment 'moon'", id="target"),
    ],
)
def test_a_wrong_release_is_refused_and_changes_nothing(envs: Path, words: tuple[str, ...], why: str) -> None:
    before = {path: path.read_text() for path in envs.rglob("*.yaml")}

    with pytest.raises(SystemExit, match=why):
        said(envs, *words)

    assert {path: path.read_text() for path in envs.rglob("*.yaml")} == before


def test_one_wrong_digest_among_right_ones_pins_none(envs: Path) -> None:
    before = (envs / "dev/release.yaml").read_text()

    with pytest.raises(SystemExit, match="is no digest"):
        said(envs, "pin", "dev", f"drift={DIGESTS['drift']}", "registry=latest")

    assert (envs / "dev/release.yaml").read_text() == before
