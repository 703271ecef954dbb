"""Our side, by the peer's protocol: one order a line on stdin, one answer a line on stdout."""

from __future__ import annotations

import json
import resource
import sys
import time
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory

from pipeline.media import lanczos, pictures
from pipeline.media.reader import Limits
from pipeline.media.sniff import sniff
from pipeline.media.variants import make_variants


def main() -> None:
    """Answer every order: ``{"side": "simd" or "pillow", "path": ..., "keep": folder or null}``."""
    fast = lanczos.cykooz_resizer
    for line in sys.stdin:
        order = json.loads(line)
        lanczos.cykooz_resizer = fast if order["side"] == "simd" else None
        path = Path(order["path"])
        with TemporaryDirectory() as scratch:
            folder = Path(order["keep"] or scratch)
            wall, cpu = time.perf_counter(), time.process_time()
            primary, _ = pictures.primary_of(path, sniff(path).mime_type, Limits())
            made = make_variants(primary, folder, sha256=sha256(b"").hexdigest(), quality=85)
            answer = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps(answer | {"bytes": sum(one.size for one in made), "peak": peak}), flush=True)


if __name__ == "__main__":
    main()
