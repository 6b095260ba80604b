"""Which clip comes when, and what a visit carries."""

from collections import Counter
from itertools import islice

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from scanshards.stream import stream
from tests.train_shards import MICRO, Room, clip_of, rooms, shared_shards, write_shards
from train import data, prompt
from train.config import load_config

CONFIG = load_config(MICRO)
TOKENIZER = prompt.load_tokenizer()


@given(
    total=st.integers(1, 9),
    world=st.integers(1, 4),
    workers=st.integers(1, 3),
    start=st.integers(0, 25),
)
def test_ranks_and_workers_partition_one_endless_order(total, world, workers, start):
    """Taking turns over workers and then ranks gives clip start, start + 1, ... of the epochs end to end."""
    wanted = [divmod(start + g, total) for g in range(24)]
    shares = []
    for rank in range(world):
        parts = []
        for worker in range(workers):
            place = data.Place(rank, world, total, start).of_worker(worker, workers)
            first = start // total
            parts.append(
                [(epoch, i) for epoch in range(first, first + 30 // total + 2) for i in place.indices(epoch)]
            )
        shares.append([parts[j % workers][j // workers] for j in range(24 // world)])
    found = [shares[g % world][g // world] for g in range(24 // world * world)]
    assert found == wanted[: len(found)]


@pytest.mark.parametrize("workers", [0, 2])
def test_visits_come_in_the_stream_s_order_epoch_after_epoch(workers):
    config = load_config([*MICRO, f"loader.workers={workers}"])
    urls = list(shared_shards())
    total = data.count_clips(urls)
    source = data.visits(urls, config, TOKENIZER, data.Place(0, 1, total))
    keys = [visit.key for visit in islice(source, 13)]
    wanted = [ref.key for epoch in range(3) for ref in stream(urls, seed=0, epoch=epoch).samples()]
    assert keys == wanted[:13]
    assert wanted[:5] != wanted[5:10]


def test_going_on_gives_the_very_batches_that_would_have_come():
    urls, frame = list(shared_shards()), prompt.prefix(TOKENIZER)
    total = data.count_clips(urls)

    def batches(start):
        source = data.visits(urls, CONFIG, TOKENIZER, data.Place(0, 1, total, start))
        return data.batches(source, frame, CONFIG)

    whole = list(islice(batches(0), 9))
    for late, again in zip(whole[7:], islice(batches(7), 2), strict=True):
        assert late.keys == again.keys
        assert torch.equal(late.packed.text_ids, again.packed.text_ids)
        assert torch.equal(late.draws.view_noise, again.draws.view_noise)
        assert torch.equal(late.frames, again.frames)


@given(count=st.integers(0, 30), wanted=st.integers(1, 8))
def test_a_few_epochs_show_every_text(count, wanted):
    epochs = -(-count // wanted) if count else 1
    shown = Counter(
        i for epoch in range(epochs) for i in data.choose(count, wanted, 0, epoch, "scene0000_00-00")
    )
    assert set(shown) == set(range(count))
    assert all(
        len(set(data.choose(count, wanted, 0, epoch, "k"))) == min(count, wanted) for epoch in range(5)
    )


def test_the_choice_of_texts_depends_on_seed_and_clip():
    choices = {tuple(data.choose(20, 6, seed, 0, key)) for seed in range(3) for key in ("a", "b")}
    assert len(choices) == 6


def test_only_question_answering_is_carried_for_now():
    texts = clip_of(Room()).texts
    assert {text["task"] for text in texts} == {"sqa3d", "scanqa", "scanrefer"}
    records = data.training_records(texts, CONFIG.tasks)
    assert len(records) == 6
    assert all(human.startswith("<image> ") and answer == "red" for human, answer in records)
    assert len(data.training_records(texts, ("sqa3d",))) == 3


def test_every_answer_of_scanqa_is_a_record():
    text = {**clip_of(Room()).texts[1], "answers": ["two", "2"]}
    assert text["task"] == "scanqa"
    assert [answer for _, answer in data.training_records([text], ("scanqa",))] == ["two", "2"]


def test_inputs_are_the_chosen_frames_and_their_patch_coordinates():
    clip = clip_of(Room())
    inputs = data.clip_inputs(clip, load_config([*MICRO, "frames=8"]))
    chosen = [0, 4, 8, 13, 17, 22, 26, 31]
    assert torch.equal(inputs.frames, torch.from_numpy(clip.frames[chosen]))
    coords = clip.patch_coords(27)[chosen]
    np.testing.assert_array_equal(inputs.patch_coords.numpy(), coords)
    assert np.isnan(coords[:, 0]).all()  # no depth in the first 40 rows: no position


def test_a_batch_weighs_visits_by_their_texts_and_a_textless_clip_as_one():
    visits = [data.make_visit(clip_of(room), CONFIG, TOKENIZER, 0) for room in (Room(texts=2), Room(texts=0))]
    batch = data.collate(visits, prompt.prefix(TOKENIZER), CONFIG)
    assert batch.weight.tolist() == [2.0, 1.0]
    assert batch.packed.num_texts == 2
    assert batch.num_tokens == 2 * (14 + 3 * 210 + len(prompt.prefix(TOKENIZER).after)) + sum(
        len(text) for text in visits[0].texts
    )


@pytest.mark.parametrize("workers", [0, 1])
def test_damage_stops_the_run_with_the_reader_s_message(tmp_path, workers):
    (shard,) = write_shards(tmp_path, rooms(1))
    raw = bytearray(open(shard, "rb").read())
    place = raw.find(b"scene0000_00-00.frame00.jpg") + 2000
    raw[place] ^= 0xFF
    open(shard, "wb").write(raw)
    config = load_config([*MICRO, f"loader.workers={workers}"])
    with pytest.raises(ValueError, match="scene0000_00-00.*frame00.jpg"):
        next(data.visits([shard], config, TOKENIZER, data.Place(0, 1, 1)))
