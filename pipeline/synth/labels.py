"""ScanNet's label table for the classes of the synthetic rooms: `scannetv2-labels.combined.tsv`.

The 17 columns are ScanNet's; raw category, category and nyu40 id are meant to be those of its own table. `id`
is our row number and `count` is 1: nobody reads them. Columns that serve only other data sets (WordNet,
ShapeNet, Matterport) are empty, as in many rows of the original.
"""

from __future__ import annotations

NYU40_CLASSES = (
    "wall floor cabinet bed chair sofa table door window bookshelf picture counter blinds desk shelves "
    "curtain dresser pillow mirror floor_mat clothes ceiling books refridgerator television paper towel "
    "shower_curtain box whiteboard person night_stand toilet sink lamp bathtub bag otherstructure "
    "otherfurniture otherprop"
).split()
"""Names of nyu40 ids 1 to 40; `_` stands for a blank."""

EIGEN13_CLASSES = "Bed Books Ceiling Chair Floor Furniture Objects Picture Sofa Table TV Wall Window".split()
EIGEN13_FROM_NYU40 = (
    (12, 5, 6, 1, 4, 9, 10, 12, 13, 6, 8, 6, 13, 10, 6, 13, 6, 7, 7, 5)
    + (7, 3, 2, 6, 11, 7, 7, 7, 7, 7, 7, 6, 7, 7, 7, 7, 7, 7, 6, 7)
)  # fmt: skip
"""The usual grouping of nyu40 ids 1 to 40 into 13 classes (Couprie et al., 2013)."""

COLUMNS = (
    "id", "raw_category", "category", "count", "nyu40id", "eigen13id", "nyuClass", "nyu40class",
    "eigen13class", "ModelNet40", "ModelNet10", "ShapeNetCore55", "synsetoffset", "wnsynsetid", "wnsynsetkey",
    "mpcat40", "mpcat40index",
)  # fmt: skip

_ROWS: tuple[tuple[str, str, int], ...] = (
    ("wall", "wall", 1),
    ("floor", "floor", 2),
    ("ceiling", "ceiling", 22),
    ("door", "door", 8),
    ("window", "window", 9),
    ("chair", "chair", 5),
    ("office chair", "chair", 5),
    ("armchair", "chair", 5),
    ("couch", "couch", 6),
    ("stool", "stool", 40),
    ("ottoman", "ottoman", 39),
    ("bench", "bench", 39),
    ("bed", "bed", 4),
    ("pillow", "pillow", 18),
    ("table", "table", 7),
    ("coffee table", "coffee table", 7),
    ("desk", "desk", 14),
    ("nightstand", "nightstand", 32),
    ("dresser", "dresser", 17),
    ("cabinet", "cabinet", 3),
    ("file cabinet", "cabinet", 3),
    ("bookshelf", "bookshelf", 10),
    ("tv stand", "tv stand", 39),
    ("coat rack", "coat rack", 40),
    ("lamp", "lamp", 35),
    ("monitor", "monitor", 40),
    ("tv", "tv", 25),
    ("keyboard", "keyboard", 40),
    ("laptop", "laptop", 40),
    ("trash can", "trash can", 39),
    ("picture", "picture", 11),
    ("mirror", "mirror", 19),
    ("whiteboard", "whiteboard", 30),
    ("clock", "clock", 40),
    ("rug", "rug", 20),
    ("mat", "mat", 20),
    ("plant", "plant", 40),
    ("box", "box", 29),
    ("books", "book", 23),
    ("vase", "vase", 40),
    ("cup", "cup", 40),
    ("bowl", "bowl", 40),
    ("backpack", "backpack", 40),
    ("curtain", "curtain", 16),
    ("radiator", "radiator", 39),
    ("ceiling light", "light", 38),
    ("kitchen counter", "counter", 12),
    ("kitchen cabinet", "cabinet", 3),
    ("sink", "sink", 34),
    ("stove", "stove", 38),
    ("refrigerator", "refrigerator", 24),
    ("microwave", "microwave", 40),
    ("toilet", "toilet", 33),
    ("bathtub", "bathtub", 36),
    ("towel", "towel", 27),
)
"""raw category, category, nyu40 id"""

NYU40: dict[str, int] = {raw: nyu40_id for raw, _, nyu40_id in _ROWS}
"""raw category -> nyu40 id."""


def label_table() -> str:
    """The table as tab-separated text, one header line, every line ended by a newline."""
    lines = ["\t".join(COLUMNS)]
    for number, (raw, category, nyu40_id) in enumerate(_ROWS, start=1):
        nyu40 = NYU40_CLASSES[nyu40_id - 1].replace("_", " ")
        eigen13_id = EIGEN13_FROM_NYU40[nyu40_id - 1]
        known = (number, raw, category, 1, nyu40_id, eigen13_id, raw, nyu40, EIGEN13_CLASSES[eigen13_id - 1])
        lines.append("\t".join([*map(str, known), *[""] * (len(COLUMNS) - len(known))]))
    return "\n".join(lines) + "\n"
