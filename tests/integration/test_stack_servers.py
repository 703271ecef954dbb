from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from sqlalchemy import text

from cli.stack.state import State
from pipeline.settings import Settings

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


def test_what_the_servers_write_is_for_their_owner_alone(settings: Settings) -> None:
    servers = State(Path(settings.spool_dir).parent).running()[1:]
    assert [one["role"] for one in servers] == ["postgres", "aws"]
    for one in servers:
        status = Path(f"/proc/{one['pid']}/status").read_text()
        assert re.search(r"^Umask:\s*0077$", status, re.MULTILINE)
