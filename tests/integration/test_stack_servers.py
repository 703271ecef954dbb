from __future__ import annotations

from typing import TYPE_CHECKING

from sqlalchemy import text

if TYPE_CHECKING:
    from mypy_boto3_s3 import S3Client
    from sqlalchemy.orm import Session

    from db.session import Sessions


def test_postgres_is_a_real_server_with_pgvector(session: Session) -> None:
    assert session.scalar(text("SELECT count(*) FROM pg_available_extensions WHERE name = 'vector'")) == 1


def test_sessions_commit_for_real(sessions: Sessions) -> None:
    with sessions.begin() as one:
        assert one.scalar(text("SELECT count(*) FROM media_items")) == 0


def test_bucket_keeps_what_is_put(s3: S3Client, bucket: str) -> None:
    s3.put_object(Bucket=bucket, Key="stack/a b+ü.txt", Body=b"hello")
    assert s3.get_object(Bucket=bucket, Key="stack/a b+ü.txt")["Body"].read() == b"hello"
