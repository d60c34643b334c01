# SPDX-License-Identifier: Apache-2.0
"""Image files to arrays to a network: Pillow opens, scales and turns grey; uint8 goes in as it is.

The pictures are drawn here: discs, squares and triangles of any size, turn and brightness, as PNG and JPEG.
"""

# needs: PIL
from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import hotloop as hl

SIDE, CORNERS = 16, (0, 4, 3)  # of a disc, a square, a triangle


def draw(path: Path, corners: int, random: np.random.Generator) -> None:
    """A filled shape on a noisy ground, larger than the network will see it."""
    picture = Image.fromarray(random.integers(0, 90, (96, 96), dtype=np.uint8))
    x, y, radius = (random.uniform((44, 44, 22), (52, 52, 40))).tolist()
    pen, grey = ImageDraw.Draw(picture), int(random.integers(120, 255))
    if corners:
        pen.regular_polygon((x, y, radius), corners, random.uniform(0, 360), fill=grey)
    else:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=grey)
    picture.save(path)


def load(path: Path) -> np.ndarray:
    """An image file of any size and mode as (SIDE, SIDE) uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("L").resize((SIDE, SIDE), Image.Resampling.BILINEAR))


def main() -> None:
    random, labels = np.random.Generator(np.random.Philox(0)), np.arange(1200) % 3
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i:04d}.{'png' if i % 2 else 'jpg'}") for i in range(len(labels))]
        for path, label in zip(paths, labels, strict=True):
            draw(path, CORNERS[label], random)
        data = hl.split(np.stack([load(path) for path in paths]), labels)

    nn, size = hl.nn, SIDE * SIDE
    model = nn.Sequential(  # the norm takes brightness and contrast out of each picture
        nn.Flatten(), nn.LayerNorm(size), nn.Linear(size, 128), nn.GELU(), nn.Dropout(0.2), nn.Linear(128, 3)
    )
    trainer = hl.Trainer(model, loss="cross_entropy", optimizer=hl.optim.AdamW(2e-3), schedule="cosine")
    trainer.fit(*data.train, validation=data.validation, epochs=30, batch_size=32)
    print(
        f"{data.train.X.dtype} {data.train.X.shape}; test accuracy {trainer.evaluate(data.test)['accuracy']:.3f}"
    )


if __name__ == "__main__":
    main()
