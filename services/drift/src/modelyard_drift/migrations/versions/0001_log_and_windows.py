"""The log, the windows, episodes and decisions.

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
    model = sa.String(63)
    digest = sa.String(71)
    op.create_table(
        "logs",
        sa.Column("model", model, primary_key=True),
        sa.Column("seq", sa.BigInteger, nullable=False),
        sa.Column("prediction_seq", sa.BigInteger, nullable=False),
        sa.Column("label_seq", sa.BigInteger, nullable=False),
        sa.Column("requests", sa.BigInteger, nullable=False),
        sa.Column("labels", sa.BigInteger, nullable=False),
        sa.Column("waiting", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "predictions",
        sa.Column("model", model, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("id", sa.String(200), nullable=False),
        sa.Column("role", sa.String(9), nullable=False),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("champion", digest, nullable=False),
        sa.Column("version", digest, nullable=False),
        sa.Column("routing_key", sa.Text, nullable=False),
        sa.Column("event_time", UtcDateTime, nullable=False),
        sa.Column("arrival", UtcDateTime, nullable=False),
        sa.Column("features", sa.Text, nullable=False),
        sa.Column("sampled", sa.Boolean, nullable=False),
        sa.Column("prediction", sa.Text, nullable=False),
        sa.Column("score", sa.Double),
        sa.Column("latency_ms", sa.Double, nullable=False),
        sa.Column("error", sa.Text),
        sa.UniqueConstraint("model", "id", "role", name="uq_predictions_model_id_role"),
    )
    op.create_index("ix_predictions_model_revision", "predictions", ["model", "revision"])
    op.create_table(
        "labels",
        sa.Column("model", model, primary_key=True),
        sa.Column("seq", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("prediction_id", sa.String(200), nullable=False),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("joined", sa.Boolean, nullable=False),
        sa.UniqueConstraint("model", "prediction_id", "revision", name="uq_labels_prediction_revision"),
    )
    op.create_table(
        "policies",
        sa.Column("model", model, primary_key=True),
        sa.Column("spec", JsonColumn, nullable=False),
        sa.Column("spec_digest", digest, nullable=False),
        sa.Column("deleted", sa.Boolean, nullable=False),
    )
    op.create_table(
        "baselines",
        sa.Column("digest", digest, primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )
    op.create_table(
        "progress",
        sa.Column("model", model, primary_key=True),
        sa.Column("reference", digest),
        sa.Column("revision", sa.BigInteger, nullable=False),
        sa.Column("watermark", UtcDateTime),
        sa.Column("processed_seq", sa.BigInteger, nullable=False),
        sa.Column("label_cursor", sa.BigInteger, nullable=False),
        sa.Column("labels_missing", sa.BigInteger, nullable=False),
        sa.Column("window", JsonColumn),
    )
    op.create_table(
        "windows",
        sa.Column("model", model, primary_key=True),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("first_seq", sa.BigInteger, nullable=False),
        sa.Column("last_seq", sa.BigInteger, nullable=False),
        sa.Column("rows", sa.BigInteger, nullable=False),
        sa.Column("view", JsonColumn, nullable=False),
        sa.Column("counters", JsonColumn, nullable=False),
        sa.Column("labelled", sa.BigInteger, nullable=False),
        sa.Column("fresh_labels", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_windows_model_last_seq", "windows", ["model", "last_seq"])
    op.create_table(
        "episodes",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("model", model, nullable=False),
        sa.Column("opened", sa.BigInteger, nullable=False),
        sa.Column("is_open", sa.Boolean, nullable=False),
        sa.Column("reference", digest, nullable=False),
        sa.Column("features", JsonColumn, nullable=False),
        sa.Column("severity", sa.String(8), nullable=False),
        sa.Column("opened_window", sa.String(20), nullable=False),
        sa.Column("opened_row", sa.BigInteger, nullable=False),
        sa.Column("window_first_row", sa.BigInteger, nullable=False),
        sa.Column("opened_at", UtcDateTime, nullable=False),
        sa.Column("windows", sa.Integer, nullable=False),
        sa.Column("closed_at", UtcDateTime),
        sa.Column("closed_by", sa.Text, nullable=False),
        sa.Column("commanded", sa.Boolean, nullable=False),
    )
    op.create_index("ix_episodes_model_opened", "episodes", ["model", "opened"])
    op.create_table(
        "decisions",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("model", model, nullable=False),
        sa.Column("number", sa.BigInteger, nullable=False),
        sa.Column("episode", sa.String(40), nullable=False),
        sa.Column("at_event_time", UtcDateTime, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("trigger", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("label_seq", sa.BigInteger, nullable=False),
        sa.Column("command", sa.String(10), nullable=False),
        sa.Column("run", sa.String(40)),
    )
    op.create_index("ix_decisions_episode", "decisions", ["episode"])
    op.create_index("ix_decisions_model_number", "decisions", ["model", "number"])
    op.create_index("ix_decisions_command", "decisions", ["command"])


def downgrade() -> None:
    for table in (
        "decisions",
        "episodes",
        "windows",
        "progress",
        "baselines",
        "policies",
        "labels",
        "predictions",
        "logs",
    ):
        op.drop_table(table)
