"""The registry's first tables

Revision: 0001, the first
"""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op
from sqlalchemy.dialects import postgresql

revision = '0001'
down_revision = None
branch_labels = None
depends_on = None

UTC_TIME = sa.DateTime(timezone=True)
DOCUMENT = sa.JSON().with_variant(postgresql.JSONB(), 'postgresql')


def upgrade() -> None:
    op.create_table('events',
    sa.Column('seq', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('at', UTC_TIME, nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('routing', DOCUMENT, nullable=True),
    sa.PrimaryKeyConstraint('seq')
    )
    op.create_table('heads',
    sa.Column('id', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('ledger_seq', sa.Integer(), nullable=False),
    sa.Column('ledger_hash', sa.String(length=64), nullable=False),
    sa.Column('event_seq', sa.Integer(), nullable=False),
    sa.PrimaryKeyConstraint('id')
    )
    op.create_table('idempotency',
    sa.Column('key', sa.String(), nullable=False),
    sa.Column('request', sa.String(), nullable=False),
    sa.Column('response', DOCUMENT, nullable=False),
    sa.Column('created', UTC_TIME, nullable=False),
    sa.PrimaryKeyConstraint('key')
    )
    op.create_table('ledger',
    sa.Column('seq', sa.Integer(), autoincrement=False, nullable=False),
    sa.Column('at', UTC_TIME, nullable=False),
    sa.Column('actor', sa.Text(), nullable=False),
    sa.Column('kind', sa.String(length=64), nullable=False),
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('subject', sa.Text(), nullable=False),
    sa.Column('body', sa.Text(), nullable=False),
    sa.Column('previous', sa.String(length=64), nullable=False),
    sa.Column('hash', sa.String(length=64), nullable=False),
    sa.PrimaryKeyConstraint('seq')
    )
    with op.batch_alter_table('ledger', schema=None) as batch_op:
        batch_op.create_index('ix_ledger_model', ['model', 'seq'], unique=False)

    op.create_table('models',
    sa.Column('name', sa.String(length=63), nullable=False),
    sa.Column('generation', sa.Integer(), nullable=False),
    sa.Column('spec', DOCUMENT, nullable=False),
    sa.Column('spec_digest', sa.String(length=71), nullable=False),
    sa.Column('training_digest', sa.String(length=71), nullable=False),
    sa.Column('created', UTC_TIME, nullable=False),
    sa.Column('updated', UTC_TIME, nullable=False),
    sa.Column('deleted', sa.Boolean(), nullable=False),
    sa.PrimaryKeyConstraint('name')
    )
    op.create_table('mirror',
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('wanted', sa.Integer(), nullable=False),
    sa.Column('done', sa.Integer(), nullable=False),
    sa.Column('attempts', sa.Integer(), nullable=False),
    sa.Column('next_at', UTC_TIME, nullable=False),
    sa.Column('error', sa.Text(), nullable=False),
    sa.ForeignKeyConstraint(['model'], ['models.name'], ),
    sa.PrimaryKeyConstraint('model')
    )
    op.create_table('routing',
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('body', DOCUMENT, nullable=False),
    sa.ForeignKeyConstraint(['model'], ['models.name'], ),
    sa.PrimaryKeyConstraint('model')
    )
    op.create_table('runtime_reports',
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('instance', sa.Text(), nullable=False),
    sa.Column('digest', sa.String(length=71), nullable=False),
    sa.Column('revision', sa.Integer(), nullable=False),
    sa.Column('outcome', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('at', UTC_TIME, nullable=False),
    sa.ForeignKeyConstraint(['model'], ['models.name'], ),
    sa.PrimaryKeyConstraint('model', 'instance')
    )
    op.create_table('versions',
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('digest', sa.String(length=71), nullable=False),
    sa.Column('number', sa.Integer(), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('run', sa.Text(), nullable=False),
    sa.Column('registered', UTC_TIME, nullable=False),
    sa.Column('manifest', DOCUMENT, nullable=False),
    sa.Column('evaluation', DOCUMENT, nullable=True),
    sa.Column('verdict', DOCUMENT, nullable=True),
    sa.Column('mlflow_run_id', sa.Text(), nullable=False),
    sa.Column('artifact_path', sa.Text(), nullable=False),
    sa.Column('mlflow_version', sa.String(length=32), nullable=True),
    sa.Column('mirrored_state', sa.String(length=16), nullable=False),
    sa.ForeignKeyConstraint(['model'], ['models.name'], ),
    sa.PrimaryKeyConstraint('model', 'digest'),
    sa.UniqueConstraint('model', 'number', name='uq_versions_number')
    )
    with op.batch_alter_table('versions', schema=None) as batch_op:
        batch_op.create_index('ix_versions_run', ['mlflow_run_id'], unique=False)
        batch_op.create_index('uq_versions_one_champion', ['model'], unique=True, sqlite_where=sa.text("state = 'champion'"), postgresql_where=sa.text("state = 'champion'"))

    op.create_table('promotions',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('version', sa.String(length=71), nullable=False),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('created', UTC_TIME, nullable=False),
    sa.Column('rollout', sa.String(length=32), nullable=True),
    sa.ForeignKeyConstraint(['model', 'version'], ['versions.model', 'versions.digest'], ),
    sa.PrimaryKeyConstraint('id')
    )
    with op.batch_alter_table('promotions', schema=None) as batch_op:
        batch_op.create_index('ix_promotions_model', ['model', 'created'], unique=False)

    op.create_table('reigns',
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('digest', sa.String(length=71), nullable=False),
    sa.Column('since', UTC_TIME, nullable=False),
    sa.ForeignKeyConstraint(['model', 'digest'], ['versions.model', 'versions.digest'], ),
    sa.PrimaryKeyConstraint('model', 'seq')
    )
    op.create_table('rollouts',
    sa.Column('id', sa.String(length=32), nullable=False),
    sa.Column('model', sa.String(length=63), nullable=False),
    sa.Column('seq', sa.Integer(), nullable=False),
    sa.Column('candidate', sa.String(length=71), nullable=False),
    sa.Column('previous', sa.String(length=71), nullable=True),
    sa.Column('state', sa.String(length=16), nullable=False),
    sa.Column('kind', sa.String(length=16), nullable=False),
    sa.Column('reason', sa.Text(), nullable=False),
    sa.Column('started', UTC_TIME, nullable=False),
    sa.Column('ended', UTC_TIME, nullable=True),
    sa.Column('waiting_for', sa.Text(), nullable=False),
    sa.Column('steps', DOCUMENT, nullable=False),
    sa.Column('abort_if', DOCUMENT, nullable=False),
    sa.ForeignKeyConstraint(['model', 'candidate'], ['versions.model', 'versions.digest'], ),
    sa.PrimaryKeyConstraint('id'),
    sa.UniqueConstraint('model', 'seq', name='uq_rollouts_seq')
    )
    with op.batch_alter_table('rollouts', schema=None) as batch_op:
        batch_op.create_index('uq_rollouts_one_active', ['model'], unique=True, sqlite_where=sa.text("state IN ('running', 'paused')"), postgresql_where=sa.text("state IN ('running', 'paused')"))

    # The one row that puts all writers in one order.
    op.execute(f"INSERT INTO heads (id, ledger_seq, ledger_hash, event_seq) VALUES (1, 0, '{'0' * 64}', 0)")


def downgrade() -> None:
    with op.batch_alter_table('rollouts', schema=None) as batch_op:
        batch_op.drop_index('uq_rollouts_one_active', sqlite_where=sa.text("state IN ('running', 'paused')"), postgresql_where=sa.text("state IN ('running', 'paused')"))

    op.drop_table('rollouts')
    op.drop_table('reigns')
    with op.batch_alter_table('promotions', schema=None) as batch_op:
        batch_op.drop_index('ix_promotions_model')

    op.drop_table('promotions')
    with op.batch_alter_table('versions', schema=None) as batch_op:
        batch_op.drop_index('uq_versions_one_champion', sqlite_where=sa.text("state = 'champion'"), postgresql_where=sa.text("state = 'champion'"))

    op.drop_table('versions')
    op.drop_table('runtime_reports')
    op.drop_table('routing')
    op.drop_table('mirror')
    op.drop_table('models')
    with op.batch_alter_table('ledger', schema=None) as batch_op:
        batch_op.drop_index('ix_ledger_model')

    op.drop_table('ledger')
    op.drop_table('idempotency')
    op.drop_table('heads')
    op.drop_table('events')
