from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from modelyard_common.db import Database
from modelyard_common.db.migrate import upgrade
from modelyard_registry.api.watchers import Watchers
from registry_fakes import FakeEvidence, FakeMlflow, Platform, serving


class Watch:
    """Reads server-sent events off one connection."""

    def __init__(self, response: httpx.Response) -> None:
        self._lines = response.iter_lines()
        self.comments = 0

    def next(self) -> dict[str, Any]:
        fields: dict[str, str] = {}
        for line in self._lines:
            if not line and "data" in fields:
                return {"event": fields["event"], "id": int(fields["id"]), **json.loads(fields["data"])}
            name, _, value = line.partition(": ")
            if line.startswith(":"):
                self.comments += 1
            fields[name] = value
        raise AssertionError("the watch ended")

    def until_comment(self) -> None:
        next(line for line in self._lines if line.startswith(":"))


def watching(platform: Platform, last: int | None = None) -> Any:
    headers = {} if last is None else {"Last-Event-ID": str(last)}
    return platform.http.stream("GET", "/v1/watch", headers=headers)


def test_new_watch_is_told_the_present_routing_and_then_every_change(platform: Platform) -> None:
    platform.apply("a")
    platform.apply("b")
    with watching(platform) as response:
        watch = Watch(response)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert [(event["model"], event["kind"]) for event in (watch.next(), watch.next())] == [
            ("a", "routing"),
            ("b", "routing"),
        ]
        platform.apply("b", description="changed")
        assert watch.next()["kind"] == "model"
        platform.apply("m")
        bundle = platform.champion()
        while (event := watch.next())["kind"] != "routing" or event["routing"]["champion"] is None:
            pass
        assert event["routing"]["champion"]["digest"] == bundle.digest
        assert event["id"] == event["seq"]


def test_watch_goes_on_after_the_last_event_also_after_a_restart(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'r.db'}"
    for step in range(2):
        database = Database(url)
        upgrade(database, "modelyard_registry")
        with serving(database, tmp_path, FakeMlflow(), FakeEvidence()) as platform:
            if step == 0:
                platform.apply("a")
                with watching(platform) as response:
                    last = Watch(response).next()["seq"]
                platform.apply("b")
            else:
                with watching(platform, last) as response:
                    watch = Watch(response)
                    told = [watch.next() for _ in range(3)]
                assert [(event["model"], event["kind"]) for event in told] == [
                    ("a", "model"),
                    ("b", "routing"),
                    ("b", "model"),
                ]
                assert [event["seq"] for event in told] == [last + 1, last + 2, last + 3]


@pytest.mark.parametrize("last", [10_000, 7])
def test_watch_with_an_id_from_another_life_begins_anew(platform: Platform, last: int) -> None:
    platform.apply("a")
    with watching(platform, last) as response:
        assert Watch(response).next()["routing"]["model"] == "a"


def test_quiet_watch_says_that_it_is_alive(platform: Platform) -> None:
    with watching(platform) as response:
        Watch(response).until_comment()


def test_wrong_last_event_id_is_refused(platform: Platform) -> None:
    assert platform.http.get("/v1/watch", headers={"Last-Event-ID": "x"}).status_code == 422


def test_number_of_watches_is_bounded() -> None:
    with pytest.raises(Exception, match="0 watches already"):
        Watchers(0).check()


def test_routing_is_not_sent_again_to_whoever_has_it(platform: Platform) -> None:
    platform.apply()
    first = platform.http.get("/v1/models/m/routing")
    assert first.headers["etag"] == '"1"'
    same = platform.http.get("/v1/models/m/routing", headers={"If-None-Match": '"1"'})
    assert (same.status_code, same.content) == (304, b"")
    platform.champion()
    assert platform.http.get("/v1/models/m/routing", headers={"If-None-Match": '"1"'}).status_code == 200
