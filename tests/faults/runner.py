"""One run of a case: a stack of its own, a load, the fault, the oracle."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from pipeline.workflows import StageName
from tests.faults import oracle, results
from tests.faults.case import Case, NotRun, Run
from tests.faults.load import Load, Upload, mixture
from tests.faults.results import Result
from tests.faults.stack import Stack

WARM_SHARE, WARM_MOST = 0.12, 250  #: so many of the stages are done before the fault begins
STALL_S = 90.0  #: nothing has ended for so long: it never will
POLL_S = 0.5
#: What has not ended, each row as text.
UNFINISHED = (
    "SELECT 'now ' || clock_timestamp()",
    "SELECT 'job ' || j::text FROM processing_jobs j WHERE completed_at IS NULL",
    "SELECT 'row ' || r::text FROM processing_queue r WHERE completed_at IS NULL AND status <> 'pending'",
    "SELECT 'try ' || t::text FROM processing_attempts t JOIN processing_queue r ON r.id = t.row_id"  # noqa: ISC004
    " WHERE r.completed_at IS NULL",
    "SELECT 'worker ' || w::text FROM workers w",
)


def once(case: Case, *, assets: int, seed: int, say: Callable[[str], object] = print) -> Result:
    """Run ``case`` on a new stack and ask the oracle. Its folder stays where something is wrong."""
    folder = Path(tempfile.mkdtemp(prefix=f"dailies-faults-{case.name}-"))
    began = time.monotonic()
    try:
        result = _run(case, folder, assets=assets, seed=seed, began=began)
    except NotRun as reason:
        shutil.rmtree(folder, ignore_errors=True)
        return _blank(case, not_run=str(reason), ok=True)
    except KeyboardInterrupt:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    except Exception as error:  # noqa: BLE001 - a case that breaks is a result; the others still run
        result = _blank(case, wrong=[f"{type(error).__name__}: {error}"], seconds=time.monotonic() - began)
    if result.ok:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        say(f"  kept: {folder}")
        (folder / "wrong.txt").write_text("\n".join(result.wrong) + "\n", encoding="utf-8")
    return result


def _run(case: Case, folder: Path, *, assets: int, seed: int, began: float) -> Result:
    dice = random.Random(seed)  # noqa: S311 - repeatable, guards nothing
    uploads = mixture(assets, dice, **case.load)
    if case.more is not None:
        uploads += case.more(dice)
        dice.shuffle(uploads)
    with Stack(folder, arrange=case.arrange, settings=case.settings, prepare=case.prepare) as stack:
        busy = Load(stack, uploads, len(uploads) / case.seconds, asks=round(assets * case.asks))
        run = Run(stack, busy, seed=seed, seconds=case.seconds)
        with busy:
            enough = min(WARM_SHARE * assets * len(StageName), WARM_MOST)
            stack.until(lambda: _done(stack) >= enough, seconds=120)
            case.body(run)
            _settle(stack, uploads, busy)
        for call in run.at_end:
            call()
        found = oracle.examine(stack, uploads, busy.asked, foreign=case.foreign)
        if not case.repeats and found.repeated:
            found.duplicates.append(f"{found.repeated} executions were repeated, where none should be")
        (folder / "supervisor.log").write_text("\n".join(stack.said), encoding="utf-8")
        if found.wrong:
            _keep_evidence(stack)
        seconds = time.monotonic() - began
        return results.of(run, found, case=case, seconds=seconds)


def _done(stack: Stack) -> int:
    count: int = stack.sql("SELECT count(*) FROM processing_queue WHERE status = 'completed'")[0][0]
    return count


def _settle(stack: Stack, uploads: list[Upload], busy: Load) -> None:
    """Wait until everything has ended, or nothing has moved for long: the oracle then says what was lost."""
    last, moved = -1, time.monotonic()
    while (left := oracle.unfinished(stack, uploads)) or not busy.over:
        if left != last:
            last, moved = left, time.monotonic()
        if time.monotonic() - moved > STALL_S:
            return
        stack.check()
        time.sleep(POLL_S)


def _keep_evidence(stack: Stack) -> None:
    """Write down what has not ended, and how many messages wait, for whoever looks for the reason."""
    lines = [row[0] for query in UNFINISHED for row in stack.sql(query)]
    for url in stack.sqs.list_queues().get("QueueUrls", []):
        found = stack.sqs.get_queue_attributes(QueueUrl=url, AttributeNames=["All"])["Attributes"]
        counts = {name: count for name, count in found.items() if name.startswith("ApproximateNumber")}
        lines.append(f"{url} {counts}")
    (stack.folder / "unfinished.txt").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _blank(
    case: Case, *, not_run: str = "", ok: bool = False, wrong: list[str] | None = None, seconds: float = 0
) -> Result:
    return Result(
        case=case.name, part=case.part, title=case.title, ok=ok, submitted=0, completed=0,
        failed_as_expected=0, lost=0, duplicates=0, executions=0, repeated=0, orphans=0, recovery_s=None,
        before=None, after=None, seconds=round(seconds, 1), wrong=wrong or [], notes=[], not_run=not_run,
    )  # fmt: skip
