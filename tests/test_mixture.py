"""Mixtures: shares are exact, a set is used up before it repeats, and the promise of streams holds."""

from __future__ import annotations

import itertools
import json
from collections import Counter
from fractions import Fraction
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scanshards
from scanshards.clip import ReadOptions
from scanshards.mixture import MixtureOrder, draws_of_sets, whole_weights
from scanshards.shardfile import SampleRef, Shard
from scanshards.stream import ClipStream, global_order
from tests.make_shards import make_release

SIZES = st.lists(st.integers(1, 30), min_size=1, max_size=4)


def refs(sizes: list[int]) -> list[list[SampleRef]]:
    return [
        [SampleRef(Shard(f"{name}.tar", None), f"set{name}-scene{i:04d}-00", i, 1, "") for i in range(size)]
        for name, size in enumerate(sizes)
    ]


def drawn(sets, weights, length: int, epochs: int, seed: int = 0) -> list[SampleRef]:
    orders = [MixtureOrder(sets, weights, (seed, epoch, length)) for epoch in range(epochs)]
    return [order[position] for order in orders for position in range(length)]


@given(weights=st.lists(st.integers(1, 50), min_size=1, max_size=5), first=st.integers(0, 10**12))
@settings(max_examples=200, deadline=None)
def test_shares_are_exact_but_for_half_a_draw_a_set(weights, first):
    total = sum(weights)
    previous = draws_of_sets(first, weights)
    for draws in range(first, first + 40):
        counts = draws_of_sets(draws, weights)
        assert sum(counts) == draws
        steps = [now - before for now, before in zip(counts, previous, strict=True)]
        assert min(steps) >= 0
        for count, weight in zip(counts, weights, strict=True):
            assert abs(count - Fraction(draws * weight, total)) <= Fraction(len(weights), 2)
        previous = counts
    assert draws_of_sets(first * total, weights) == [first * weight for weight in weights]


@given(sizes=SIZES, length=st.integers(1, 70), epochs=st.integers(1, 4), data=st.data())
@settings(max_examples=100, deadline=None)
def test_every_set_is_gone_through_in_its_own_order_also_across_epochs(sizes, length, epochs, data):
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    sets = refs(sizes)
    sequence = drawn(sets, weights, length, epochs, seed=5)
    for number, samples in enumerate(sets):
        mine = [sample for sample in sequence if sample.shard.url == f"{number}.tar"]
        turns = (global_order(samples, 5, turn) for turn in itertools.count())
        assert mine == list(itertools.islice(itertools.chain.from_iterable(turns), len(mine)))
        assert len(mine) == draws_of_sets(length * epochs, weights)[number]


@given(
    sizes=SIZES,
    worlds=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    epoch=st.integers(0, 5),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_any_stops_and_ranks_give_the_one_order(sizes, worlds, epoch, data):
    weights = data.draw(st.lists(st.integers(1, 9), min_size=len(sizes), max_size=len(sizes)))
    length = data.draw(st.integers(max(worlds), 80))
    sets = refs(sizes)
    whole = [MixtureOrder(sets, weights, (2, epoch, length))[p] for p in range(length)]
    state = {"seed": 2, "epoch": epoch, "position": 0, "ahead": [], "num_samples": length, "fingerprint": "f"}
    seen: list[SampleRef] = []
    for number, world_size in enumerate(worlds):
        last = number == len(worlds) - 1
        steps = length if last else data.draw(st.integers(0, -(-length // world_size)))
        streams = [
            ClipStream(MixtureOrder(sets, weights, (2, epoch, length)), state, (r, world_size), ReadOptions())
            for r in range(world_size)
        ]
        turns = itertools.zip_longest(*(stream.samples()[:steps] for stream in streams))
        seen += [sample for turn in turns for sample in turn if sample is not None]
        state = json.loads(json.dumps(streams[0].state(steps)))
        assert seen == whole[: state["position"]]
        assert (len(json.dumps(state)) < 200) and not state["ahead"]
    assert seen == whole


def test_draws_do_not_depend_on_what_was_drawn_before():
    order = MixtureOrder(refs([7, 20, 3]), [3, 2, 1], (1, 4, 100))
    forwards = [order[position] for position in range(100)]
    assert [order[position] for position in reversed(range(100))] == forwards[::-1]
    with pytest.raises(IndexError, match="position 100 of an epoch of 100 draws"):
        order[100]


def test_weights_as_the_sizes_give_every_sample_once_an_epoch():
    sets = refs([13, 40, 7])
    for epoch in range(3):
        order = MixtureOrder(sets, [13, 40, 7], (0, epoch, 60))
        assert sorted(order[p].key for p in range(60)) == sorted(s.key for each in sets for s in each)


@pytest.mark.parametrize("world_size", [2, 4, 8])
def test_no_rank_gets_one_set_alone(world_size):
    """Weights of 3:1 laid out in turn would give every fourth rank nothing but the second set."""
    sequence = drawn(refs([500, 500]), [3, 1], 1600, 1)
    for rank in range(world_size):
        counts = Counter(sample.shard.url for sample in sequence[rank::world_size])
        assert 0.15 < counts["1.tar"] / counts.total() < 0.35


PINNED = "11 00 12 10 11 10 01 12 03 02 03 02"


def test_the_order_is_pinned():
    """A resume state is of use only as long as this never changes."""
    order = MixtureOrder(refs([4, 3]), [1, 1], (0, 0, 12))
    assert " ".join(f"{order[p].shard.url[0]}{order[p].offset}" for p in range(12)) == PINNED


def test_weights_become_the_smallest_whole_numbers():
    assert whole_weights({"a": 0.7, "b": 0.3}) == [7, 3]
    assert whole_weights({"a": 30, "b": 10.0, "c": 5}) == [6, 2, 1]
    for wrong in (0, -1, float("nan"), float("inf"), "3"):
        with pytest.raises(ValueError, match="weight of 'a': got .*, expected a number above 0"):
            whole_weights({"a": wrong})
    with pytest.raises(ValueError, match="no sets given"):
        whole_weights({})


@pytest.fixture(scope="module")
def sets(tmp_path_factory) -> dict[str, tuple[Path, float]]:
    release = make_release(tmp_path_factory.mktemp("release"), num_train=5, num_val=2)
    return {"train": (release / "scannet-*.tar", 3), "val": (release / "val/scannet-*.tar", 1)}


def test_a_mixture_goes_on_from_a_state_with_other_ranks(sets):
    whole = [clip.key for clip in scanshards.mix(sets, seed=3, length=12)]
    assert Counter(key < "scene5" for key in whole) == {True: 9, False: 3}
    assert len(set(whole[:7])) >= 6 and len(whole) == 12
    first = [iter(scanshards.mix(sets, seed=3, length=12, rank=r, world_size=2)) for r in range(2)]
    before = [next(iterator).key for _ in range(2) for iterator in first]
    state = scanshards.mix(sets, seed=3, length=12, world_size=2).state(2)
    reordered = dict(reversed(sets.items()))
    rest = [scanshards.mix(reordered, length=12, state=state, rank=r, world_size=3) for r in range(3)]
    turns = itertools.zip_longest(*([clip.key for clip in stream] for stream in rest))
    assert before + [key for turn in turns for key in turn if key is not None] == whole


def test_the_default_epoch_is_as_long_as_all_sets(sets):
    assert len(scanshards.mix(sets)) == 7
    with pytest.raises(ValueError, match="got 7 samples for 8 ranks"):
        scanshards.mix(sets, world_size=8)
    with pytest.raises(ValueError, match="length: got 0, expected at least one draw"):
        scanshards.mix(sets, length=0)


def test_a_state_of_other_weights_or_another_length_is_refused(sets):
    state = scanshards.mix(sets, length=12).state(1)
    changed = sets | {"val": (sets["val"][0], 2)}
    for other, length in ((changed, 12), (sets, 13)):
        with pytest.raises(ValueError, match="state is of 12 other samples"):
            scanshards.mix(other, length=length, state=state)
