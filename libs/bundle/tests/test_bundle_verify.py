"""A digest stands for every byte: whatever is changed, gone, added, or leads out of the bundle is refused by name."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from bundle_makers import NOW
from hypothesis import given, settings
from hypothesis import strategies as st
from modelyard_bundle.manifest import bundle_digest, list_files, read_manifest, verify, write_manifest
from modelyard_bundle.packaging import Packed
from modelyard_common.errors import Invalid
from modelyard_contracts.bundle_v1 import MANIFEST_FILE, BundleFile, BundleManifest

Copy = Callable[[], Path]


def test_a_bundle_as_it_was_written_is_what_its_digest_stands_for(good: Packed) -> None:
    assert verify(good.folder, good.digest) == good.manifest == read_manifest(good.folder)
    assert {entry.path for entry in good.manifest.files} == {
        "MLmodel",
        "baseline.json",
        "metrics.json",
        "model.onnx",
        "model.skops",
        "probe.json",
        "python_env.yaml",
        "requirements.txt",
    }


@pytest.mark.parametrize("name", ["model.onnx", "model.skops", "probe.json", "baseline.json", "MLmodel"])
def test_one_flipped_bit_in_a_file_is_found_and_the_file_named(good: Packed, copy: Copy, name: str) -> None:
    path = copy() / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)

    with pytest.raises(Invalid, match=f"^{name}: its bytes are not those that the manifest names"):
        verify(path.parent, good.digest)


def test_a_manifest_that_was_rewritten_for_other_bytes_is_not_the_manifest_of_the_digest(
    good: Packed, copy: Copy
) -> None:
    folder = copy()
    (folder / "probe.json").write_text("{}")
    write_manifest(folder, good.manifest.model_copy(update={"files": list_files(folder)}))

    with pytest.raises(Invalid, match=f"{MANIFEST_FILE} is not the manifest of {good.digest}"):
        verify(folder, good.digest)


@pytest.mark.parametrize(
    ("field", "value"),
    [("model", "other"), ("runtimes", ["sklearn"]), ("parity", "fine"), ("created", "2026-03-01T12:00:01Z")],
)
def test_no_field_of_the_manifest_can_change_under_its_digest(
    good: Packed, copy: Copy, field: str, value: object
) -> None:
    path = copy() / MANIFEST_FILE
    path.write_text(json.dumps(json.loads(path.read_text()) | {field: value}))

    with pytest.raises(Invalid, match="is not the manifest of"):
        verify(path.parent, good.digest)


def test_a_file_that_is_gone_is_named(good: Packed, copy: Copy) -> None:
    folder = copy()
    (folder / "probe.json").unlink()

    with pytest.raises(Invalid, match=r"^probe\.json: is in the manifest and not in the bundle"):
        verify(folder, good.digest)


@pytest.mark.parametrize("name", ["model.pkl", "deep/er/sitecustomize.py"])
def test_a_file_that_nobody_listed_is_named(good: Packed, copy: Copy, name: str) -> None:
    folder = copy()
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(b"x")

    with pytest.raises(Invalid, match=f"^{name}: is in the bundle and not in the manifest"):
        verify(folder, good.digest)


@pytest.mark.parametrize("path", ["../secret", "/etc/hostname", "a/../../secret", "", "."])
def test_a_path_that_leads_out_of_the_bundle_is_refused_before_it_is_read(good: Packed, copy: Copy, path: str) -> None:
    folder = copy()
    (folder.parent / "secret").write_bytes(b"x")
    entry = BundleFile(path=path, digest="sha256:" + "0" * 64, size_bytes=1)
    digest = write_manifest(folder, good.manifest.model_copy(update={"files": (entry,)}))

    with pytest.raises(Invalid, match="leads out of the bundle"):
        verify(folder, digest)


@pytest.mark.parametrize("to_folder", [False, True], ids=["a file", "a folder"])
def test_a_link_is_refused_even_to_the_right_bytes(good: Packed, copy: Copy, to_folder: bool) -> None:
    folder = copy()
    if to_folder:
        (folder / "linked").symlink_to(good.folder)
    else:
        (folder / "probe.json").unlink()
        (folder / "probe.json").symlink_to(good.folder / "probe.json")

    with pytest.raises(Invalid, match=r"(linked|probe\.json): "):
        verify(folder, good.digest)


@pytest.mark.parametrize(
    ("content", "message"),
    [(None, "there is no modelyard.json"), (b"{", "is not a bundle manifest"), (b"{}", "is not a bundle manifest")],
    ids=["none", "no JSON", "no fields"],
)
def test_a_folder_without_a_manifest_says_so(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / MANIFEST_FILE).write_bytes(content)

    with pytest.raises(Invalid, match=message):
        verify(tmp_path, "sha256:" + "0" * 64)


def test_a_manifest_that_is_a_folder_is_no_manifest(tmp_path: Path) -> None:
    (tmp_path / MANIFEST_FILE).mkdir()

    with pytest.raises(Invalid, match="cannot be read"):
        read_manifest(tmp_path)


def a_manifest(good: Packed, files: tuple[BundleFile, ...]) -> BundleManifest:
    return good.manifest.model_copy(update={"files": files, "created": NOW})


@settings(max_examples=50)
@given(st.dictionaries(st.text("abc/.", min_size=1, max_size=8), st.integers(0, 9), max_size=8), st.randoms())
def test_the_digest_of_a_manifest_does_not_depend_on_the_order_of_its_files(
    good: Packed, sizes: dict[str, int], chance: random.Random
) -> None:
    files = [BundleFile(path=path, digest="sha256:" + str(size) * 64, size_bytes=size) for path, size in sizes.items()]
    shuffled = list(files)
    chance.shuffle(shuffled)

    assert bundle_digest(a_manifest(good, tuple(files))) == bundle_digest(a_manifest(good, tuple(shuffled)))


def test_the_digest_does_not_depend_on_how_the_manifest_is_written(good: Packed, copy: Copy) -> None:
    path = copy() / MANIFEST_FILE
    document: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps(dict(reversed(document.items())), indent=7))

    assert verify(path.parent, good.digest) == good.manifest
