"""A million hashes: what finding the near ones and adding one cost, and what is missed."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from uuid import UUID

import numpy as np
from PIL import Image
from sqlalchemy import Connection, Engine, func, select, text

from bench.near_photographs import SOURCES, Family, Hashes, as_array, distances, tiles
from db import similar
from db.models import PerceptualHash
from db.session import Sessions, session_factory
from pipeline.media import alike
from pipeline.media.pdq import WORTH_COMPARING, pdq

LIMIT = 50  #: as the API answers unless told
BURST = 1_000  #: pictures of the longest series
#: Of the hashes: photographs laid over each other, and series of one; the rest are bits drawn at random.
BLENDS, SERIES = 0.4, 0.3
ITEMS = """
INSERT INTO media_items (id, bucket, key, kind, mime_type, width, height, size_bytes)
SELECT lpad(to_hex(n), 32, '0')::uuid, 'storage', 'uploads/DSC_' || n || '.jpg', 'image', 'image/jpeg', 4000,
       3000, 3000000 FROM generate_series({first}, {first} + {count} - 1) n
"""
HASHES = "COPY perceptual_hashes (media_item_id, hash, quality) FROM STDIN"


@dataclass(frozen=True)
class Cost:
    """What was measured. Milliseconds; each one call of the product's function, a transaction of its own."""

    count: int
    index_mb: float
    finding: dict[int, list[float]]  #: by threshold
    found: dict[int, tuple[int, int]]  #: of so many near ones, so many
    reading_all: list[float]  #: every hash compared, the peer
    adding: list[float]
    nothing: list[float]  #: a transaction that adds none
    grouping_s: float  #: all groups, processor time
    groups: int


def hashes(count: int, families: list[Family], processes: int = 2) -> Hashes:
    """``count`` hashes, the same each time, in no order: no two of a series lie side by side."""
    rng = np.random.default_rng(1)
    known = as_array(
        [bits for one in families if one.quality >= WORTH_COMPARING for bits in one.bits.values()]
    )
    blends = round(count * BLENDS)
    with ProcessPoolExecutor(processes) as pool:
        parts = [as_array(part) for part in pool.map(partial(_blends, blends // 40), range(40))]
    made = [known, *parts]
    base = np.concatenate(made)
    left = round(count * SERIES)
    while left > 0:
        size = min(left, BURST, int(5 * (rng.pareto(1.0) + 1)))
        made.append(_series(base[rng.integers(len(base))], size, rng))
        left -= size
    half = 4 * alike.HASH_BYTES  # of the bits, which are set
    drawn = np.packbits(rng.random((count, 2 * half)).argpartition(half) < half, axis=1)
    whole = np.concatenate([*made, drawn])[:count]
    rng.shuffle(whole)
    return whole


def _blends(count: int, seed: int) -> list[bytes]:
    """Two tiles laid over each other, small: as different as photographs of as many places are."""
    dice, rng = random.Random(seed), np.random.default_rng(seed)
    small = [
        np.asarray(tile.convert("L").resize((64, 64), Image.Resampling.BOX), dtype=np.float32)
        for name in dice.sample(SOURCES, 4)
        for tile in tiles(name)
    ]
    made: list[bytes] = []
    while len(made) < count:
        one, other = (small[place][:: dice.choice((1, -1)), :: dice.choice((1, -1))] for place in
                      rng.integers(len(small), size=2))  # fmt: skip
        share = dice.uniform(0.3, 0.7)
        found = pdq(Image.fromarray((share * one + (1 - share) * other).astype(np.uint8)))
        if found.quality >= WORTH_COMPARING:
            made.append(found.bits)
    return made


def _series(base: Hashes, size: int, rng: np.random.Generator) -> Hashes:
    """What a camera makes of one scene within minutes: up to 40 bits differ."""
    share = rng.uniform(0, 40, size)[:, None] / 256
    changed: Hashes = base ^ np.packbits(rng.random((size, 256)) < share, axis=1)
    return changed


def measure(engine: Engine, made: Hashes, queries: int) -> Cost:
    """Fill the database with ``made``, then ask and add ``queries`` times."""
    stored = as_array([alike.coarse_first(bits.tobytes()) for bits in made])
    with engine.connect() as connection:
        _fill(connection, stored)
        size = "SELECT sum(pg_indexes_size(oid) + pg_relation_size(oid)) FROM pg_class WHERE relname = :name"
        megabytes = float(connection.scalar(text(size), {"name": PerceptualHash.__tablename__})) / 2**20
    sessions = session_factory(engine)
    asked = np.random.default_rng(2).integers(len(stored), size=queries + queries // 5)
    for place in asked[queries:]:  # caches are filled, statements prepared
        _ask(sessions, int(place), alike.THRESHOLD)
    finding: dict[int, list[float]] = {}
    found: dict[int, tuple[int, int]] = {}
    for threshold in (alike.THRESHOLD, alike.WIDEST):
        finding[threshold], told = zip(
            *(_ask(sessions, int(place), threshold) for place in asked[:queries]), strict=True
        )  # type: ignore[assignment]
        there = [_there(stored, int(place), threshold) for place in asked[:queries]]
        found[threshold] = (sum(there), sum(map(len, told)))
    started = time.process_time()
    groups = len(alike.groups(stored))
    grouping = time.process_time() - started
    return Cost(
        len(stored), megabytes, finding, found, [_read_all(sessions, stored[place]) for place in asked[:20]],
        *_add(sessions, queries), grouping, groups,
    )  # fmt: skip


def _fill(connection: Connection, stored: Hashes) -> None:
    """As the product leaves it, the indexes built afterwards."""
    indexes = connection.execute(
        text("SELECT indexname, indexdef FROM pg_indexes WHERE indexname LIKE 'ix_perceptual_hashes_word_%'")
    ).all()
    with _unlimited(connection):
        for name, _ in indexes:
            connection.execute(text(f"DROP INDEX {name}"))
        connection.execute(text(ITEMS.format(first=0, count=len(stored))))
        driver = connection.connection.driver_connection
        if driver is None:
            msg = "the connection is closed"
            raise RuntimeError(msg)
        with driver.cursor().copy(HASHES) as rows:
            for place, bits in enumerate(stored):
                rows.write_row((UUID(int=place), f"{int.from_bytes(bits.tobytes()):0256b}", 100))
        for _, definition in indexes:
            connection.execute(text(definition))
    connection.commit()
    plain = connection.execution_options(isolation_level="AUTOCOMMIT")
    plain.execute(text("SET statement_timeout = 0"))
    plain.execute(text("VACUUM (ANALYZE) media_items, perceptual_hashes"))
    plain.execute(text("CHECKPOINT"))


@contextmanager
def _unlimited(connection: Connection) -> Iterator[None]:
    connection.execute(text("SET statement_timeout = 0"))
    connection.execute(text("SET LOCAL maintenance_work_mem = '256MB'"))
    connection.execute(text("SET LOCAL session_replication_role = replica"))  # no foreign key is asked
    yield


def _ask(sessions: Sessions, place: int, threshold: int) -> tuple[float, list[int]]:
    started = time.perf_counter()
    with sessions() as session:
        told = similar.similar(session, UUID(int=place), threshold=threshold, limit=LIMIT)
    return (time.perf_counter() - started) * 1000, [distance for _, distance in told]


def _there(stored: Hashes, place: int, threshold: int) -> int:
    """How many a search that misses nothing would tell."""
    return min(LIMIT, int((distances(stored, stored[place]) <= threshold).sum()) - 1)


def _read_all(sessions: Sessions, bits: Hashes) -> float:
    distance = func.bit_count(PerceptualHash.hash.op("#")(bits.tobytes()))
    started = time.perf_counter()
    with sessions() as session:
        session.execute(select(PerceptualHash.media_item_id).where(distance <= alike.THRESHOLD)).all()
    return (time.perf_counter() - started) * 1000


def _add(sessions: Sessions, times: int) -> tuple[list[float], list[float]]:
    """Durations of transactions that change an item and add its hash, and of such that only change it."""
    adding, nothing = [], []
    first = 1 << 40
    with sessions.begin() as session:
        session.execute(text(ITEMS.format(first=first, count=times)))
    for number in range(times):
        item, bits = UUID(int=first + number), random.Random(number).randbytes(32)
        for spent, change in ((nothing, False), (adding, True)):
            started = time.perf_counter()
            with sessions.begin() as session:
                session.execute(text("UPDATE media_items SET width = 1 WHERE id = :id"), {"id": item})
                if change:
                    similar.put(session, item, bits.hex(), 100)
            spent.append((time.perf_counter() - started) * 1000)
    return adding, nothing
