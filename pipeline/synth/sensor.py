"""What a structured-light depth camera makes of exact depth: the noise model of the synthetic scans.

Source: Nguyen, Izadi and Lovell, "Modeling Kinect Sensor Noise for Improved 3D Reconstruction and Tracking",
3DIMPVT 2012, for a surface at distance z (metres) whose normal is turned by theta from the ray:

    axial   sigma_z = 0.0012 + 0.0019 (z - 0.4)^2
            [+ 0.0001 / sqrt(z) * theta^2 / (pi/2 - theta)^2 if theta > 60 degrees]
    lateral sigma_L = 0.8 + 0.035 theta / (pi/2 - theta) pixels

Lateral noise moves the pixel that is measured; it shows at depth edges only. Dropouts (value 0) are ours:
nearer than 0.35 m; beyond 4.5 m more and more, all beyond 7 m; seen at less than about 11 degrees; and half
of the pixels next to a jump in depth of more than 6 percent, where the projector is hidden from the camera.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

F32 = NDArray[np.float32]
NEAREST_M, FADING_M, FARTHEST_M = 0.35, 4.5, 7.0
GRAZING_COSINE = 0.2
JUMP = 0.06


def exact_mm(z_m: F32) -> NDArray[np.uint16]:
    """Depth rounded to millimetres; 0 where nothing was hit, and beyond what uint16 holds."""
    mm = np.rint(z_m.astype(np.float64) * 1000)
    return np.where(mm > 65535, 0, mm).astype(np.uint16)


def measured_mm(z_m: F32, cosine: F32, rng: np.random.Generator) -> NDArray[np.uint16]:
    """(H, W) uint16 millimetres as the sensor would give them; `cosine`: between ray and normal."""
    height, width = z_m.shape
    theta = np.arccos(np.clip(cosine, 0.02, 1)).astype(np.float32)
    steep = theta / (np.float32(np.pi / 2) - theta)
    sigma_px = 0.8 + 0.035 * np.minimum(steep, 20)
    rows, columns = np.indices(z_m.shape, dtype=np.float32)
    rows += sigma_px * rng.standard_normal(z_m.shape, np.float32)
    columns += sigma_px * rng.standard_normal(z_m.shape, np.float32)
    at = (
        np.clip(np.rint(rows), 0, height - 1).astype(np.int32),
        np.clip(np.rint(columns), 0, width - 1).astype(np.int32),
    )
    edge = _beside_jump(z_m)
    z = np.where(edge, z_m[at], z_m)  # away from edges a lateral shift only adds to the axial noise
    sigma_m = 0.0012 + 0.0019 * (z - 0.4) ** 2
    sigma_m += np.where(
        theta > np.pi / 3, 0.0001 / np.sqrt(np.maximum(z, 0.1)) * np.minimum(steep, 20) ** 2, 0
    )
    noisy = z + sigma_m.astype(np.float32) * rng.standard_normal(z_m.shape, np.float32)
    chance = rng.random(z_m.shape, np.float32)
    lost = (z < NEAREST_M) | (cosine < GRAZING_COSINE * (0.6 + 0.8 * chance))
    lost |= chance < (z - FADING_M) / (FARTHEST_M - FADING_M)
    lost |= edge & (chance < 0.5)
    return exact_mm(np.where(lost, 0, noisy).astype(np.float32))


def _beside_jump(z_m: F32) -> NDArray[np.bool_]:
    """Pixels with a neighbour (right, left, above, below) at a clearly other depth."""
    edge = np.zeros(z_m.shape, bool)
    for a, b in ((np.s_[:, 1:], np.s_[:, :-1]), (np.s_[1:], np.s_[:-1])):
        jump = np.abs(z_m[a] - z_m[b]) > JUMP * np.minimum(z_m[a], z_m[b])
        edge[a] |= jump
        edge[b] |= jump
    return edge
