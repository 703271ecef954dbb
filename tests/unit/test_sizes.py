"""Modules and functions stay small enough to be read at one go."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FUNCTION_LINES, MODULE_LINES, TEST_MODULE_LINES = 40, 300, 400
GENERATED = ROOT / "migrations" / "versions"
FOLDERS = ("api", "bench", "cli", "db", "migrations", "pipeline", "tasks", "tests")
MODULES = [
    path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py") if GENERATED not in path.parents
]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(ROOT)))
def test_module_and_its_functions_are_within_their_limits(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    limit = TEST_MODULE_LINES if path.is_relative_to(ROOT / "tests") else MODULE_LINES
    assert len(source.splitlines()) <= limit
    functions = (
        node
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    )
    lengths = {node.name: (node.end_lineno or 0) - node.lineno + 1 for node in functions}
    assert {name: length for name, length in lengths.items() if length > FUNCTION_LINES} == {}
