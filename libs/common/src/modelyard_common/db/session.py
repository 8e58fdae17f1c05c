"""Sessions by right: what takes a ReadSession cannot commit, what takes a WriteSession leaves committing to the edge.

In endpoints: ``Annotated[WriteSession, Depends(writing, scope="function")]``. The scope matters: with FastAPI's
default the commit would follow the response, and a failed commit would have been answered 200.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from fastapi import Request
from sqlalchemy.orm import Session

if TYPE_CHECKING:
    from modelyard_common.db.engine import Database

__all__ = ["ReadSession", "WriteSession", "reading", "writing"]


class ReadSession(Session):
    """A session that only reads."""


class WriteSession(ReadSession):
    """A session that also writes; a function that takes a ReadSession takes this one too."""


def reading(request: Request) -> Iterator[ReadSession]:
    """Give an endpoint a session to read with."""
    database: Database = request.app.state.database
    with database.read() as session:
        yield session


def writing(request: Request) -> Iterator[WriteSession]:
    """Give an endpoint a session to write with; it commits before the response leaves."""
    database: Database = request.app.state.database
    with database.write() as session:
        yield session
