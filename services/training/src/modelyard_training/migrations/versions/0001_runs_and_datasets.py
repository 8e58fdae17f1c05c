"""Runs, the claims on them, dataset versions, known models, schedules.

Revision: 0001
"""

import sqlalchemy as sa
from alembic import op
from modelyard_common.db import JsonColumn, UtcDateTime

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "datasets",
        sa.Column("digest", sa.String(71), primary_key=True),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("size_bytes", sa.BigInteger, nullable=False),
        sa.Column("columns", JsonColumn, nullable=False),
        sa.Column("created", UtcDateTime, nullable=False),
        sa.Column("name", sa.String(200), nullable=False),
    )
    op.create_index("ix_datasets_created", "datasets", ["created"])
    op.create_table(
        "runs",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("model", sa.String(63), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("trigger", JsonColumn, nullable=False),
        sa.Column("spec", JsonColumn, nullable=False),
        sa.Column("training_digest", sa.String(71), nullable=False),
        sa.Column("until_label_seq", sa.BigInteger),
        sa.Column("timeout_s", sa.Double, nullable=False),
        sa.Column("stage", sa.Text, nullable=False),
        sa.Column("progress", sa.Double, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("created", UtcDateTime, nullable=False),
        sa.Column("started", UtcDateTime),
        sa.Column("ended", UtcDateTime),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("stopping", sa.String(16)),
        sa.Column("stopping_since", UtcDateTime),
        sa.Column("settled", sa.Boolean, nullable=False),
        sa.Column("report_seq", sa.BigInteger, nullable=False),
        sa.Column("report_digest", sa.String(64), nullable=False),
        sa.Column("version", sa.String(71)),
        sa.Column("mlflow_run_id", sa.Text),
        sa.Column("metrics", JsonColumn, nullable=False),
        sa.Column("evaluation", JsonColumn),
    )
    op.create_index("ix_runs_model_state", "runs", ["model", "state"])
    op.create_index("ix_runs_state_settled", "runs", ["state", "settled"])
    op.create_table(
        "claims",
        sa.Column("key", sa.String(400), primary_key=True),
        sa.Column("run", sa.String(40), sa.ForeignKey("runs.id"), nullable=False),
        sa.Column("request_digest", sa.String(64), nullable=False),
    )
    op.create_index("ix_claims_run", "claims", ["run"])
    op.create_table(
        "models",
        sa.Column("name", sa.String(63), primary_key=True),
        sa.Column("training_digest", sa.String(71), nullable=False),
        sa.Column("spec", JsonColumn, nullable=False),
        sa.Column("champion", sa.String(71)),
        sa.Column("deleted", sa.Boolean, nullable=False),
    )
    op.create_table(
        "schedules",
        sa.Column("model", sa.String(63), primary_key=True),
        sa.Column("cron", sa.String(200), primary_key=True),
        sa.Column("next_due", UtcDateTime, nullable=False),
        sa.Column("last_due", UtcDateTime),
        sa.Column("last_run", sa.String(40)),
        sa.Column("note", sa.Text, nullable=False),
        sa.Column("retry_at", UtcDateTime),
    )
    locks = op.create_table("locks", sa.Column("name", sa.String(40), primary_key=True))
    op.bulk_insert(locks, [{"name": "queue"}])


def downgrade() -> None:
    for table in ("locks", "schedules", "models", "claims", "runs", "datasets"):
        op.drop_table(table)
