"""Finding pictures that look alike among many, by words of their hashes.

To compare a million hashes with each other is 500 billion comparisons. So a hash is cut into 14 words, and
two are compared only if they agree in one word, or differ in one bit of it. Two that differ in 27 bits or
less always do: that is not two bits for each word. Of those that differ in 31 bits, scattered at random, one
in 17,000 is missed.

Cropping moves what is fine in a picture more than what is coarse, so the bits are put in the order of their
frequencies before: a crop that differs in 60 bits agrees in the first words still.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

#: Bits by which a copy may differ, as Meta recommends for PDQ; and the most that can be asked for, which
#: finds crops too.
THRESHOLD, WIDEST = 31, 64
HASH_BYTES = 32
#: Each word's first bit, counted from the most significant one, and its width.
WORDS = tuple((19 * n, 19) for n in range(4)) + tuple((76 + 18 * n, 18) for n in range(10))

#: Pairs that are compared at once: 64 MB of hashes.
PAIRS = 1_000_000
#: Bits of a PDQ hash (16 times the row plus the column), by their frequency in both directions together.
_ORDER = np.array(sorted(range(256), key=lambda bit: (bit // 16 + bit % 16, bit)))
_Bytes = NDArray[np.uint8]
_Places = NDArray[np.int64]


def coarse_first(bits: bytes) -> bytes:
    """The bits of a PDQ hash, those of the lowest frequencies first. Only such can be compared here."""
    of_frequency = np.unpackbits(np.frombuffer(bits, np.uint8))[::-1]
    return np.packbits(of_frequency[_ORDER]).tobytes()


def near_words(bits: bytes) -> list[list[int]]:
    """For each word, the values that a similar hash may have there: its own, and those one bit away."""
    whole = int.from_bytes(bits)
    own = [whole >> 8 * HASH_BYTES - first - width & (1 << width) - 1 for first, width in WORDS]
    return [
        [word, *(word ^ 1 << bit for bit in range(width))]
        for word, (_, width) in zip(own, WORDS, strict=True)
    ]


def groups(hashes: _Bytes, threshold: int = THRESHOLD) -> list[_Places]:
    """Places of hashes that belong together, in groups of two or more, the largest first.

    ``hashes`` are n x 32 bytes. Who is within ``threshold`` bits of one of a group belongs to it. Needs some
    150 bytes a hash and 100 MB.
    """
    found = _Groups(hashes, threshold)
    for first, width in WORDS:
        found.join_by(_word(hashes, first, width), width)
    order = np.argsort(found.leader, kind="stable")
    _, starts = np.unique(found.leader[order], return_index=True)
    together = [members for members in np.split(order, starts[1:]) if len(members) > 1]
    return sorted(together, key=len, reverse=True)


def _word(hashes: _Bytes, first: int, width: int) -> _Places:
    start = min(first // 8, HASH_BYTES - 4)
    four = np.ascontiguousarray(hashes[:, start : start + 4]).view(">u4")[:, 0].astype(np.int64)
    return four >> (32 - (first - 8 * start) - width) & (1 << width) - 1


class _Groups:
    """A forest of one level: ``leader`` names the smallest place of each hash's group so far."""

    def __init__(self, hashes: _Bytes, threshold: int) -> None:
        self._parts = np.ascontiguousarray(hashes).view(np.uint64)
        self._threshold = threshold
        self.leader = np.arange(len(hashes))

    def join_by(self, words: _Places, width: int) -> None:
        """Join those that are near each other and whose ``words`` differ in one bit at most."""
        order = np.argsort(words, kind="stable")
        words = words[order]
        starts = np.searchsorted(words, np.arange((1 << width) + 1))
        for flip in (0, *(1 << bit for bit in range(width))):
            begin, end = starts[words ^ flip], starts[(words ^ flip) + 1]
            if flip == 0:  # each pair once: with those behind it
                begin = np.arange(1, len(words) + 1)
            asking = (words & flip == 0) & (begin < end) & ~self._joined(order, words ^ flip, starts)
            for one, another in _pairs(np.flatnonzero(asking), begin, end):
                self._join(order[one], order[another])

    def _joined(self, order: _Places, words: _Places, starts: _Places) -> NDArray[np.bool_]:
        """Whether each hash (in ``order``) is in one group with all that have the word it asks for.

        Without this a burst of n pictures would cost n * n comparisons for every word and bit.
        """
        leaders = self.leader[order]
        used = starts[:-1] < starts[1:]
        lowest, highest = np.full((2, len(used)), -1)
        lowest[used] = np.minimum.reduceat(leaders, starts[:-1][used])
        highest[used] = np.maximum.reduceat(leaders, starts[:-1][used])
        joined: NDArray[np.bool_] = (lowest[words] == leaders) & (highest[words] == leaders)
        return joined

    def _join(self, one: _Places, another: _Places) -> None:
        apart = self.leader[one] != self.leader[another]
        one, another = one[apart], another[apart]
        bits = np.bitwise_count(self._parts[one] ^ self._parts[another]).sum(axis=1)
        one, another = one[bits <= self._threshold], another[bits <= self._threshold]
        while len(one):
            left, right = self.leader[one], self.leader[another]
            np.minimum.at(self.leader, np.maximum(left, right), np.minimum(left, right))
            while not np.array_equal(flat := self.leader[self.leader], self.leader):
                self.leader = flat
            # A leader that was to follow two at once has followed the smaller one.
            apart = self.leader[one] != self.leader[another]
            one, another = one[apart], another[apart]


def _pairs(asking: _Places, begin: _Places, end: _Places) -> Iterator[tuple[_Places, _Places]]:
    """Each place in ``asking`` with all of its range from ``begin`` to ``end``, some PAIRS at a time."""
    counts = (end - begin)[asking]
    total = np.cumsum(counts)
    for block in np.split(np.arange(len(asking)), np.flatnonzero(np.diff(total // PAIRS)) + 1):
        if len(block) == 0:
            continue
        count = counts[block]
        within = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count)
        yield np.repeat(asking[block], count), np.repeat(begin[asking[block]], count) + within
