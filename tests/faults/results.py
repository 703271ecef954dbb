"""What is kept of each run, and the table made of it."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.faults.case import Case, Run
from tests.faults.oracle import Findings
from tests.faults.stack import ROOT, SHORTENED, Stack

TAIL = 0.95  #: of the stages; the rate ends there, for the slowest ones end alone
SHORTEST_S = 2.0  #: a rate over less says nothing
ENDS = "SELECT finished_at FROM processing_attempts WHERE outcome = 'completed' ORDER BY 1"
FIRST_AFTER = """
    SELECT min(finished_at) FROM processing_attempts WHERE outcome = 'completed' AND started_at > %s"""
HEADS = (
    "case", "runs", "assets", "completed", "failed as expected", "lost", "duplicate effects",
    "repeated executions", "recovery, s", "throughput after/before", "seconds",
)  # fmt: skip


def machine() -> str:
    """Processor, number of cores, system."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")
    return f"{model or platform.machine()}, {os.cpu_count()} cores, {platform.system()} {platform.release()}"


def commit() -> str:
    """The commit that is tried, with a plus where files differ from it."""
    asked = (
        ["git", "rev-parse", "--short", "HEAD"],
        ["git", "status", "--porcelain", "--untracked-files=no"],
    )
    try:
        name, changed = (
            subprocess.run(words, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()  # noqa: S603
            for words in asked
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return name + ("+" if changed else "")


@dataclass(frozen=True)
class Result:
    """One run, as a line of ``results.jsonl``."""

    case: str
    part: str
    title: str
    ok: bool
    submitted: int
    completed: int
    failed_as_expected: int
    lost: int
    duplicates: int
    executions: int
    repeated: int
    orphans: int
    recovery_s: float | None
    before: float | None  #: stages completed a second
    after: float | None
    seconds: float
    wrong: list[str]
    notes: list[str]
    not_run: str = ""
    date: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))
    machine: str = field(default_factory=machine)
    commit: str = field(default_factory=commit)
    settings: dict[str, str] = field(default_factory=lambda: dict(SHORTENED))


def of(run: Run, found: Findings, *, case: Case, seconds: float) -> Result:
    """The result of a run that the oracle has looked at."""
    before, after = _rates(run)
    recovery = _recovery(run)
    if run.hit:
        run.note(f"{len(run.hit)} rows hit, free again after {_freed(run)} s at most")
    wrong = found.wrong
    if case.recovers is not None and (recovery is None or recovery > case.recovers):
        wrong.append(f"recovery took {recovery} s, and may take {case.recovers} s")
    return Result(
        case=case.name,
        part=case.part,
        title=case.title,
        ok=not wrong,
        submitted=found.submitted,
        completed=found.completed,
        failed_as_expected=found.failed_as_expected,
        lost=len(found.lost),
        duplicates=len(found.duplicates),
        executions=found.executions,
        repeated=found.repeated,
        orphans=found.orphans,
        recovery_s=recovery,
        before=before,
        after=after,
        seconds=round(seconds, 1),
        wrong=wrong,
        notes=run.notes,
        settings={**SHORTENED, **case.settings},
    )


def _recovery(run: Run) -> float | None:
    """Until each row that was hit ran again; where none was named, from the fault's end to a stage's."""
    if run.hit:
        waits = [_again(run.stack, one.row_id, one.token, one.at) for one in run.hit]
        return max((wait for wait in waits if wait is not None), default=None)
    if run.ended is None:
        return None
    first = run.stack.sql(FIRST_AFTER, [run.ended])
    return _seconds(run.ended, first[0][0])


def _freed(run: Run) -> float | None:
    """Until the last of the attempts that were hit was closed."""
    query = "SELECT finished_at FROM processing_attempts WHERE token = %s AND outcome IN ('lost', 'released')"
    ends = [(one.at, run.stack.sql(query, [one.token])) for one in run.hit]
    return max((_seconds(at, found[0][0]) or 0.0 for at, found in ends if found), default=None)


def _again(stack: Stack, row_id: object, token: int, at: datetime) -> float | None:
    """None where the attempt itself was still settled."""
    found = stack.sql(
        "SELECT min(started_at) FROM processing_attempts WHERE row_id = %s AND token > %s", [row_id, token]
    )
    return _seconds(at, found[0][0])


def _seconds(start: datetime, end: datetime | None) -> float | None:
    return None if end is None else round((end - start).total_seconds(), 2)


def _rates(run: Run) -> tuple[float | None, float | None]:
    """Stages completed a second from the first to the fault, and after the fault until few are left."""
    ends = [row[0] for row in run.stack.sql(ENDS)]
    if not ends or run.began is None or run.ended is None:
        return None, None
    last = ends[int((len(ends) - 1) * TAIL)]
    again = next((end for end in ends if end > run.ended), last)
    return _rate(ends, ends[0], run.began), _rate(ends, again, last)


def _rate(ends: Sequence[datetime], start: datetime, end: datetime) -> float | None:
    seconds = (end - start).total_seconds()
    counted = sum(start < one <= end for one in ends)
    return round(counted / seconds, 2) if seconds >= SHORTEST_S else None


def append(path: Path, result: Result) -> None:
    """Add a line to the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(result)) + "\n")


def read(path: Path) -> list[Result]:
    """Every line of the file."""
    return [Result(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines()]


def table(results: Iterable[Result]) -> str:
    """The results by case, in Markdown."""
    by_case: dict[str, list[Result]] = {}
    for result in results:
        by_case.setdefault(result.case, []).append(result)
    lines = [_line(HEADS), _line(["---"] * len(HEADS))]
    lines += [_line(_row(runs)) for runs in by_case.values()]
    return "\n".join(lines)


def _line(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _row(every: Sequence[Result]) -> list[str]:
    runs = [run for run in every if not run.not_run]
    head = f"{every[0].part}. {every[0].title}"
    if not runs:
        return [head, f"not run: {every[0].not_run}", *[""] * (len(HEADS) - 2)]
    ratios = [run.after / run.before for run in runs if run.after and run.before]
    return [
        head,
        _runs(runs),
        str(sum(run.submitted for run in runs)),
        *(str(sum(getattr(run, name) for run in runs)) for name in _SUMS),
        _spread([run.recovery_s for run in runs if run.recovery_s is not None], "{:.1f}"),
        _spread(ratios, "{:.2f}"),
        _spread([run.seconds for run in runs], "{:.0f}"),
    ]


def _runs(runs: Sequence[Result]) -> str:
    wrong = sum(not run.ok for run in runs)
    return f"{len(runs)}, {wrong} wrong" if wrong else str(len(runs))


_SUMS = ("completed", "failed_as_expected", "lost", "duplicates", "repeated")


def _spread(values: Sequence[float], form: str) -> str:
    """Median, smallest and largest."""
    if not values:
        return "-"
    middle = form.format(statistics.median(values))
    if len(values) == 1:
        return middle
    return f"{middle} ({form.format(min(values))} to {form.format(max(values))})"
