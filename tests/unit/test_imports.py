"""Importing builds nothing; which package may import which is import-linter's business (`make check`)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
IMPORT_ALL = """
import importlib, pkgutil
for name in ("pipeline", "db", "tasks", "api", "cli"):
    package = importlib.import_module(name)
    for module in pkgutil.walk_packages(package.__path__, f"{name}."):
        importlib.import_module(module.name)
        print(module.name)
"""


def test_importing_every_module_reads_no_setting() -> None:
    bad_settings = {"DAILIES_JPEG_QUALITY": "nonsense", "DAILIES_DATABASE_URL": "nonsense"}
    done = subprocess.run(  # noqa: S603 - our own interpreter and a constant
        [sys.executable, "-c", IMPORT_ALL],
        cwd=ROOT,
        env=bad_settings,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert {"pipeline.settings", "tasks.app", "api.app", "cli.main"} <= set(done.stdout.split())
