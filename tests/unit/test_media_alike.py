"""Grouping by hashes, against the comparison of each with each."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.media import alike
from pipeline.media.alike import THRESHOLD, WORDS, coarse_first, groups, near_words
from tests.hashes import at, dice, flipped, some_hash


def array(hashes: list[bytes]) -> np.ndarray[tuple[int, int], np.dtype[np.uint8]]:
    return np.frombuffer(b"".join(hashes), np.uint8).reshape(-1, 32)


def found(hashes: list[bytes], threshold: int = THRESHOLD) -> set[frozenset[int]]:
    return {frozenset(group.tolist()) for group in groups(array(hashes), threshold)}


def by_comparing_all(hashes: list[bytes], threshold: int = THRESHOLD) -> set[frozenset[int]]:
    group_of = {place: {place} for place in range(len(hashes))}
    whole = [int.from_bytes(bits) for bits in hashes]
    for one in range(len(hashes)):
        for other in range(one):
            near = (whole[one] ^ whole[other]).bit_count() <= threshold
            if near and group_of[one] is not group_of[other]:
                group_of[one] |= group_of[other]
                for place in group_of[other]:
                    group_of[place] = group_of[one]
    return {frozenset(group) for group in group_of.values() if len(group) > 1}


def test_words_are_the_whole_hash_once() -> None:
    assert [first for first, _ in WORDS] == [sum(width for _, width in WORDS[:n]) for n in range(14)]
    assert WORDS[-1][0] + WORDS[-1][1] == 256


def test_bits_are_put_in_the_order_of_their_frequencies() -> None:
    placed = [int.from_bytes(coarse_first((1 << bit).to_bytes(32))) for bit in range(256)]
    assert sorted(placed) == [1 << place for place in range(256)]
    frequency = {256 - one.bit_length(): bit // 16 + bit % 16 for bit, one in enumerate(placed)}
    assert [frequency[place] for place in range(256)] == sorted(frequency.values())


@given(st.sets(st.integers(0, 255), max_size=27), st.integers())
def test_hashes_within_27_bits_share_a_word_that_is_looked_for(places: set[int], seed: int) -> None:
    bits = some_hash(seed)
    other = [words[0] for words in near_words(flipped(bits, places))]
    assert any(word in looked_for for word, looked_for in zip(other, near_words(bits), strict=True))


def test_a_word_of_each_place_finds_a_hash_of_which_all_else_differs() -> None:
    bits = some_hash(1)
    for number, (first, width) in enumerate(WORDS):
        others = set(range(256)) - set(range(first, first + width)) | {first + width // 2}
        own = near_words(flipped(bits, others))[number][0]
        assert own in near_words(bits)[number]
        assert found([bits, flipped(bits, others)], 256) == {frozenset({0, 1})}


@settings(max_examples=30, deadline=None)
@given(st.integers(), st.sampled_from([5, 20, 27]))
def test_groups_are_those_of_comparing_all(seed: int, threshold: int) -> None:
    drawn = dice(seed)
    hashes = [some_hash(drawn.random()) for _ in range(20)]
    for _ in range(60):
        hashes.append(at(drawn.choice(hashes), drawn.randrange(40), drawn.random()))
    assert found(hashes, threshold) == by_comparing_all(hashes, threshold)


def test_chain_of_near_ones_is_one_group_and_the_largest_group_comes_first() -> None:
    chain = [some_hash(1)]
    for step in range(5):
        chain.append(flipped(chain[-1], range(step * 20, step * 20 + 20)))
    pair = [some_hash(2), at(some_hash(2), 3)]
    told = groups(array([*pair, *chain, some_hash(3)]))
    assert [group.tolist() for group in told] == [[2, 3, 4, 5, 6, 7], [0, 1]]


def test_burst_larger_than_a_block_of_pairs_is_one_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(alike, "PAIRS", 1000)
    burst = [at(some_hash(1), n % 9, n) for n in range(300)]
    assert found(burst + [some_hash(n) for n in range(2, 200)]) == {frozenset(range(300))}


@pytest.mark.parametrize("count", [0, 1])
def test_nothing_to_compare_is_no_group(count: int) -> None:
    assert groups(array([some_hash(1)] * count)) == []
