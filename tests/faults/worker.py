"""The product's worker, whose stages count their executions and obey the key's name. Run as a module.

The stages are plug-ins of the worker; this puts others in their place before it starts, and changes nothing
else. The count goes to a file outside of all servers, so that no fence hides what was done twice.
"""

from __future__ import annotations

import os
import re
import signal
import time
from collections.abc import Callable
from dataclasses import replace

from cli.main import run as dailies
from pipeline.stages import STAGES
from pipeline.stages.base import Asset, Context, Stage, StageOutput
from pipeline.workflows import StageName
from tasks.runtime import get_runtime

COUNTER = "FAULTS_COUNTER"
SLOW = re.compile(r"/slow-(?P<seconds>\d+(\.\d+)?)-")


def main() -> None:
    """Put the counting stages in place, then be the command that the arguments name."""
    counter = os.environ[COUNTER]
    for name, stage in STAGES.items():
        STAGES[name] = replace(stage, run=_counted(stage, counter), decodes=False)
    dailies()


def _counted(stage: Stage, counter: str) -> Callable[[Asset, Context], StageOutput]:
    def run(asset: Asset, ctx: Context) -> StageOutput:
        _count(counter, stage.name, asset)
        _obey(stage.name, asset.key)
        # A decoder has the product's own stages.
        return get_runtime().decoder.run(stage, asset, ctx) if stage.decodes else stage.run(asset, ctx)

    return run


def _count(counter: str, stage: str, asset: Asset) -> None:
    line = f"{time.time():.3f}\t{os.getpid()}\t{stage}\t{asset.media_item_id}\t{asset.key}\n"
    file = os.open(counter, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, line.encode())  # one write to a file that is appended to: lines never mix
    finally:
        os.close(file)


def _obey(stage: StageName, key: str) -> None:
    slow = SLOW.search(key)
    if slow and stage is StageName.THUMBNAILS:
        time.sleep(float(slow["seconds"]))
    elif "/poison-" in key and stage is StageName.METADATA:
        os.kill(os.getpid(), signal.SIGKILL)
    elif "/hang-" in key and stage is StageName.METADATA:
        # Deaf to the soft limit, as C code in an endless loop is: the hard limit has to end it.
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
        while True:
            time.sleep(3600)


if __name__ == "__main__":
    main()
