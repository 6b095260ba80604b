"""`eval/run.py` from a checkpoint and shards to files and a table, and what it says on mistakes."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from train_shards import Room, write_shards

from eval import generate, run
from eval.text_metrics import Answered, score
from scanshards.tasks import human_value
from train import checkpoint
from train.config import load_config, save_config
from train.data import clip_inputs
from train.lmm import SceneModel, frame_ids
from train.prompt import IM_END, PAD, load_tokenizer, prefix, question_ids

TINY = (
    "frames=2",
    "vision.hidden_size=24",
    "vision.intermediate_size=32",
    "vision.num_layers=1",
    "language.hidden_size=32",
    "language.intermediate_size=48",
    "language.num_layers=2",
    "denoiser.width=32",
    "denoiser.num_blocks=1",
)


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory) -> Path:
    """A run whose model is random, large weights so that answers differ."""
    folder = tmp_path_factory.mktemp("run")
    config = load_config(TINY)
    tokenizer = load_tokenizer()
    torch.manual_seed(3)
    model = SceneModel(config, len(tokenizer))
    with torch.no_grad():
        for parameter in model.language.parameters():
            if parameter.ndim == 2:
                parameter.normal_(std=0.3)
    save_config(config, folder / "config.yaml")
    tokenizer.save_pretrained(folder / "tokenizer")
    step = checkpoint.begin(folder, 5)
    checkpoint.save_weights(dict(model.named_parameters()), step / checkpoint.MODEL_FILE)
    checkpoint.finish(step, {"step": 5}, keep=1)
    return folder


@pytest.fixture(scope="module")
def shards(tmp_path_factory) -> list[str]:
    rooms = [Room("scene0001_00", "red", texts=5), Room("scene0002_00", "blue", texts=4)]
    return write_shards(tmp_path_factory.mktemp("shards"), rooms, per_shard=1)


@pytest.fixture(scope="module")
def out(run_dir, shards) -> Path:
    """What a run with default settings (but short answers) writes."""
    arguments = ["--checkpoint", str(run_dir), "--shards", *shards, "max_new_tokens=6"]
    assert run.main(arguments) == 0
    return run_dir / "eval"


def rows_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "predictions.jsonl").read_text().splitlines()]


def test_predictions_are_one_row_per_question_in_stored_order(out, run_dir):
    rows = rows_of(out)
    assert [(row["video"], row["dataset"], row["sample_id"]) for row in rows] == [
        (f"synthetic/{scan}", ("sqa3d", "scanqa")[i % 2], str(i))
        for scan, count in (("scene0001_00", 5), ("scene0002_00", 4))
        for i in range(count)
    ]
    first = rows[0]
    assert list(first)[:8] == [
        "dataset",
        "video",
        "sample_id",
        "prompt",
        "pred_response",
        "gt_response",
        "model_id",
        "question_type",
    ]
    assert first["prompt"] == (
        "<image> I stand here. What color is wall 0? Answer the question using a single word or phrase."
    )
    assert (first["gt_response"], first["answers"], first["model_id"]) == ("red", ["red"], run_dir.name)
    assert [row["exact"] for row in rows] == [row["pred_response"] == row["gt_response"] for row in rows]


def test_metrics_are_those_of_the_predictions(out):
    metrics = json.loads((out / "metrics.json").read_text())
    assert set(metrics) == {"sqa3d", "scanqa"}
    for task, protocols in metrics.items():
        items = [
            Answered(row["pred_response"], tuple(row["answers"]), row["question_type"])
            for row in rows_of(out)
            if row["dataset"] == task
        ]
        assert protocols == score(task, items)
    summary = json.loads((out / "summary.json").read_text())["tasks"]
    assert {task: facts["items"] for task, facts in summary.items()} == {"sqa3d": 5, "scanqa": 4}
    assert summary["sqa3d"]["majority"]["answer"] == "red"
    assert summary["sqa3d"]["majority"]["metrics"]["reference"]["EM"] == pytest.approx(60.0)


@torch.inference_mode()
def naive_answer(model, tokenizer, clip, text, spatial: bool, max_new_tokens: int) -> str:
    """The whole sequence again for every token, one question at a time."""
    inputs, frame = clip_inputs(clip, model.config), prefix(tokenizer, spatial=spatial)
    embedded = model.prefix(inputs.frames[None], inputs.patch_coords[None], *frame_ids(frame))
    ids = question_ids(tokenizer, human_value(text))
    answer: list[int] = []
    while len(answer) < max_new_tokens:
        words = model.language.model.embed_tokens(torch.tensor([ids + answer]))
        hidden = model.language.model(inputs_embeds=torch.cat([embedded, words], 1), use_cache=False)
        answer.append(int(model.language.lm_head(hidden.last_hidden_state[0, -1]).argmax()))
        if answer[-1] in tokenizer.convert_tokens_to_ids([IM_END, PAD]):
            break
    return tokenizer.decode(answer, skip_special_tokens=True).strip()


@pytest.mark.parametrize("prompt", ["training", "published"])
def test_answers_equal_those_of_full_forward_passes(run_dir, shards, prompt):
    import scanshards

    model, tokenizer, _ = checkpoint.load_run(run_dir)
    clip = next(iter(scanshards.open(shards[0])))
    texts = [text for text in clip.texts if text["task"] in ("sqa3d", "scanqa")]
    settings = generate.Generation(prompt=prompt, batch=3, max_new_tokens=5)
    answers = generate.answer_clip(model, tokenizer, clip, texts, settings)
    naive = [naive_answer(model, tokenizer, clip, text, prompt == "training", 5) for text in texts]
    assert [answer.text for answer in answers] == naive
    assert any(naive)


def test_prompts_with_and_without_the_spatial_sentence_differ(out, run_dir, shards, tmp_path):
    arguments = ["--checkpoint", str(run_dir), "--shards", *shards, "max_new_tokens=6"]
    assert run.main([*arguments, "prompt=published", "--out", str(tmp_path)]) == 0
    published = [row["pred_response"] for row in rows_of(tmp_path)]
    assert published != [row["pred_response"] for row in rows_of(out)]


def test_one_task_alone_and_overrides_anywhere(run_dir, shards, tmp_path):
    arguments = ["--checkpoint", str(run_dir), "--shards", *shards, "batch=2", "max_new_tokens=1"]
    assert run.main([*arguments, "--tasks", "scanqa", "--out", str(tmp_path)]) == 0
    assert {row["dataset"] for row in rows_of(tmp_path)} == {"scanqa"}
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert summary["settings"] == {"prompt": "training", "batch": 2, "max_new_tokens": 1}


def test_a_text_on_two_clips_of_a_scan_is_asked_once(run_dir, tmp_path):
    import train_shards

    from scanshards.index import build_index, write_index
    from scanshards.write import write_shard

    sample = train_shards.sample(Room(texts=3))
    second = replace(sample, key="scene0000_00-01")
    entry = write_shard(tmp_path / "scannet-000000.tar", [sample, second])
    write_index(tmp_path, build_index("synthetic", "0" * 16, [{**entry, "split": "train", "inputs": ""}], []))
    arguments = [
        "--checkpoint",
        str(run_dir),
        "--shards",
        str(tmp_path / "scannet-000000.tar"),
        "max_new_tokens=1",
    ]
    assert run.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert [row["sample_id"] for row in rows_of(tmp_path / "out")] == ["0", "1", "2"]


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (["--checkpoint", "{tmp}", "--shards", "{shard}"], 1, "no whole checkpoint, expected"),
        (["--checkpoint", "{run}", "--shards", "{tmp}/none-*.tar"], 1, "none-*.tar"),
        (["--checkpoint", "{run}", "--shards", "{silent}"], 1, "no questions of sqa3d, scanqa in"),
        (["--checkpoint", "{run}", "--shards", "{shard}", "beams=4"], 2, "unknown key beams"),
        (
            ["--checkpoint", "{run}", "--shards", "{shard}", "prompt=chat"],
            2,
            "expected one of training, published",
        ),
        (["--checkpoint", "{run}", "--shards", "{shard}", "batch=0"], 2, "batch: got 0, expected at least 1"),
    ],
)
def test_each_mistake_is_one_line_and_its_exit_status(
    options, status, said, run_dir, shards, tmp_path, capsys
):
    silent = write_shards(tmp_path / "silent", [Room(texts=0)])[0]
    places = {"tmp": tmp_path, "run": run_dir, "shard": shards[0], "silent": silent}
    assert run.main([option.format(**places) for option in options]) == status
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert said in lines[0]


@pytest.mark.parametrize("options", [["--shards", "a.tar"], ["--check", "x", "--shards", "a.tar"]])
def test_usage_errors_exit_with_2(options):
    with pytest.raises(SystemExit) as raised:
        run.main(options)
    assert raised.value.code == 2
