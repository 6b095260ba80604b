"""Latents: equal to diffusers' own values, exact passports, clear errors, and a tiny codec worth having."""

import hashlib
import json

import cv2
import numpy as np
import pytest
import torch
import zarr
from diffusers import AutoencoderKL, AutoencoderTiny
from safetensors.torch import load_file

from pipeline import latents
from pipeline.config import Config, LatentsConfig
from pipeline.errors import ScanError
from pipeline.latents import build, load_codec, resize_views
from pipeline.scans import FileStamp, ScanEntry
from pipeline.sources import open_source
from pipeline.weights import DEFAULT_WEIGHTS, TINY_FOLDER, WeightsError, weights_key
from scanshards.codec import decode_jpeg, encode_jpeg
from scanshards.geometry import resize_color, resize_plan

ENTRY = ScanEntry("scene0001_00", "nowhere", {}, "train", "scannet")
FLUX = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (128, 256, 512, 512),
    "layers_per_block": 2,
    "latent_channels": 16,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "sample_size": 1024,
}
SMALL = FLUX | {"block_out_channels": (8, 8, 8, 8), "layers_per_block": 1, "norm_num_groups": 4}
TAEF1 = {
    "latent_channels": 16,
    "encoder_block_out_channels": (8, 8, 8, 8),
    "decoder_block_out_channels": (8, 8, 8, 8),
    "scaling_factor": 1.0,
    "shift_factor": 0.0,
}


pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def flux_folder(tmp_path_factory):
    """FLUX as the hub lays it out: the autoencoder in the subfolder vae; small random weights."""
    return saved(AutoencoderKL(**SMALL), tmp_path_factory.mktemp("hub") / "FLUX.1-fake" / "vae").parent


def saved(model, folder):
    model.save_pretrained(folder)
    return folder


def config_of(codec, weights="", **fields):
    return LatentsConfig(codec=codec, weights=str(weights), device="cpu", **fields)


def pictures(count, size, seed=0):
    """Smooth random colours, (count, size, size, 3) uint8."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 256, (count, 6, 6, 3)).astype(np.float32)
    return np.stack([cv2.resize(c, (size, size)) for c in coarse]).astype(np.uint8)


def psnr_db(a, b):
    return -10 * np.log10(np.mean((a.astype(np.float64) / 255 - b.astype(np.float64) / 255) ** 2))


# --- values


def test_flux_of_the_real_configuration_gives_what_diffusers_gives(tmp_path):
    torch.manual_seed(0)
    folder = saved(AutoencoderKL(**FLUX), tmp_path / "vae")
    images = resize_views(pictures(1, 384))
    ours = load_codec(config_of("flux", tmp_path)).encode(images)
    model = AutoencoderKL.from_pretrained(folder)
    with torch.no_grad():
        posterior = model.encode(images * 2 - 1).latent_dist
    assert ours.shape == (1, 2, 16, 27, 27) and ours.dtype == np.float16
    np.testing.assert_array_equal(ours[:, 0], ((posterior.mean - 0.1159) * 0.3611).half().numpy())
    np.testing.assert_array_equal(ours[:, 1], (posterior.std * 0.3611).half().numpy())
    # Positive, so that log std and KL terms downstream are defined.
    assert (ours[:, 1] > 0).all()


def test_taef1_is_encoded_straight_to_scaled_latents_in_float32(tmp_path):
    torch.manual_seed(0)
    folder = saved(AutoencoderTiny(**TAEF1).to(torch.bfloat16), tmp_path / "taef1")
    assert {w.dtype for w in load_file(folder / latents.WEIGHTS).values()} == {torch.bfloat16}
    codec = load_codec(config_of("taef1", folder))
    assert {p.dtype for p in codec.model.parameters()} == {torch.float32}
    images = resize_views(pictures(2, 384))
    model = AutoencoderTiny.from_pretrained(folder, torch_dtype=torch.float32)
    with torch.no_grad():
        expected = model.encode(images * 2 - 1).latents
        shown = model.decode(expected).sample
    ours = codec.encode(images)
    assert ours.shape == (2, 1, 16, 27, 27)
    np.testing.assert_array_equal(ours[:, 0], expected.half().numpy())
    shown = ((shown / 2 + 0.5).clamp(0, 1) * 255).round().byte().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(codec.decode(expected), shown)


def test_decode_inverts_scale_and_shift(flux_folder):
    codec = load_codec(config_of("flux", flux_folder))
    scaled = torch.randn(2, 16, 5, 7, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = codec.model.decode(scaled / 0.3611 + 0.1159).sample
    decoded = codec.decode(scaled)
    assert decoded.shape == (2, 40, 56, 3) and decoded.dtype == np.uint8
    expected = ((expected / 2 + 0.5).clamp(0, 1) * 255).round().permute(0, 2, 3, 1).numpy()
    np.testing.assert_array_equal(decoded, expected)


def test_batches_do_not_change_what_comes_out(flux_folder):
    images = resize_views(pictures(5, 384))
    one, all_at_once = (
        load_codec(config_of("flux", flux_folder, batch_size=n)).encode(images) for n in (1, 8)
    )
    np.testing.assert_allclose(one.astype(np.float32), all_at_once.astype(np.float32), rtol=2e-3, atol=1e-4)


def test_views_are_resized_bilinearly_between_pixel_centres_without_antialias():
    frames = pictures(1, 384)
    views = resize_views(frames)
    assert views.shape == (1, 3, 216, 216) and views.dtype == torch.float32
    place = np.clip((np.arange(216) + 0.5) * 384 / 216 - 0.5, 0, 383)
    low = np.minimum(place.astype(int), 382)
    share = place - low
    image = frames[0].astype(np.float64) / 255
    rows = image[low] * (1 - share)[:, None, None] + image[low + 1] * share[:, None, None]
    expected = rows[:, low] * (1 - share)[:, None] + rows[:, low + 1] * share[:, None]
    np.testing.assert_allclose(views[0].permute(1, 2, 0).numpy(), expected, atol=2e-6)


# --- passport and weights


def test_the_passport_names_the_weights_and_no_path_of_this_machine(flux_folder):
    codec = load_codec(config_of("flux", flux_folder))
    weights = (flux_folder / "vae" / latents.WEIGHTS).read_bytes()
    assert codec.passport(216, 216) == {
        "codec": "flux",
        "model_id": "FLUX.1-fake",
        "weights_sha256": hashlib.sha256(weights).hexdigest(),
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
        "input_width": 216,
        "input_height": 216,
        "filter": "bilinear",
        "dtype": "float16",
        "posterior": True,
    }
    assert load_codec(config_of("tiny")).passport(1, 1)["model_id"] == "tiny_codec"


def test_a_folder_may_be_the_autoencoder_itself(flux_folder):
    inner = load_codec(config_of("flux", flux_folder / "vae"))
    assert inner.weights_sha256 == load_codec(config_of("flux", flux_folder)).weights_sha256


def test_the_weights_key_changes_with_weights_and_config_only(tmp_path):
    folder = saved(AutoencoderKL(**SMALL), tmp_path / "one")
    key = weights_key(config_of("flux", folder))
    (tmp_path / "moved").mkdir()
    moved = folder.rename(tmp_path / "moved" / "two")
    assert weights_key(config_of("flux", moved)) == key
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"shift_factor": 0.2}))
    assert weights_key(config_of("flux", moved)) != key


@pytest.fixture
def no_network(monkeypatch, tmp_path):
    """An empty cache, and a failure on any try to reach the hub."""
    calls = []

    def snapshot_download(repo_id, allow_patterns, local_files_only=False):
        calls.append((repo_id, local_files_only))
        raise FileNotFoundError("Cannot find an appropriate cached snapshot folder.\nMore advice.")

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    return calls


def test_missing_hub_weights_are_one_line_that_says_how_to_get_them(no_network):
    with pytest.raises(WeightsError) as error:
        load_codec(config_of("flux"))
    message = str(error.value)
    assert "\n" not in message
    for part in (
        "black-forest-labs/FLUX.1-schnell are neither in the cache nor can they be downloaded",
        "hf download black-forest-labs/FLUX.1-schnell --local-dir DIR --include 'vae/*'",
        "latents.weights=DIR",
    ):
        assert part in message
    assert no_network == [(DEFAULT_WEIGHTS["flux"], True), (DEFAULT_WEIGHTS["flux"], False)]


@pytest.mark.parametrize(
    "where", ["/nowhere/taef1", "./taef1", "../taef1", "~/no_taef1", "here/taef1", "taef1"]
)
def test_a_missing_folder_never_reaches_for_the_network(no_network, tmp_path, monkeypatch, where):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here").mkdir()
    with pytest.raises(WeightsError, match="no such folder; where there is a network run `hf download made"):
        load_codec(config_of("taef1", where))
    assert no_network == []


def test_cached_hub_weights_are_used_without_the_network(monkeypatch, flux_folder):
    calls = []

    def snapshot_download(repo_id, allow_patterns, local_files_only=False):
        calls.append(local_files_only)
        return str(flux_folder)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot_download)
    codec = load_codec(config_of("flux", "some-lab/FLUX-copy"))
    assert (codec.model_id, calls) == ("some-lab/FLUX-copy", [True])


def test_an_empty_folder_is_named(tmp_path):
    with pytest.raises(WeightsError, match="no config.json with diffusion_pytorch_model.safetensors"):
        load_codec(config_of("flux", tmp_path))


def test_weights_of_another_kind_name_the_codec_to_set(tmp_path, flux_folder):
    tiny = saved(AutoencoderTiny(**TAEF1), tmp_path / "t")
    with pytest.raises(WeightsError, match="got weights of AutoencoderTiny, .* set latents.codec=taef1"):
        load_codec(config_of("flux", tiny))
    with pytest.raises(WeightsError, match="got weights of AutoencoderKL, .* set latents.codec=flux"):
        load_codec(config_of("taef1", flux_folder))


def test_another_latent_geometry_is_refused(tmp_path):
    folder = saved(AutoencoderKL(**SMALL | {"latent_channels": 4}), tmp_path / "sd")
    with pytest.raises(WeightsError, match="got 4 latent channels on 4 levels, expected 16 on 4"):
        load_codec(config_of("flux", folder))


# --- the stage


@pytest.fixture
def scan(tmp_path):
    """Groups as the stages clips and bev write them: one clip of 32 flat frames, and a BEV."""
    clips = zarr.open_group(tmp_path / "clips", mode="w")
    files = [encode_jpeg(p) for p in pictures(32, 384)]
    jpeg = np.frombuffer(b"".join(files), np.uint8)
    clip = clips.create_group("00")
    clip.create_array("jpeg", data=jpeg, chunks=jpeg.shape)
    clip.create_array("jpeg_offsets", data=np.cumsum([0, *map(len, files)]).astype(np.int64))
    clips.attrs["clips"] = [{"frame_indices": list(range(100, 132))}]
    bev = zarr.open_group(tmp_path / "bev", mode="w")
    bev.create_array("bev", data=pictures(1, 432, seed=1)[0])
    bev.attrs["bev"] = {"present": True}
    return {"clips": clips, "bev": bev}


def built(scan, tmp_path, config):
    group = zarr.open_group(tmp_path / "latents", mode="w")
    build(ENTRY, group, Config(latents=config), scan)
    return group


def test_the_stage_encodes_the_stored_jpegs_and_the_bev(scan, tmp_path, flux_folder):
    config = config_of("flux", flux_folder)
    group = built(scan, tmp_path, config)
    codec = load_codec(config)
    offsets = scan["clips"]["00"]["jpeg_offsets"][:]
    jpeg = scan["clips"]["00"]["jpeg"][:].tobytes()
    frames = np.stack([decode_jpeg(jpeg[offsets[i] : offsets[i + 1]]) for i in range(32)])
    np.testing.assert_array_equal(group["00"]["latents"][:], codec.encode(resize_views(frames)))
    bev = torch.from_numpy(scan["bev"]["bev"][:]).permute(2, 0, 1)[None] / 255
    np.testing.assert_array_equal(group["bev_latents"][:], codec.encode(bev)[0])
    assert group["00"]["latents"].shape == (32, 2, 16, 27, 27)
    assert group["bev_latents"].shape == (2, 16, 54, 54)
    assert group["00"]["latents"].dtype == group["bev_latents"].dtype == np.float16
    assert group.attrs["passport"] == codec.passport(216, 216)
    assert group.attrs["bev_passport"] == codec.passport(432, 432) | {"filter": "none"}


@pytest.mark.parametrize(("codec", "m"), [("flux", 2), ("taef1", 1)])
def test_no_bev_is_zeros_of_the_same_shape(scan, tmp_path, flux_folder, codec, m):
    folder = flux_folder if codec == "flux" else saved(AutoencoderTiny(**TAEF1), tmp_path / "taef1")
    scan["bev"].attrs["bev"] = {"present": False}
    group = built(scan, tmp_path, config_of(codec, folder))
    assert group["00"]["latents"].shape == (32, m, 16, 27, 27)
    np.testing.assert_array_equal(group["bev_latents"][:], np.zeros((m, 16, 54, 54), np.float16))


def test_latents_beyond_float16_set_the_scan_aside_naming_the_frame(scan, tmp_path, monkeypatch, flux_folder):
    config = config_of("flux", flux_folder)
    encode = latents.Codec.encode

    def overflowing(self, images):
        values = encode(self, images)
        values[min(7, len(values) - 1), 0, 3, 1, 2] = np.inf
        return values

    monkeypatch.setattr(latents.Codec, "encode", overflowing)
    with pytest.raises(
        ScanError, match="scene0001_00 clip 00 frame 107: 1 latent values are NaN or beyond fl"
    ):
        built(scan, tmp_path, config)


def test_huge_latents_really_become_infinite(tmp_path):
    model = AutoencoderKL(**SMALL)
    torch.nn.init.constant_(model.encoder.conv_out.bias, 1e7)
    codec = load_codec(config_of("flux", saved(model, tmp_path / "huge")))
    assert np.isinf(codec.encode(resize_views(pictures(1, 384)))).any()


# --- the embedded codec


def test_the_tiny_codec_is_small_and_has_flux_latents():
    codec = load_codec(config_of("tiny"))
    assert (TINY_FOLDER / latents.WEIGHTS).stat().st_size <= 2_000_000
    images = torch.from_numpy(pictures(1, 432)).permute(0, 3, 1, 2) / 255
    assert codec.encode(images).shape == (1, 2, 16, 54, 54)
    assert codec.posterior


def test_the_tiny_codec_shows_a_real_room_it_never_saw(shared_dir):
    frames = real_frames(shared_dir)
    views = resize_views(frames)
    codec = load_codec(config_of("tiny"))
    stored = codec.encode(views)
    means, stds = stored.astype(np.float32).transpose(1, 0, 2, 3, 4)
    decoded = codec.decode(torch.from_numpy(means))
    shown = (views.permute(0, 2, 3, 1).numpy() * 255).round().astype(np.uint8)
    assert np.mean([psnr_db(a, b) for a, b in zip(decoded, shown, strict=True)]) >= 30
    # What the denoiser is trained on: about mean 0 and std 1, with a real but small posterior.
    assert abs(means.mean()) < 0.2
    assert 0.7 < means.std() < 1.3
    assert 0.02 < np.median(stds) < 0.1
    noise = np.random.default_rng(0).standard_normal(means.shape)
    sampled = codec.decode(torch.from_numpy(means + stds * noise))
    losses = [psnr_db(a, b) - psnr_db(c, b) for a, b, c in zip(decoded, shown, sampled, strict=True)]
    assert np.mean(losses) < 0.2


def real_frames(shared_dir, count=8):
    """(count, 384, 384, 3) frames of the real scan, resized as the clips stage does."""
    files = {"sens": "scene9000_00.sens", "meta": "scene9000_00.txt"}
    folder = shared_dir / "scans" / "scene9000_00"
    stamps = {role: FileStamp(name, (folder / name).stat().st_size, 0) for role, name in files.items()}
    with open_source(ScanEntry("scene9000_00", str(folder), stamps, "val", "scannet")) as source:
        plan = resize_plan(*source.depth_size)
        chosen = np.linspace(0, source.num_frames - 1, count).astype(int)
        frames = [resize_color(source.color(int(i)), plan) for i in chosen]
    return np.stack([decode_jpeg(encode_jpeg(frame)) for frame in frames])
