"""The trace that a decision was taken in.

Revision: 0002, after 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("decisions", sa.Column("traceparent", sa.String(55)))


def downgrade() -> None:
    op.drop_column("decisions", "traceparent")
