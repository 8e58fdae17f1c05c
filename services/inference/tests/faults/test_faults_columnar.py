"""kill -9 of the process that reads tables, under load: those who sent good tables get their answers all the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from inference_fakes import Platform, eventually
from inference_process import answers_by_version, good_requests, processes, tables
from modelyard_bundle.packaging import Packed
from modelyard_common.testing.open_loop import open_loop

WORKER = "columnar_worker"


@pytest.mark.timeout(200)
def test_kill_9_of_the_process_that_reads_tables_fails_no_request(
    platform: Platform, bundles: tuple[Packed, Packed], tmp_path: Path
) -> None:
    killed: list[int] = []
    with (
        processes(platform, bundles, tmp_path) as (server,),
        open_loop([server.url], [*tables(), *good_requests()], rate=80.0) as load,
    ):

        def another() -> Any:
            found = server.child(WORKER)
            return found if found is not None and found.pid not in killed else None

        for _ in range(4):
            worker = eventually(another, 30)
            load.wait_for(40)  # for what the last one had in its hands: it is asked twice, and no third time
            killed.append(worker.pid)
            worker.suspend()  # so that it dies with a table in its hands, and others waiting
            load.wait_for(20)
            worker.kill()
        load.wait_for(40)
        last = eventually(another, 30)
        settled = eventually(lambda: [one for one in server.process.children() if one.pid == last.pid], 30)

        assert len(settled) == 1
        # Whoever was killed was buried.
        assert {one.pid for one in server.process.children()} & set(killed) == set()

    assert load.failures == []
    assert [len(labels) for labels in answers_by_version(load).values()] == [1]
