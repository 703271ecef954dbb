"""``python -m tests.faults``: take the stack through faults and say what came of it."""

from __future__ import annotations

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from tests.faults import results
from tests.faults.case import CASES, Case
from tests.faults.cases import load_all
from tests.faults.results import Result
from tests.faults.runner import once
from tests.faults.stack import SHORTENED

RESULTS = Path("var/faults/results.jsonl")
ASSETS = 300
INTERRUPTED = 130
SHOWN = 12  #: of what is wrong; the kept folder has all of it

console = Console(highlight=False, soft_wrap=True)


def main() -> int:
    """Run what was asked for; returns the exit status."""
    load_all()
    given = _arguments()
    if given.table:
        print(results.table(results.read(given.table)))  # noqa: T201
        return 0
    if given.list:
        for case in CASES.values():
            console.print(f"{case.part:>3}  {case.name:<24} {case.title}")
        return 0
    chosen = [CASES[name] for name in given.cases] or [case for case in CASES.values() if not case.apart]
    if given.minutes:
        chosen = [replace(case, seconds=given.minutes * 60) for case in chosen]
    console.print(
        f"{results.machine()}, commit {results.commit()}, {given.assets} assets a run", style="bold"
    )
    console.print(" ".join(f"{name}={value}" for name, value in SHORTENED.items()), style="dim")
    try:
        done = [_once(case, number, given) for number in range(given.runs) for case in chosen]
    except KeyboardInterrupt:
        return INTERRUPTED
    console.print()
    print(results.table(done))  # noqa: T201
    return 0 if all(result.ok for result in done) else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.faults", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", choices=[[], *CASES], help="all, unless named")
    parser.add_argument("--runs", type=int, default=1, help="of each case")
    parser.add_argument("--assets", type=int, default=ASSETS, help="uploads a run")
    parser.add_argument("--minutes", type=float, help="of uploads, for the soak")
    parser.add_argument("--seed", type=int, default=1, help="of the first run; the next has the next")
    parser.add_argument(
        "--json", type=Path, default=RESULTS, metavar="FILE", help=f"add results to {RESULTS}"
    )
    parser.add_argument("--list", action="store_true", help="name the cases")
    parser.add_argument("--table", type=Path, metavar="FILE", help="print the Markdown table of results")
    return parser.parse_args()


def _once(case: Case, number: int, given: argparse.Namespace) -> Result:
    result = once(case, assets=given.assets, seed=given.seed + number, say=console.print)
    results.append(given.json, result)
    console.print(_line(result))
    for text in result.wrong[:SHOWN]:
        console.print(f"    {text}", style="red")
    return result


def _line(result: Result) -> str:
    if result.not_run:
        return f"[yellow]-[/] {result.case:<24} not run: {result.not_run}"
    mark = "[green]ok[/]   " if result.ok else "[red]wrong[/]"
    told = {
        "submitted": result.submitted,
        "completed": result.completed,
        "failed as expected": result.failed_as_expected,
        "lost": result.lost,
        "duplicate effects": result.duplicates,
        "repeated": result.repeated,
    }
    numbers = ", ".join(f"{count} {name}" for name, count in told.items())
    rates = f"{result.before or '-'} -> {result.after or '-'} stages/s"
    notes = f" ({'; '.join(result.notes)})" if result.notes else ""
    end = f"recovery {result.recovery_s} s, {rates}, {result.seconds:.0f} s{notes}"
    return f"{mark} {result.case:<24} {numbers}, {end}"


if __name__ == "__main__":
    sys.exit(main())
