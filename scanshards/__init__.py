"""RGB-D scans as verified WebDataset shards for 3D multimodal language models.

import scanshards

for clip in scanshards.open("shards/scannet-*.tar"):
    clip.frames, clip.coords, clip.texts
"""

__version__ = "0.1.0"

from scanshards.clip import Clip
from scanshards.errors import CorruptSample
from scanshards.mixture import mix
from scanshards.read import ClipReader, open
from scanshards.remote import RemoteError, RemoteOptions
from scanshards.stream import ClipStream, stream

__all__ = [
    "Clip",
    "ClipReader",
    "ClipStream",
    "CorruptSample",
    "RemoteError",
    "RemoteOptions",
    "__version__",
    "mix",
    "open",
    "stream",
]
