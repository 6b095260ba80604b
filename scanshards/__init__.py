"""RGB-D scans as verified WebDataset shards for 3D multimodal language models.

import scanshards

for clip in scanshards.open("shards/scannet-*.tar"):
    clip.frames, clip.coords, clip.texts
"""

__version__ = "0.1.0"

from scanshards.clip import Clip
from scanshards.errors import CorruptSample
from scanshards.read import open
from scanshards.stream import stream

__all__ = ["Clip", "CorruptSample", "open", "stream"]
