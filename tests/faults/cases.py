"""Every case, by the modules that define them; importing one registers its cases."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec

MODULES = (
    "cases_kill",
    "cases_lanes",
    "cases_outage",
    "cases_postgres",
    "cases_broker",
    "cases_network",
    "cases_clock",
    "cases_deploy",
    "cases_poison",
    "cases_soak",
)


def load_all() -> None:
    """Register every case, in the order of the issue's list."""
    for name in MODULES:
        if find_spec(f"tests.faults.{name}") is not None:
            import_module(f"tests.faults.{name}")
