"""The command: what it leaves behind, how it goes on, what it refuses, what it never imports."""

import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.train_shards import MICRO, Room, shared_shards, write_shards
from train import metrics, rundir
from train.checkpoint import load_run
from train.config import load_config
from train.run import UsageError, main, parse

ROOT = Path(__file__).resolve().parents[1]
TIMES = {"step_s", "data_wait", "tokens_per_s", "texts_per_s", "clips_per_s", "memory_mb"}


def train(out, *more):
    return main(["--shards", *shared_shards(), *MICRO, f"out={out}", *more])


def rows(run_dir):
    found = [json.loads(line) for line in (run_dir / "log.jsonl").read_text().splitlines()]
    return [{key: value for key, value in row.items() if key not in TIMES} for row in found]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Six steps, checkpoints after 2, 4 and 6."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    assert train(out, "steps=6", "checkpoint.every=2", "checkpoint.keep=3", "batch.visits=2") == 0
    return out


def test_a_run_leaves_all_that_is_needed_to_repeat_it(finished):
    assert load_config(path=finished / "config.yaml") == load_config(
        [*MICRO, f"out={finished}", "steps=6", "checkpoint.every=2", "checkpoint.keep=3", "batch.visits=2"]
    )
    versions = json.loads((finished / "versions.json").read_text())
    assert {"torch", "transformers", "deepspeed", "git", "python", "shards"} <= set(versions)
    index = json.loads((Path(shared_shards()[0]).parent / "index.json").read_text())
    assert versions["shards_hash"] == index["root_hash"]
    assert list((finished / "tensorboard").iterdir())
    model, tokenizer, config = load_run(finished)
    assert (config.steps, len(tokenizer)) == (6, model.language.config.vocab_size)


def test_the_log_has_a_row_per_step_and_losses_where_they_count(finished):
    found = rows(finished)
    assert [row["step"] for row in found] == [1, 2, 3, 4, 5, 6]
    # views are masked at steps 0 and 4 counted from 0
    assert [row["cross_view_loss"] is not None for row in found] == [True, False, False, False, True, False]
    assert all(row["text_loss"] > 0 and row["global_view_loss"] > 0 for row in found)
    assert found[0]["text_loss"] > found[-1]["text_loss"]
    assert set(json.loads((finished / "log.jsonl").read_text().splitlines()[0])) == {
        field.name for field in dataclasses.fields(metrics.Row)
    }


@pytest.mark.parametrize("interrupted_after", [2, 4])
def test_an_interrupted_run_equals_the_uninterrupted_one(finished, tmp_path, interrupted_after):
    again = tmp_path / "again"
    shutil.copytree(finished, again)
    for folder in (again / "checkpoints").iterdir():
        if int(folder.name.removeprefix("step-")) > interrupted_after:
            shutil.rmtree(folder)
    with (again / "log.jsonl").open("a") as log:  # what a kill leaves: later rows, the last one cut short
        log.write('{"step": 7, "text_')
    assert main(["--resume", str(again)]) == 0
    assert rows(again) == rows(finished)
    name = "checkpoints/step-000006/model.safetensors"
    assert (again / name).read_bytes() == (finished / name).read_bytes()


def test_a_folder_that_holds_a_run_is_not_used_twice(finished, capsys):
    before = (finished / "log.jsonl").read_bytes()
    assert train(finished, "steps=1") == 1
    message = " ".join(capsys.readouterr().err.split())
    assert f"holds a run already, expected a new folder; to go on with it: --resume {finished}" in message
    assert (finished / "log.jsonl").read_bytes() == before


def test_latest_is_a_link_to_a_fresh_dated_folder(tmp_path):
    first, second = (rundir.make(str(tmp_path / "runs" / "latest")) for _ in range(2))
    link = tmp_path / "runs" / "latest"
    assert first != second
    assert link.is_symlink()
    assert link.resolve() == second.resolve()
    assert not Path(os.readlink(link)).is_absolute()
    assert sorted(p.name for p in link.parent.iterdir()) == sorted([first.name, second.name, "latest"])


def test_other_shards_are_refused_on_resume(finished, tmp_path, capsys):
    other = write_shards(tmp_path / "other", [Room("scene0077_00")])
    assert main(["--resume", str(finished), "--shards", *other]) == 1
    assert "the shards are not those it was trained on" in " ".join(capsys.readouterr().err.split())


def test_shards_without_any_text_train_on_reconstruction_alone(tmp_path):
    shards = write_shards(tmp_path / "shards", [Room(texts=0)])
    assert main(["--shards", *shards, *MICRO, f"out={tmp_path / 'run'}", "steps=2"]) == 0
    found = rows(tmp_path / "run")
    assert [row["text_loss"] for row in found] == [None, None]
    assert all(row["global_view_loss"] > 0 and row["grad_norm"] > 0 for row in found)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "no shards given, expected --shards shards/scannet-*.tar"),
        (["--shards", "a.tar", "stepz=3"], "unknown key stepz"),
        (["--shards", "a.tar", "--config", "huge"], "--config: got 'huge'"),
        (["--resume", "nowhere"], "no versions.json there, expected the folder of a run"),
    ],
)
def test_a_wrong_command_line_is_a_usage_error(arguments, message, capsys):
    assert main(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_options_are_never_abbreviated():
    with pytest.raises(SystemExit) as exit_info:
        parse(["--shard", "a.tar"])
    assert exit_info.value.code == 2


def test_overrides_stand_anywhere():
    request = parse(
        ["steps=3", "--shards", "a.tar", "seed=5", "b.tar", "--config", "tiny", "optimizer.clip=0"]
    )
    assert request.urls == ["a.tar", "b.tar"]
    assert (request.config.steps, request.config.seed, request.config.optimizer.clip) == (3, 5, 0.0)


def test_a_resumed_run_keeps_its_preset(finished):
    with pytest.raises(UsageError, match="leave one out"):
        parse(["--resume", str(finished), "--config", "tiny"])


def test_missing_shards_end_with_one_line(tmp_path, capsys):
    assert main(["--shards", str(tmp_path / "none-*.tar"), *MICRO]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "none-*.tar" in error


def run_script(*command):
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        environment.pop(name, None)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


def test_training_never_imports_the_pipeline_s_packages(tmp_path):
    code = (
        "import sys, runpy\n"
        f"sys.argv = ['train/run.py', '--shards', *{list(shared_shards())!r}, *{list(MICRO)!r},"
        f" 'steps=1', 'out={tmp_path / 'run'}']\n"
        "try:\n    runpy.run_path('train/run.py', run_name='__main__')\n"
        "except SystemExit as end:\n    assert end.code == 0, end.code\n"
        "banned = {'diffusers', 'open3d', 'pyrender', 'dask', 'distributed', 'trimesh', 'zarr', 'pipeline'}\n"
        "sys.exit(str(sorted(banned & {name.split('.')[0] for name in sys.modules})))\n"
    )
    done = run_script(sys.executable, "-c", code)
    assert done.stderr.splitlines()[-1] == "[]", done.stderr


def test_two_processes_give_the_losses_of_one(finished, tmp_path):
    out = tmp_path / "two"
    command = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", "train/run.py"]
    more = ["steps=6", "checkpoint.every=6", "batch.visits=2", "engine.zero_stage=2", f"out={out}"]
    done = run_script(sys.executable, *command, "--shards", *shared_shards(), *MICRO, *more)
    assert done.returncode == 0, done.stderr
    for two, one in zip(rows(out), rows(finished), strict=True):
        for name, value in one.items():
            assert two[name] == (None if value is None else pytest.approx(value, rel=1e-3)), name
    assert json.loads((out / "checkpoints/step-000006/run.json").read_text())["processes"] == 2


def test_the_rate_warms_up_and_falls_to_nothing():
    shares = [metrics.learning_rate_share(step, 100, 0.1) for step in range(100)]
    assert shares[:10] == pytest.approx([0.1 * (i + 1) for i in range(10)])
    assert max(shares) == 1.0
    assert shares[55] == pytest.approx(0.5)
    assert shares[-1] < 1e-3
    assert all(later < earlier for earlier, later in zip(shares[10:], shares[11:], strict=False))


def test_a_line_is_as_wide_as_the_header_whatever_the_losses():
    row = metrics.Row(7, 12.345678, None, 0.1, 3.25, 1e-3, 0.5, 0.012, 9000.0, 8.1, 2.0, 800.0)
    full = dataclasses.replace(row, cross_view_loss=1.0, step=12345)
    assert len({len(metrics.header()), len(metrics.line(row, 900)), len(metrics.line(full, 99999))}) == 1
