"""What one run of a stage may cost, by stage, kind and size. What needs more is refused, not waited for."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.media.kinds import Kind
from pipeline.workflows import StageName

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Budget:
    """The limits of one run."""

    memory: int  #: bytes above what the process holds when it starts
    cpu_s: int  #: seconds of CPU time
    wall_s: int  #: seconds; a process that waits costs no CPU time
    output: int = 256 * MB  #: bytes of any one file that it writes


#: Memory, seconds of CPU time, and further seconds for each 100 MB of the file. The pictures that the pixel
#: limit lets through need up to some 1,000 MB (an RGBA PNG of 100 megapixels); no container is loaded whole.
_OF_KIND: dict[str | None, tuple[int, int, int]] = {
    None: (300 * MB, 10, 5),  # what it is is not known yet: a look at its head
    Kind.IMAGE: (2_000 * MB, 60, 30),
    Kind.VECTOR: (600 * MB, 20, 10),
    Kind.VIDEO: (1_200 * MB, 40, 2),
    Kind.AUDIO: (400 * MB, 30, 10),
    Kind.DOCUMENT: (600 * MB, 30, 30),
    Kind.SIDECAR: (200 * MB, 10, 10),
}
_WALL = 2.0  #: of the CPU time: other processes want the cores too
_WALL_LEAST_S = 20


def budget_for(stage: StageName, kind: str | None, size: int | None) -> Budget:
    """What ``stage`` may spend on a file of ``kind`` and ``size`` bytes."""
    memory, cpu_s, per_100_mb = _OF_KIND[None if stage is StageName.INGEST else kind]
    cpu_s += per_100_mb * ((size or 0) // (100 * MB))
    return Budget(memory, cpu_s, _WALL_LEAST_S + round(cpu_s * _WALL))
