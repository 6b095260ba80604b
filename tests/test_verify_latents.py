"""verify-latents: passes on what the codec made, finds what no hash can, and refuses other weights."""

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import AutoencoderKL
from make_shards import make_members, make_meta
from test_latents import SMALL

import scanshards
from pipeline.config import Config, LatentsConfig, VerifyConfig, load_config
from pipeline.latents import Codec, load_codec, resize_views
from pipeline.run import main
from pipeline.verify_latents import Checked, check_clip, choose_samples
from scanshards import codec as members_codec
from scanshards import schema
from scanshards.index import build_index, write_index
from scanshards.verify import verify
from scanshards.write import Sample, write_shard

pytestmark = pytest.mark.usefixtures("one_thread")
LOOSE = VerifyConfig(min_psnr_db=1.0)
"""Random weights decode to noise: only the differences count."""


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> Codec:
    """A quick codec with random weights, of FLUX's geometry."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("weights")
    AutoencoderKL(**SMALL).save_pretrained(folder)
    return load_codec(LatentsConfig(codec="flux", weights=str(folder), device="cpu"))


@pytest.fixture(scope="module")
def good(small) -> dict[str, np.ndarray]:
    """The latents that belong to the pictures of tests/make_shards.py."""
    made = make_members()
    frames = [
        members_codec.decode_jpeg(made[name], (schema.FRAME_SIZE, schema.FRAME_SIZE, 3))
        for name in schema.FRAME_NAMES
    ]
    bev = members_codec.decode(schema.MEMBERS["bev.png"], made["bev.png"])
    picture = torch.from_numpy(bev).permute(2, 0, 1)[None].float() / 255
    views = small.encode(resize_views(np.stack(frames)))
    return {"latents": views, "bev_latents": small.encode(picture)[0]}


def release(folder: Path, codec: Codec, arrays: dict[str, np.ndarray], **changed) -> Path:
    """A release of one sample with these latents; every hash is right."""
    passport = {"latents": codec.passport(216, 216), "bev_latents": codec.passport(432, 432)}
    passport["bev_latents"]["filter"] = "none"
    meta = make_meta("scene0000_00") | passport | changed
    members = dict(make_members())
    if not meta["bev"]["present"]:
        black = np.zeros((432, 432, 3), np.uint8)
        members |= {
            "bev.png": members_codec.encode_png(black),
            "bev_valid.png": members_codec.encode_png(black[..., 0]),
        }
    members |= {f"{name}.npy": members_codec.encode_npy(values) for name, values in arrays.items()}
    out = folder / "shards"
    out.mkdir()
    entry = write_shard(out / "scannet-000000.tar", [Sample("scene0000_00-00", meta, members)])
    write_index(out, build_index("made", "0" * 16, [entry | {"split": "train", "inputs": ""}], []))
    return out


def check(out: Path, codec: Codec, limits: VerifyConfig = LOOSE) -> Checked:
    (clip,) = scanshards.open(out / "scannet-*.tar")
    return check_clip(clip, codec, limits)


def test_what_the_codec_made_is_equal_bit_for_bit(tmp_path, small, good):
    found = check(release(tmp_path, small, good), small)
    assert found.problems == ()
    for compared, num_pictures in ((found.views, 32), (found.bev, 1)):
        np.testing.assert_array_equal(compared.exact, np.ones(num_pictures))
        np.testing.assert_array_equal(compared.difference, np.zeros((num_pictures, 2)))
        assert np.isposinf(compared.latent_psnr_db).all()


def spoil_single_frames(latents):
    views = latents["latents"]
    views[0, 0, 0, 0, 0] = np.inf
    views[3] = 0
    views[[8, 9]] = views[[9, 8]]
    place = np.unravel_index(np.argmax(np.abs(views[17, 0])), views[17, 0].shape)
    views[17, 0][place] *= -1  # one bit
    views[31, 1, 15, 26, 26] = np.nan


def spoil_deviations_and_turn_the_bev(latents):
    latents["latents"][:, 1] = 0
    latents["bev_latents"][:] = latents["bev_latents"][:, :, ::-1].copy()


def shift_channels_and_swap_the_moments_of_the_bev(latents):
    latents["latents"][:] = np.roll(latents["latents"], 1, axis=2)
    latents["bev_latents"][:] = latents["bev_latents"][::-1].copy()


DIFFERS = r"(mean|std) differs by [\d.]+ from what its picture encodes to, expected at most 0.02"
ALL = [f"frame {10 * i}" for i in range(32)]


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        (
            spoil_single_frames,
            {
                "frame 0": "mean holds NaN or infinity",
                **dict.fromkeys(["frame 30", "frame 80", "frame 90"], DIFFERS),
                "frame 170": DIFFERS.replace("(mean|std)", "mean"),
                "frame 310": "std holds NaN or infinity",
            },
        ),
        (
            spoil_deviations_and_turn_the_bev,
            dict.fromkeys(ALL, DIFFERS.replace("(mean|std)", "std")) | {"BEV": DIFFERS},
        ),
        (shift_channels_and_swap_the_moments_of_the_bev, dict.fromkeys([*ALL, "BEV"], DIFFERS)),
    ],
)
def test_wrong_latents_in_a_valid_shard_are_found_where_they_are(tmp_path, small, good, damage, expected):
    latents = {name: values.copy() for name, values in good.items()}
    damage(latents)
    out = release(tmp_path, small, latents)
    finite = all(np.isfinite(values).all() for values in latents.values())
    assert (verify(out).problems == []) == finite, "no hash can tell"
    found = dict(problem.split(": ", 1) for problem in check(out, small).problems)
    assert list(found) == list(expected)
    assert all(re.fullmatch(expected[where], found[where]) for where in found), found


def test_rounding_of_another_machine_is_no_problem(tmp_path, small, good):
    """Every value one step of float16 off, the smallest ones included."""
    off = {name: np.nextafter(values, np.float16(np.inf)) for name, values in good.items()}
    found = check(release(tmp_path, small, off), small, replace(LOOSE, max_difference=0.0))
    assert found.problems == ()
    assert found.views.exact.max() == 0
    assert 50 < found.views.latent_psnr_db.min() < 90


def test_a_sample_without_bev_has_zero_latents_and_is_not_decoded(tmp_path, small, good):
    latents = good | {"bev_latents": np.zeros_like(good["bev_latents"])}
    found = check(release(tmp_path, small, latents, bev=schema.NO_BEV), small)
    assert (found.bev, found.problems) == (None, ())
    (tmp_path / "other").mkdir()
    out = release(tmp_path / "other", small, good, bev=schema.NO_BEV)
    assert check(out, small).problems == ("BEV: latents are not zero, but there is no picture",)


def test_a_passport_that_misstates_the_codec_is_refused(tmp_path, small, good):
    passport = small.passport(216, 216) | {"scaling_factor": 1.0}
    out = release(tmp_path, small, good, latents=passport)
    with pytest.raises(
        ValueError, match=r"latents.scaling_factor is 1.0, expected 0.3611 with these weights"
    ):
        check(out, small)


# --- the command


@pytest.fixture
def alone(build, tmp_path, monkeypatch) -> Path:
    """The shards of the small build with nothing else around."""
    shutil.copytree(build.folder / "shards", tmp_path / "shards")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def command(*overrides: str) -> int:
    return main(["verify-latents", "verify.samples=1", "latents.device=cpu", *overrides])


def test_a_good_build_passes_with_a_table_and_no_work_folder(alone, capsys):
    assert command() == 0
    out, err = capsys.readouterr()
    assert re.fullmatch(r" *sample .*\n *scene8\d00_00-00 +views +100.00% +0 +inf .* ok *\n +BEV .*\n", out)
    decoded = [float(number) for number in re.findall(r"inf +([\d.]+)", out)]
    assert len(decoded) == 2 and min(decoded) > 28, "the tiny codec keeps the synthetic rooms"
    assert "verify-latents: 1 samples of shards are as tiny encodes them" in err
    assert sorted(path.name for path in alone.iterdir()) == ["shards"]


def test_latents_of_another_frame_fail_by_their_picture_alone(alone, capsys):
    """With max_difference off: the PSNR gate and its threshold stand on their own."""
    ((file, (key,)),) = choose_samples(index_of(alone)["shards"], VerifyConfig(samples=1)).items()
    rewrite(alone / "shards", file, key)
    assert verify(alone / "shards").problems == []
    assert command("verify.max_difference=1e9") == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[1].rstrip().endswith("FAIL")
    last = err.strip().splitlines()[-1]
    assert f"{key} frame " in last and "dB of its picture, expected at least 18" in last
    assert "1 of 1 samples of shards have latents that are not those of their pictures" in last


def index_of(folder: Path) -> dict:
    return json.loads((folder / "shards" / "index.json").read_text())


def rewrite(out: Path, file: str, key: str) -> None:
    """Give each frame of one sample the latents of the frame after next, with new hashes all through."""
    index = json.loads((out / "index.json").read_text())
    row = next(row for row in index["shards"] if row["file"] == file)
    samples = []
    for clip in scanshards.open(out / file):
        members = {name: bytes(clip.stored(name)) for name in clip.member_bytes if name != "clip.json"}
        if clip.key == key:
            members["latents.npy"] = members_codec.encode_npy(np.roll(clip.latents, 2, axis=0))
        meta = {k: v for k, v in clip.meta.items() if k not in ("format_version", "members", "xxh3")}
        samples.append(Sample(clip.key, meta, members))
    row.update(write_shard(out / file, samples) | {"file": file})
    write_index(out, build_index(index["dataset"], index["parameter_hash"], index["shards"], []))


def test_other_weights_are_refused_by_name(alone, tmp_path_factory, capsys):
    folder = tmp_path_factory.mktemp("weights")
    AutoencoderKL(**SMALL).save_pretrained(folder)
    assert command("latents.codec=flux", f"latents.weights={folder}") == 1
    error = capsys.readouterr().err
    assert re.search(
        r"error: the shards hold latents of tiny \([0-9a-f]{12}\), the parameters name flux", error
    )
    assert "set latents.codec and latents.weights" in error


def test_damage_that_a_hash_tells_is_named(alone, capsys):
    ((file, _),) = choose_samples(index_of(alone)["shards"], VerifyConfig(samples=1)).items()
    path = alone / "shards" / file
    data = bytearray(path.read_bytes())
    start = data.index(b"\x93NUMPY")
    data[start + 5000] ^= 1
    path.write_bytes(data)
    assert command() == 1
    assert re.search(r"member latents.npy: .*XXH3", " ".join(capsys.readouterr().err.split()))


def test_without_shards_the_next_command_is_named(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert command() == 1
    assert (
        "no shards in shards: got no index.json; run `python -m pipeline.run all`" in capsys.readouterr().err
    )


# --- the choice


def rows(*keys: str) -> list[dict]:
    return [{"file": f"{key[-4:-3]}.tar", "samples": [{"key": key}]} for key in keys]


def test_the_choice_follows_seed_and_keys_alone_and_grows():
    shards = rows(*(f"scene{i:04d}_00-00" for i in range(40)))

    def drawn(samples, seed=0, shards=shards):
        chosen = choose_samples(shards, VerifyConfig(samples=samples, seed=seed))
        return {key for keys in chosen.values() for key in keys}

    assert [len(drawn(n)) for n in (1, 5, 40, 99, 0)] == [1, 5, 40, 40, 40]
    assert drawn(5) < drawn(6)
    assert drawn(5) == drawn(5, shards=shards[::-1])
    assert len({frozenset(drawn(5, seed)) for seed in range(8)}) == 8


def test_the_parameter_hash_does_not_follow_the_check():
    assert (
        load_config(["verify.samples=3", "verify.seed=9"], None).parameter_hash() == Config().parameter_hash()
    )
