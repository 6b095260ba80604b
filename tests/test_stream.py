"""Streams: one order for all, no loss and no repetition, whoever stops and goes on where."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import scanshards
from scanshards import readahead
from scanshards.clip import ReadOptions
from scanshards.shardfile import SampleRef, Shard
from scanshards.stream import ClipStream, global_order
from tests.make_shards import make_release


@pytest.fixture(scope="module")
def release(tmp_path_factory) -> Path:
    return make_release(tmp_path_factory.mktemp("release"), num_train=7, num_val=2, per_shard=3)


def refs(count: int) -> list[SampleRef]:
    shard = Shard("a.tar", None)
    return [SampleRef(shard, f"scene{i:04d}_00-00", i, 1, "") for i in range(count)]


def stream_at(order: list[SampleRef], position: int, rank: int, world_size: int) -> ClipStream:
    start = {
        "seed": 0,
        "epoch": 0,
        "position": position,
        "num_samples": len(order),
        "fingerprint": "f",
        "ahead": [],
    }
    return ClipStream(order, start, (rank, world_size), ReadOptions())


def by_workers(share: list[SampleRef], num_workers: int) -> list[SampleRef]:
    """What a DataLoader gives out: each worker's slice in turn, workers round robin."""
    slices = [share[worker::num_workers] for worker in range(num_workers)]
    turns = itertools.zip_longest(*slices)
    return [sample for turn in turns for sample in turn if sample is not None]


@given(
    count=st.integers(1, 60),
    worlds=st.lists(st.integers(1, 9), min_size=1, max_size=5),
    workers=st.integers(1, 5),
    data=st.data(),
)
@settings(max_examples=200, deadline=None)
def test_any_stops_ranks_and_workers_give_every_sample_once(count, worlds, workers, data):
    order = global_order(refs(count), seed=3, epoch=1)
    seen: list[SampleRef] = []
    position = 0
    for number, world_size in enumerate(worlds):
        streams = [stream_at(order, position, rank, world_size) for rank in range(world_size)]
        shares = [by_workers(stream.samples(), workers) for stream in streams]
        assert shares == [stream.samples() for stream in streams]  # workers keep the rank's order
        last = number == len(worlds) - 1
        steps = count if last else data.draw(st.integers(0, -(-len(order) // world_size)))
        taken = [share[:steps] for share in shares]
        turns = itertools.zip_longest(*taken)
        seen += [sample for turn in turns for sample in turn if sample is not None]
        position = streams[0].state(len(taken[0]))["position"]
        assert seen == order[:position]  # a prefix of the one global order
    assert seen == order


@given(count=st.integers(1, 50), worlds=st.lists(st.integers(1, 7), min_size=1, max_size=5), data=st.data())
@settings(max_examples=150, deadline=None)
def test_ranks_that_stop_at_different_steps_lose_and_repeat_nothing(count, worlds, data):
    order = global_order(refs(count), seed=1, epoch=0)
    state = {"seed": 1, "epoch": 0, "position": 0, "ahead": [], "num_samples": count, "fingerprint": "f"}
    seen: list[SampleRef] = []
    for number, world_size in enumerate(worlds):
        streams = [ClipStream(order, state, (rank, world_size), ReadOptions()) for rank in range(world_size)]
        shares = [stream.samples() for stream in streams]
        assert not {s.key for share in shares for s in share} & {s.key for s in seen}
        last = number == len(worlds) - 1
        taken = [count if last else data.draw(st.integers(0, len(share))) for share in shares]
        seen += [sample for share, steps in zip(shares, taken, strict=True) for sample in share[:steps]]
        states = [stream.state(taken) for stream in streams]
        state = json.loads(json.dumps(states[0]))
        assert all(other == state for other in states)
        taken_before = {order.index(sample) for sample in seen}
        position = min(set(range(count)) - taken_before, default=count)
        assert state["position"] == position
        assert state["ahead"] == sorted(place for place in taken_before if place > position)
    assert sorted(s.key for s in seen) == sorted(s.key for s in order)
    assert (state["position"], state["ahead"]) == (count, [])


@given(
    count=st.integers(1, 40), batch_size=st.integers(1, 5), workers=st.integers(1, 4), world=st.integers(1, 3)
)
@settings(max_examples=60, deadline=None)
def test_workers_that_make_batches_keep_the_rank_s_order(count, batch_size, workers, world):
    order = refs(count)
    for rank in range(world):
        start = {"position": 0, "ahead": [], "num_samples": count}
        stream = ClipStream(order, start, (rank, world), ReadOptions(), batch_size)
        shares = [stream.worker_samples(worker, workers) for worker in range(workers)]
        batches = [[s[i : i + batch_size] for i in range(0, len(s), batch_size)] for s in shares]
        turns = itertools.zip_longest(*batches, fillvalue=[])  # what a DataLoader gives out
        assert [sample for turn in turns for batch in turn for sample in batch] == stream.samples()


def test_a_rank_that_found_its_end_counts_the_step_it_asked_for(release):
    """7 clips on 2 ranks: after 4 steps rank 1 has seen only 3, and all are taken."""
    streams = [scanshards.stream(release / "scannet-*.tar", rank=r, world_size=2) for r in range(2)]
    assert [len(list(stream)) for stream in streams] == [4, 3]
    assert streams[0].state() == streams[1].state()
    assert streams[1].state()["position"] == 7


@pytest.mark.parametrize("taken", [[1], [1, 1, 1], [1, -1]])
def test_a_number_for_each_rank_is_asked_for(taken):
    with pytest.raises(ValueError, match="expected 2 numbers, or one for all"):
        stream_at(refs(9), 0, 0, 2).state(taken)


@given(count=st.integers(1, 40), world_size=st.integers(1, 12), position=st.integers(0, 40))
@settings(max_examples=100, deadline=None)
def test_shares_differ_by_one_at_most_and_have_the_stated_length(count, world_size, position):
    order = refs(count)
    position = min(position, count)
    streams = [stream_at(order, position, rank, world_size) for rank in range(world_size)]
    lengths = [len(stream) for stream in streams]
    assert lengths == [len(stream.samples()) for stream in streams]
    assert sum(lengths) == count - position
    assert max(lengths) - min(lengths) <= 1
    assert lengths == sorted(lengths, reverse=True)


def test_order_is_a_permutation_that_depends_on_seed_and_epoch_only():
    samples = refs(50)
    order = global_order(samples, 0, 0)
    assert sorted(s.key for s in order) == [s.key for s in samples]
    assert global_order(list(reversed(samples)), 0, 0) == order
    others = [global_order(samples, seed, epoch) for seed, epoch in ((0, 1), (1, 0), (1, 1))]
    assert all(other != order for other in others)


PINNED_ORDER = [8, 2, 5, 7, 6, 11, 10, 1, 4, 3, 9, 0]


def test_order_is_pinned():
    """A resume state is of use only as long as this never changes."""
    numbers = [int(sample.key[5:9]) for sample in global_order(refs(12), seed=0, epoch=0)]
    assert numbers == PINNED_ORDER


def test_stream_gives_clips_in_the_global_order(release):
    stream = scanshards.stream(release / "scannet-*.tar", seed=5)
    keys = [clip.key for clip in stream]
    assert keys == [sample.key for sample in stream.samples()]
    assert sorted(keys) == [f"scene{i:04d}_00-00" for i in range(7)]
    assert len(stream) == 7


def test_interrupted_epoch_equals_uninterrupted_with_another_world(release):
    urls = [release / "scannet-*.tar", release / "val/scannet-*.tar"]
    whole = [clip.key for clip in scanshards.stream(urls, seed=1, epoch=4)]
    first = [scanshards.stream(urls, seed=1, epoch=4, rank=r, world_size=2) for r in range(2)]
    iterators = [iter(stream) for stream in first]
    before = [next(iterator).key for _ in range(2) for iterator in iterators]
    states = [stream.state() for stream in first]
    assert states[0] == states[1]
    state = json.loads(json.dumps(states[0]))
    rest = [
        [clip.key for clip in scanshards.stream(urls, rank=r, world_size=3, state=state)] for r in range(3)
    ]
    after = [key for turn in itertools.zip_longest(*rest) for key in turn if key is not None]
    assert before + after == whole


def test_state_is_small_and_the_end_of_an_epoch_is_empty(release):
    stream = scanshards.stream(release / "scannet-*.tar")
    assert len(list(stream)) == 7
    state = stream.state()
    assert len(json.dumps(state)) < 200
    assert state["position"] == 7
    assert list(scanshards.stream(release / "scannet-*.tar", state=state)) == []


def test_iterating_again_begins_at_the_stream_s_start(release):
    stream = scanshards.stream(release / "scannet-*.tar")
    first = next(iter(stream)).key
    assert stream.state()["position"] == 1
    assert [clip.key for clip in stream][0] == first


def test_fewer_samples_than_ranks_is_an_error_that_says_so(release):
    with pytest.raises(ValueError, match="got 7 samples for 8 ranks, expected at least one for each"):
        scanshards.stream(release / "scannet-*.tar", rank=0, world_size=8)


@pytest.mark.parametrize(("rank", "world_size"), [(2, 2), (-1, 2), (0, 0)])
def test_a_rank_outside_the_world_is_an_error(release, rank, world_size):
    with pytest.raises(ValueError, match="expected 0 <= rank < world_size"):
        scanshards.stream(release / "scannet-*.tar", rank=rank, world_size=world_size)


def test_a_state_of_other_samples_or_of_another_form_is_refused(release):
    state = scanshards.stream(release / "scannet-*.tar").state()
    with pytest.raises(ValueError, match="state is of 7 other samples"):
        scanshards.stream(release / "val/scannet-*.tar", state=state)
    for broken in ({}, {**state, "position": "3"}, {**state, "more": 1}):
        with pytest.raises(ValueError, match="expected what ClipStream.state"):
            scanshards.stream(release / "scannet-*.tar", state=broken)
    for places in ({"position": 8}, {"position": -1}, {"ahead": [9]}, {"ahead": ["1"]}):
        with pytest.raises(ValueError, match=r"got positions \[.*\], expected 0 to 7"):
            scanshards.stream(release / "scannet-*.tar", state=state | places)
    with pytest.raises(ValueError, match="got 7 samples for 8 ranks"):
        scanshards.stream(release / "scannet-*.tar", state=state, world_size=8)


def test_releases_with_a_key_in_common_have_one_order_wherever_they_lie():
    """Content, not the folder, decides between two samples of one key."""

    def order(first: str, second: str) -> list[str]:
        return [s.xxh3 for s in global_order([ref(first, "0" * 16), ref(second, "1" * 16)], 0, 0)]

    def ref(url: str, xxh3: str) -> SampleRef:
        return SampleRef(Shard(url, None), "scene0000_00-00", 0, 1, xxh3)

    assert order("a.tar", "b.tar") == order("b.tar", "a.tar")


def test_damage_stops_a_stream(release, tmp_path):
    path = tmp_path / "scannet-000000.tar"
    data = bytearray((release / "scannet-000000.tar").read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    stream = scanshards.stream(path)
    with pytest.raises(scanshards.CorruptSample):
        [clip.verify_members() for clip in stream]


def test_only_a_few_shards_stay_open(release, monkeypatch):
    monkeypatch.setattr(readahead, "_OPEN_SHARDS", 1)
    keys = [clip.key for clip in scanshards.stream(release / "scannet-*.tar")]
    assert len(set(keys)) == 7


LOADER = """
import pickle, sys
import torch.utils.data, scanshards

stream = scanshards.stream(sys.argv[1], seed=2, rank=1, world_size=2)
expected = [sample.key for sample in stream.samples()]
for workers in (0, 1, 2):
    for given in (stream, pickle.loads(pickle.dumps(stream))):
        loader = torch.utils.data.DataLoader(given, batch_size=None, num_workers=workers)
        clips = list(loader)
        assert [clip.key for clip in clips] == expected, workers
        assert clips[0].latents.shape == (32, 2, 16, 27, 27)
        assert len(loader) == len(expected)
    assert stream.state(2)["position"] == 4
batched = scanshards.stream(sys.argv[1], seed=2, rank=1, world_size=2, batch_size=2)
for workers in (1, 2):
    loader = torch.utils.data.DataLoader(
        batched, batch_size=2, num_workers=workers, collate_fn=list, prefetch_factor=3
    )
    assert [clip.key for batch in loader for clip in batch] == expected, workers
    assert len(loader) == 2
"""


def test_torch_loaders_give_the_rank_s_order_for_any_number_of_workers(release):
    pytest.importorskip("torch")
    command = [sys.executable, "-W", "error::UserWarning", "-c", LOADER, str(release / "scannet-*.tar")]
    subprocess.run(command, check=True, timeout=240)
