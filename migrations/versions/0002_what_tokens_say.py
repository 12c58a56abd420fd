"""What tokens say of users; users by address and by who claimed them."""

from collections.abc import Sequence

import sqlalchemy as sa
from alembic import op

revision: str = "0002"
down_revision: str | None = "0001"
branch_labels: Sequence[str] | None = None
depends_on: Sequence[str] | None = None


def upgrade() -> None:
    op.add_column("users", sa.Column("email_claim", sa.Text(), nullable=True))
    op.add_column("users", sa.Column("name_claim", sa.Text(), nullable=True))
    op.drop_index("ix_users_email", table_name="users")
    op.create_index("ix_users_lower_email", "users", [sa.text("lower(email)")])
    op.create_index(
        "ix_users_claimed_by",
        "users",
        ["claimed_by"],
        postgresql_where=sa.text("claimed_by IS NOT NULL"),
    )


def downgrade() -> None:
    op.drop_index("ix_users_claimed_by", table_name="users")
    op.drop_index("ix_users_lower_email", table_name="users")
    op.create_index("ix_users_email", "users", ["email"])
    op.drop_column("users", "name_claim")
    op.drop_column("users", "email_claim")
