"""Pictures and depth of synthetic rooms: exact against brute force and planes, the walk, the noise model."""

import numpy as np
import pytest

from pipeline.synth.camera import Camera, look_at, plan_of, scaled_camera, walk
from pipeline.synth.layout import sample_scene
from pipeline.synth.placing import clearance
from pipeline.synth.render import Rendering, from_above, render_views, tone_map
from pipeline.synth.scene import Material
from pipeline.synth.sensor import exact_mm, measured_mm
from pipeline.synth.surface import KINDS, Palette

DEPTH = scaled_camera("depth", 160, 120)


@pytest.fixture(scope="module")
def rendering() -> Rendering:
    return Rendering(sample_scene("scene8000_00", 2, "bathroom"))


@pytest.fixture(scope="module")
def poses(rendering) -> np.ndarray:
    return walk(rendering.scene, 24, 0)


def unproject(z_m: np.ndarray, camera: Camera, world_from_cam: np.ndarray) -> np.ndarray:
    """(H, W, 3) by the formula of docs/geometry.md: x = (u - cx) z / fx."""
    u, v = np.meshgrid(np.arange(camera.width), np.arange(camera.height))
    in_cam = np.stack([(u - camera.cx) * z_m / camera.fx, (v - camera.cy) * z_m / camera.fy, z_m], axis=-1)
    return in_cam @ world_from_cam[:3, :3].T + world_from_cam[:3, 3]


def first_hit(vertices: np.ndarray, faces: np.ndarray, origin: np.ndarray, ray: np.ndarray) -> float:
    """Smallest distance at which a ray meets a triangle (Möller and Trumbore), in float64."""
    a, b, c = (vertices[faces[:, k]].astype(np.float64) for k in range(3))
    ab, ac, ao = b - a, c - a, origin - a
    p = np.cross(ray, ac)
    det = np.einsum("ij,ij->i", ab, p)
    with np.errstate(divide="ignore", invalid="ignore"):
        s = np.einsum("ij,ij->i", ao, p) / det
        q = np.cross(ao, ab)
        t = np.einsum("ij,ij->i", ac, q) / det
        w = (q @ ray) / det
    inside = (s >= -1e-9) & (w >= -1e-9) & (s + w <= 1 + 1e-9) & (t > 1e-6)
    return float(t[inside].min())


def test_depth_equals_brute_force_over_all_triangles(rendering, poses):
    z_m = rendering.depth(DEPTH, poses[5]).z_m
    rng = np.random.default_rng(0)
    errors = []
    for _ in range(60):
        u, v = int(rng.integers(160)), int(rng.integers(120))
        ray = poses[5][:3, :3] @ ((u - DEPTH.cx) / DEPTH.fx, (v - DEPTH.cy) / DEPTH.fy, 1.0)
        expected = first_hit(rendering.mesh.vertices, rendering.mesh.faces, poses[5][:3, 3], ray)
        errors.append(abs(expected - z_m[v, u]))
    assert np.median(errors) < 2e-6
    assert np.sort(errors)[-3] < 1e-4  # a ray along an edge may go either way


def test_points_lie_on_the_planes_of_the_room(rendering, poses):
    scene = rendering.scene
    seen = set()
    for pose in poses[::4]:
        view = rendering.depth(DEPTH, pose)
        points = unproject(view.z_m.astype(np.float64), DEPTH, pose)
        for name, height in (("floor", 0.0), ("ceiling", scene.size_m[2])):
            instance = next(o.instance_id for o in scene.objects if o.label == name)
            at = points[view.instance == instance]
            if len(at):
                seen.add(name)
                np.testing.assert_allclose(at[:, 2], height, atol=5e-6)
        for obj in (o for o in scene.objects if o.label == "wall"):
            at = points[(view.instance == obj.instance_id) & (points[..., 2] > 0.2)]  # above the skirting
            if len(at):
                seen.add("wall")
                axis = 0 if abs(np.cos(obj.yaw_rad)) > 0.5 else 1
                sign = np.cos(obj.yaw_rad) + np.sin(obj.yaw_rad)
                face = obj.center[axis] - np.sign(sign) * obj.size[axis] / 2
                np.testing.assert_allclose(at[:, axis], face, atol=5e-6)
    assert seen >= {"floor", "wall"}


def test_depth_in_millimetres_is_within_half_a_millimetre(rendering, poses):
    for pose in poses:
        z_m = rendering.depth(DEPTH, pose).z_m
        assert (z_m > 0).all()  # the room is closed
        assert np.abs(exact_mm(z_m) / 1000.0 - z_m).max() <= 0.0005 + 1e-6


def test_colour_and_depth_see_the_same_edges():
    color, depth = scaled_camera("color", 648, 484), scaled_camera("depth", 640, 480)
    assert color.fx == pytest.approx(1170.187988 / 2)
    assert (depth.fx, depth.cx, depth.cy) == (571.623718, 319.5, 239.5)
    right = np.array([(color.width - color.cx) / color.fx, (depth.width - depth.cx) / depth.fx])
    assert abs(right[0] / right[1] - 1) < 0.02


def test_pictures_are_well_exposed_and_repeat(rendering, poses):
    camera = scaled_camera("color", 162, 121)
    images = np.stack([rendering.color(camera, pose) for pose in poses[::6]])
    assert images.dtype == np.uint8 and images.shape[1:] == (121, 162, 3)
    assert 90 < images.mean() < 205
    assert (images == 255).mean() < 0.05
    assert images.std(axis=(1, 2)).mean() > 15
    np.testing.assert_array_equal(images[1], rendering.color(camera, poses[6]))


def test_view_from_above_shows_the_floor_not_the_ceiling(rendering):
    picture = from_above(rendering, 96)
    assert picture.shape == (96, 96, 3)
    assert picture[30:66, 30:66].std() > 10


def test_shadows_lie_under_furniture(rendering):
    scene, mesh = rendering.scene, rendering.mesh
    tub = next(obj for obj in scene.objects if obj.label in ("bathtub", "sink", "toilet"))
    floor = mesh.vertex_instance == next(o.instance_id for o in scene.objects if o.label == "floor")
    away = np.abs(mesh.vertices[:, :2] - tub.center[:2]) - np.array(tub.size[:2]) / 2
    under = floor & (away.max(axis=1) < -0.1)
    bright = rendering.light[floor].mean()
    assert rendering.light[under].mean() < 0.5 * bright


def test_walk_is_smooth_and_keeps_clear_of_things(rendering):
    scene = rendering.scene
    poses = walk(scene, 60, 0)
    np.testing.assert_allclose(
        poses[:, :3, :3] @ np.swapaxes(poses[:, :3, :3], 1, 2), np.eye(3)[None].repeat(60, 0), atol=1e-9
    )
    assert (np.linalg.det(poses[:, :3, :3]) > 0).all()
    position = poses[:, :3, 3]
    assert position[:, 2].min() >= 1.2 and position[:, 2].max() <= 1.7
    assert np.linalg.norm(np.diff(position, axis=0), axis=1).max() < 0.5
    turn = np.einsum("nij,nij->n", poses[1:, :3, :3], poses[:-1, :3, :3])
    assert np.degrees(np.arccos(np.clip((turn - 1) / 2, -1, 1))).max() < 75
    plan = plan_of(scene)
    for x, y in position[:, :2]:
        assert plan.holds((x, y, x, y))
    for obj in scene.objects:
        if obj.label not in ("floor", "ceiling", "wall", "ceiling light", "rug", "mat"):
            outside = (np.abs(position - obj.center) - np.array(obj.size) / 2).max(axis=1)
            assert outside.min() > 0, f"the camera passes through the {obj.label}"
    assert clearance(plan, []).max() > 0.5


def test_walk_shows_most_of_the_room(rendering):
    poses = walk(rendering.scene, 40, 0)
    small = scaled_camera("depth", 64, 48)
    seen = np.unique([rendering.depth(small, pose).instance for pose in poses])
    assert len(seen) >= 0.85 * len(rendering.scene.objects)


def test_render_views_gives_pictures_of_any_size():
    images = render_views(
        sample_scene("scene8000_00", 1, "bathroom"), num_views=2, width=64, height=64, seed=0
    )
    assert images.shape == (2, 64, 64, 3) and images.dtype == np.uint8
    assert images.std() > 15


def test_camera_looks_where_it_is_told():
    pose = look_at(np.array([1.0, 2.0, 1.5]), np.array([1.0, 5.0, 1.5]))
    np.testing.assert_allclose(pose[:3, 2], (0, 1, 0), atol=1e-12)  # forward
    np.testing.assert_allclose(pose[:3, 0], (1, 0, 0), atol=1e-12)  # right
    np.testing.assert_allclose(pose[:3, 1], (0, 0, -1), atol=1e-12)  # down


def test_axial_noise_has_the_published_spread():
    rng = np.random.default_rng(3)
    for z in (0.8, 2.0, 3.5):
        flat = np.full((400, 400), z, np.float32)
        depth = measured_mm(flat, np.ones_like(flat), rng)
        sigma = 0.0012 + 0.0019 * (z - 0.4) ** 2
        assert depth.std() / 1000 == pytest.approx(sigma, rel=0.03, abs=1e-4)
        assert depth.mean() / 1000 == pytest.approx(z, abs=1e-3)


def test_depth_drops_out_near_far_grazing_and_at_edges():
    rng = np.random.default_rng(3)

    def valid(z: np.ndarray, cosine: float) -> float:
        return float((measured_mm(z, np.full_like(z, cosine), rng) > 0).mean())

    def flat(z: float) -> np.ndarray:
        return np.full((100, 100), z, np.float32)

    assert valid(flat(2.0), 1.0) == 1.0
    assert valid(flat(0.3), 1.0) == 0.0
    assert valid(flat(7.1), 1.0) == 0.0
    assert 0.7 < valid(flat(5.0), 1.0) < 0.9
    assert valid(flat(2.0), 0.1) == 0.0
    step = flat(1.0)
    step[:, 50:] = 2.0
    depth = measured_mm(step, np.ones_like(step), rng)
    assert 0.3 < (depth[:, 49:51] == 0).mean() < 0.7
    assert (depth[:, :48] > 0).all() and (depth[:, 52:] > 0).all()


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_textures_stay_in_range_and_fade_to_a_flat_colour_in_the_distance(kind):
    palette = Palette((Material(kind, (180, 90, 60), (40, 80, 160), 0.2, seed=12),))
    rng = np.random.default_rng(0)
    uv = rng.uniform(-0.5, 0.5, (4000, 2)).astype(np.float32)
    index = np.zeros(4000, np.int32)
    near = palette.albedo(index, uv, np.full(4000, 0.0005, np.float32))
    assert near.shape == (4000, 3) and np.isfinite(near).all()
    assert near.min() > -40 and near.max() < 330
    np.testing.assert_array_equal(near, palette.albedo(index, uv, np.full(4000, 0.0005, np.float32)))
    if kind in ("stripes", "checks", "chess", "dots", "fabric"):
        far = palette.albedo(index, uv, np.full(4000, 1.0, np.float32))
        assert far.std(axis=0).max() < near.std(axis=0).max()


def test_tone_curve_rises_and_ends_at_white():
    steps = tone_map(np.linspace(0, 10, 1000, dtype=np.float32))
    assert (np.diff(steps) >= 0).all() and steps[0] == 0 and steps[-1] == 255
