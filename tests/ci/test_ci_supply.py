"""The way of an image: pushed, then only by digest scanned, signed, attested, published.

docker, cosign and trivy are stood in for by a program that notes how it was called: there is no image registry here.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.ci.pipelines import ROOT
from tools.ci.supply import main

DIGEST = "sha256:" + "a" * 64
IMAGES = "registry.example.com/ml/ci"
PUSHED = f"{IMAGES}/drift@{DIGEST}"
PROGRAM = """\
#!/bin/sh
echo "$(basename "$0") $*" >>"$CALLS"
case "$*" in
  *"$FAILS"*) echo "said why" >&2; exit 3 ;;
  "image inspect"*) echo "elsewhere.example.com/drift@sha256:0"; echo "$PUSHED" ;;
esac
"""


@pytest.fixture
def build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("docker", "cosign", "trivy"):
        (tmp_path / name).write_text(PROGRAM)
        (tmp_path / name).chmod(0o755)
    settings = {"CI_IMAGES": IMAGES, "RELEASE_IMAGES": "registry.example.com/ml/modelyard/", "CI_COMMIT_SHA": "c0ffee"}
    program = {
        "CALLS": str(tmp_path / "calls"),
        "PUSHED": PUSHED,
        "FAILS": "nothing",
        "PATH": f"{tmp_path}:{os.environ['PATH']}",
    }
    for name, value in (settings | program).items():
        monkeypatch.setenv(name, value)
    return tmp_path / "build"


def called(build: Path) -> list[str]:
    return (build.parent / "calls").read_text().splitlines()


def pushed(build: Path, text: str = PUSHED) -> None:
    (build / "digests").mkdir(parents=True)
    (build / "digests/drift").write_text(f"{text}\n")
    (build / "sbom").mkdir()
    (build / "sbom/drift.cdx.json").write_text("{}")


def test_a_push_notes_the_digest_under_which_the_registry_has_the_image(build: Path) -> None:
    main(["push", "drift"], build)

    assert (build / "digests/drift").read_text() == f"{PUSHED}\n"
    assert called(build)[:2] == [
        f"docker tag modelyard/drift:dev {IMAGES}/drift:c0ffee",
        f"docker push --quiet {IMAGES}/drift:c0ffee",
    ]


@pytest.mark.parametrize(
    ("step", "expected"),
    [
        ("scan", [f"trivy image --exit-code 1 --severity HIGH,CRITICAL --ignore-unfixed --scanners vuln {PUSHED}"]),
        (
            "sign",
            [
                f"cosign sign --yes {PUSHED}",
                f"cosign attest --yes --type cyclonedx --predicate SBOM {PUSHED}",
            ],
        ),
        ("publish", [f"cosign copy --force {PUSHED} registry.example.com/ml/modelyard/drift:c0ffee"]),
    ],
)
def test_every_later_step_names_the_digest(build: Path, step: str, expected: list[str]) -> None:
    pushed(build)

    main([step], build)

    assert [line.replace(str(build / "sbom/drift.cdx.json"), "SBOM") for line in called(build)] == expected


@pytest.mark.parametrize("step", ["scan", "sign", "publish"])
def test_a_pipeline_that_pushed_nothing_does_nothing(build: Path, step: str) -> None:
    main([step], build)

    assert not (build.parent / "calls").exists()


@pytest.mark.parametrize(
    ("words", "text", "sentence"),
    [
        (["push", "nothere"], PUSHED, "there is no image nothere; there are registry"),
        (["sign"], f"{IMAGES}/drift:latest", "which is no image by digest"),
        (["sign"], "", "which is no image by digest"),
    ],
)
def test_what_cannot_be_done_is_said(build: Path, words: list[str], text: str, sentence: str) -> None:
    pushed(build, text)

    with pytest.raises(SystemExit, match=sentence):
        main(words, build)

    assert not (build.parent / "calls").exists()


def test_an_image_without_its_bill_is_not_signed(build: Path) -> None:
    pushed(build)
    (build / "sbom/drift.cdx.json").unlink()

    with pytest.raises(SystemExit, match="`make sbom` writes it"):
        main(["sign"], build)

    assert not (build.parent / "calls").exists()


def test_what_a_program_says_when_it_fails_is_shown(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed(build)
    monkeypatch.setenv("FAILS", "--exit-code")

    with pytest.raises(SystemExit, match=r"scan: trivy image --exit-code … failed \(3\): said why"):
        main(["scan"], build)


def test_a_setting_or_a_program_that_is_not_there_is_named(build: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pushed(build)
    monkeypatch.delenv("RELEASE_IMAGES")
    with pytest.raises(SystemExit, match="RELEASE_IMAGES is not set"):
        main(["publish"], build)

    monkeypatch.setenv("PATH", str(build))
    with pytest.raises(SystemExit, match="there is no trivy here"):
        main(["scan"], build)


def test_the_image_of_the_jobs_holds_every_program_that_a_step_calls() -> None:
    text = (ROOT / "deploy/ci/Dockerfile").read_text()

    assert {name for name in ("docker", "trivy", "cosign", "git", "make") if name not in text} == set()
    assert ":latest" not in text
