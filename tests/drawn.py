"""Where the real images and weights are, and images that tests draw instead."""

import os
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
FIXTURES = Path(os.environ.get("VTRAY_FIXTURES", ROOT.parent / "shared" / "fixtures"))


def draw_image(seed, height=48, width=64):
    """A smooth colourful image, uint8 (H, W, 3)."""
    rng = np.random.default_rng(seed)
    small = rng.integers(0, 256, (4, 5, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))
