"""A file scored on the cluster: the Job that the command prints, its shards side by side, by the model that serves."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import yaml
from modelyard_cli.demo.stream import Stream
from modelyard_client import Modelyard

from tests.cluster.conftest import Place
from tests.cluster.installation import RELEASE, Installation, volumes
from tests.cluster.managed_model import MODEL
from tests.cluster.pods import job

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900, func_only=True)]

CLAIM, ROWS, SHARDS = "scoring", 300, 3
DONE_S = 240.0
WRITE = """
import json, sys
import pyarrow as pa, pyarrow.parquet as pq
rows = json.loads(sys.argv[1])
pq.write_table(pa.Table.from_pylist([{"id": number, **row} for number, row in enumerate(rows)]), "/data/in.parquet")
"""
READ = """
import glob, json
import pyarrow as pa, pyarrow.parquet as pq
names = sorted(glob.glob("/data/*"))
whole = pa.concat_tables([pq.read_table(name) for name in names if "-of-" in name])
answers = whole.select(["id", "prediction", "model_version"]).to_pylist()
print(json.dumps({"names": names, "answers": answers}))
"""


@pytest.fixture
def claim(platform: Installation, place: Place) -> Iterator[str]:
    """A volume claim for the files; it goes with the Jobs that use it, as its user would have it."""
    lent = volumes(place.node.layout.root / "lent", platform.namespace, {CLAIM: "1Gi"}) if place.node else []
    platform.cluster.apply(*lent)
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}}
    document = {"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": CLAIM}, "spec": spec}
    platform.kubectl("apply", "--filename=-", stdin=json.dumps(document))
    try:
        yield CLAIM
    finally:
        users = [f"job/{one['metadata']['name']}" for one in platform.get("jobs")["items"] if CLAIM in json.dumps(one)]
        platform.kubectl("delete", "--cascade=foreground", *users, f"persistentvolumeclaim/{CLAIM}", timeout_s=90)
        for volume in lent:
            platform.cluster.kubectl("delete", f"persistentvolume/{volume['metadata']['name']}")


def test_the_printed_job_scores_every_shard_and_the_shards_are_the_whole(
    platform: Installation, client: Modelyard, image: Callable[[str], str], stream: Stream, claim: str
) -> None:
    rows = list(stream.features[:ROWS])
    digest = client.inference.version(MODEL, "@champion").digest
    logged = client.drift.status(MODEL).requests
    _run(platform, "write-input", image("cli"), claim, WRITE, json.dumps(rows))

    manifest = _printed(image("cli"), claim, digest)
    platform.kubectl("apply", "--filename=-", stdin=manifest)
    again = platform.kubectl("apply", "--filename=-", stdin=manifest)
    _finish(platform, yaml.safe_load(manifest)["metadata"]["name"])

    found = json.loads(_run(platform, "read-output", image("cli"), claim, READ))
    parts = [f"/data/out-0000{index}-of-0000{SHARDS}.parquet" for index in range(SHARDS)]
    assert "unchanged" in again
    assert [name for name in found["names"] if "lost+found" not in name] == ["/data/in.parquet", *parts]
    assert [answer["id"] for answer in found["answers"]] == list(range(ROWS))
    assert {answer["model_version"] for answer in found["answers"]} == {digest}
    assert client.drift.status(MODEL).requests == logged, "what was scored is no production"
    # What is asked here is, so it is of the past: rows of today would move the clock of a stream of 1997.
    expected = client.inference.infer(MODEL, rows, version=digest, event_time=stream.times[0]).predictions
    assert [answer["prediction"] for answer in found["answers"]] == expected


def _printed(image: str, claim: str, digest: str) -> str:
    """Return the Job as the command prints it, without a server near."""
    words = ["predict", MODEL, "-f", "/data/in.parquet", "-o", "/data/out.parquet", "--keep", "id"]
    words += ["--version", digest, "--job-manifest", f"--shards={SHARDS}", f"--claim={claim}", f"--image={image}"]
    words += [f"--job-url=http://{RELEASE}-inference:8080", f"--token-secret={RELEASE}-auth/admin"]
    done = subprocess.run(
        [sys.executable, "-m", "modelyard_cli.main", *words], capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def _run(platform: Installation, name: str, image: str, claim: str, code: str, *arguments: str) -> str:
    """Run Python on the volume and return what it prints."""
    document: dict[str, Any] = job(name, image, code, arguments)
    pod = document["spec"]["template"]["spec"]
    pod["volumes"] = [*pod.get("volumes", []), {"name": "files", "persistentVolumeClaim": {"claimName": claim}}]
    container = pod["containers"][0]
    container["volumeMounts"] = [*container.get("volumeMounts", []), {"name": "files", "mountPath": "/data"}]
    container["resources"]["limits"]["memory"] = "512Mi"
    platform.kubectl("apply", "--filename=-", stdin=json.dumps(document))
    _finish(platform, name)
    return platform.kubectl("logs", f"job/{name}")


def _finish(platform: Installation, name: str) -> None:
    def ended() -> bool:
        conditions = platform.get(f"job/{name}")["status"].get("conditions", [])
        on = {one["type"] for one in conditions if one["status"] == "True"}
        assert "Failed" not in on, f"{conditions}\n{platform.cluster.explain(platform.namespace)}"
        return "Complete" in on

    platform.eventually(ended, timeout_s=DONE_S)
