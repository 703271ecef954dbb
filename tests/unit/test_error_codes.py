"""docs/errors.md names every error code that the source can give, and no other."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = ("pipeline", "db", "tasks", "api", "cli")
CODE = re.compile(r"[A-Z]{2,}(_[A-Z]+)*")


def test_every_code_is_explained_and_no_other() -> None:
    given = {
        code
        for folder in FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        for code in _codes(ast.parse(path.read_text(encoding="utf-8")))
    }
    text = (ROOT / "docs" / "errors.md").read_text(encoding="utf-8")
    explained = re.findall(r"^\| `([A-Z_]+)` \|", text, flags=re.MULTILINE)
    assert sorted(explained) == sorted(given)


def _codes(module: ast.Module) -> Iterator[str]:
    for node in ast.walk(module):
        if isinstance(node, ast.keyword) and node.arg in {"code", "error_code"}:
            yield from _of_value(node.value)
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            name = node.targets[0].id
            if name in {"code", "_CODES"}:
                yield from _of_value(node.value)
            elif node in module.body and isinstance(node.value, ast.Constant) and node.value.value == name:
                yield name  # not of an enumeration, whose members are no errors
            elif isinstance(node.value, ast.Tuple) and len(node.value.elts) == 2:  # a code and its sentence
                yield from _of_value(node.value.elts[0])


def _of_value(value: ast.expr) -> Iterator[str]:
    """Codes in an expression. f"CORRUPT_{word}" is one for video and one for audio."""
    if isinstance(value, ast.JoinedStr):
        start = value.values[0]
        assert isinstance(start, ast.Constant)
        assert isinstance(start.value, str)
        yield from (start.value + word for word in ("VIDEO", "AUDIO"))
        return
    for part in ast.walk(value):
        if isinstance(part, ast.Constant) and isinstance(part.value, str) and CODE.fullmatch(part.value):
            yield part.value
