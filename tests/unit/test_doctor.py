"""What `dailies doctor` finds on a machine without a stack."""

from __future__ import annotations

from pathlib import Path

import pytest

from cli.doctor import examine
from cli.stack.state import State
from pipeline.settings import get_settings


@pytest.mark.parametrize(("margin", "ok"), [("1", True), ("900TB", False)])
def test_room_is_what_a_worker_would_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, margin: str, *, ok: bool
) -> None:
    monkeypatch.setenv("DAILIES_ROOM_MARGIN", margin)
    monkeypatch.delenv("DAILIES_SPOOL_DIR", raising=False)
    get_settings.cache_clear()
    try:
        (room,) = [check for check in examine(State(tmp_path / "var")) if check.what == "room for files"]
    finally:
        get_settings.cache_clear()
    assert room.ok is ok
    assert ok or "DAILIES_ROOM_MARGIN" in room.found
    assert not (tmp_path / "var" / "spool").exists()
