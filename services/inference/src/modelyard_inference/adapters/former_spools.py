"""Sends what workers wrote that are no more: a server of five processes may come back as one of two.

The spool of the first worker is ``spool``, as that of a server of one process; of the others ``spool-1`` and up.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from modelyard_common.errors import Conflict, ModelyardError
from modelyard_common.logs import get_logger
from modelyard_common.tasks import StopSignal

from modelyard_inference.adapters.payload_spool import PayloadSpool
from modelyard_inference.adapters.spool_sender import SpoolSender

__all__ = ["FormerSpools", "spool_folder"]

_log = get_logger(__name__)


def spool_folder(home: Path, slot: int) -> Path:
    """Return the folder of a worker's spool."""
    return home / ("spool" if slot == 0 else f"spool-{slot}")


class FormerSpools:
    """The spools of the places that nobody holds any more.

    Args:
        size: how many places there are now.
        opened: opens a spool. Raises Conflict while its owner still ends.
        senders: who has to get what is in it.
    """

    def __init__(
        self,
        home: Path,
        size: int,
        opened: Callable[[Path], PayloadSpool],
        senders: Callable[[PayloadSpool], Sequence[SpoolSender]],
    ) -> None:
        self._home = home
        self._size = size
        self._opened = opened
        self._senders = senders

    def send(self, stop: StopSignal) -> None:
        """Empty them, and remove those that are empty: a task."""
        for folder in self._folders():
            try:
                spool = self._opened(folder)
            except Conflict:
                continue
            try:
                done = self._empty(spool, stop)
            finally:
                spool.close()
            if done:
                _log.info("former_spool.sent", folder=folder.name)
                _remove(folder)

    def _empty(self, spool: PayloadSpool, stop: StopSignal) -> bool:
        """Send all that can be sent now; return whether that is everything. One who is away keeps no other waiting."""
        done = True
        for sender in self._senders(spool):
            sender.heed(stop)
            try:
                while not stop.is_set() and sender.send_once():
                    pass
            except ModelyardError:
                done = False  # the next round tries again
            finally:
                sender.close()
        return done and not stop.is_set()

    def _folders(self) -> Iterator[Path]:
        for folder in sorted(self._home.glob("spool-*")):
            number = folder.name.removeprefix("spool-")
            if number.isdecimal() and int(number) >= self._size and any(folder.glob("*.events")):
                yield folder


def _remove(folder: Path) -> None:
    """Remove a spool, but for what was refused: somebody may want to look at it."""
    for file in folder.iterdir():
        if not file.name.startswith("refused"):
            file.unlink(missing_ok=True)
    if not any(folder.iterdir()):
        shutil.rmtree(folder, ignore_errors=True)
