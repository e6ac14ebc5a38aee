#!/usr/bin/env python3
"""Writes the JPEGs beside it, of kinds that the tests' own encoder does not write. Needs Pillow 13 and NumPy."""

from pathlib import Path

import numpy as np
from PIL import Image

WIDTH, HEIGHT = 149, 101
KINDS = {
    "progressive": {"progressive": True},
    "progressive_restarts": {"progressive": True, "restart_marker_rows": 1, "subsampling": 1},
    "restarts": {"restart_marker_blocks": 3, "subsampling": 2},
    "own_tables": {"optimize": True, "subsampling": 0},
}

y, x = np.mgrid[:HEIGHT, :WIDTH]
bumps = 40 * np.sin(x / 9) * np.cos(y / 7)
noise = np.random.default_rng(5).normal(0, 6, (HEIGHT, WIDTH))
planes = [30 + x + bumps + noise, 40 + 1.5 * y - bumps + noise, 128 + bumps + noise]
picture = Image.fromarray(np.stack(planes, axis=-1).clip(0, 255).astype(np.uint8))
for name, options in KINDS.items():
    picture.save(Path(__file__).with_name(f"{name}.jpg"), quality=75, **options)
picture.convert("L").save(Path(__file__).with_name("grey.jpg"), quality=75, progressive=True)
