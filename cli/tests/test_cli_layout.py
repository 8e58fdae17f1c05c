"""The ports of an embedded platform: all in one block, so that a second platform needs only another base."""

from __future__ import annotations

from pathlib import Path

from modelyard_cli.embedded.layout import Layout


def test_every_port_is_one_of_eleven_and_inference_is_told_both_of_its_own(tmp_path: Path) -> None:
    programs = {program.name: program for program in Layout(tmp_path, 20_000).programs(prometheus="prometheus")}
    told = {
        value
        for program in programs.values()
        for name, value in program.environment.items()
        if name.startswith("MODELYARD_") and name.endswith("_PORT")
    }
    ports = {program.port for program in programs.values()} | set(map(int, told))

    assert programs["inference"].environment["MODELYARD_INFERENCE_GRPC_PORT"] == "20010"
    assert len(ports) == len(programs) + 1
    assert ports <= set(range(20_000, 20_011))
