"""What CONTRIBUTING.md tells the next developer is still so."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from db.effects import EFFECTS
from pipeline.workflows import StageName

ROOT = Path(__file__).resolve().parents[2]
TEXT = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
PATH = re.compile(r"\b(?:pipeline|db|tasks|api|cli|tests|migrations|samples)/[\w./-]*\w|\b[A-Z]\w+\.md\b")


@pytest.mark.parametrize("path", sorted(set(PATH.findall(TEXT))))
def test_path_it_names_is_there(path: str) -> None:
    assert (ROOT / path).exists()


@pytest.mark.parametrize("target", sorted(set(re.findall(r"\bmake ([a-z]+)\b", TEXT))))
def test_make_target_it_names_is_there(target: str) -> None:
    assert re.search(rf"^{target}:", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)


def test_every_stage_has_an_effect() -> None:
    assert set(EFFECTS) == set(StageName)
