# SPDX-License-Identifier: Apache-2.0
"""Sound files to log-mel pictures to a network: soundfile reads, NumPy does the rest.

The sounds are made here: tones, rising and falling chirps of any pitch, in noise, saved as WAV and FLAC.
"""

# needs: soundfile
from __future__ import annotations

import tempfile
from pathlib import Path

import numpy as np
import soundfile

import hotloop as hl

RATE, WINDOW, HOP, MELS = 8000, 256, 512, 20


def sound(kind: int, random: np.random.Generator) -> np.ndarray:
    """Half a second: kind 0 keeps its pitch, 1 rises by an octave, 2 falls by one."""
    octaves = (0, 1, -1)[kind] * np.linspace(0, 1, RATE // 2)
    phase = 2 * np.pi * np.cumsum(random.uniform(500, 1500) * 2.0**octaves) / RATE
    return 0.3 * np.sin(phase) + random.normal(0, random.uniform(0.02, 0.1), len(phase))


def mel_filters() -> np.ndarray:
    """Triangles (WINDOW // 2 + 1, MELS), even on the scale mel = 2595 log10(1 + Hz / 700) (O'Shaughnessy 1987)."""
    top = 2595 * np.log10(1 + RATE / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, MELS + 2) / 2595) - 1)  # Hz
    hertz, width = np.fft.rfftfreq(WINDOW, 1 / RATE)[:, None], np.diff(edges)
    return np.clip(np.minimum((hertz - edges[:-2]) / width[:-1], (edges[2:] - hertz) / width[1:]), 0, None)


def log_mel(wave: np.ndarray) -> np.ndarray:
    """(samples,) -> (frames, MELS) float32: the logarithm of the energy in each band of each Hann window."""
    frames = np.lib.stride_tricks.sliding_window_view(wave, WINDOW)[::HOP] * np.hanning(WINDOW)
    return np.log(np.abs(np.fft.rfft(frames)) ** 2 @ mel_filters() + 1e-4).astype(np.float32)


def main() -> None:
    random, labels = np.random.Generator(np.random.Philox(0)), np.arange(600) % 3
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{i:03d}.{'wav' if i % 2 else 'flac'}") for i in range(len(labels))]
        for path, label in zip(paths, labels, strict=True):
            soundfile.write(path, sound(label, random), RATE)
        X = np.stack([log_mel(soundfile.read(path)[0]) for path in paths])
    data, nn, size = hl.split(X, labels), hl.nn, X[0].size
    model = nn.Sequential(
        nn.Flatten(), nn.LayerNorm(size), nn.Linear(size, 64), nn.GELU(), nn.Dropout(0.2), nn.Linear(64, 3)
    )
    trainer = hl.Trainer(model, loss="cross_entropy", optimizer=hl.optim.AdamW(2e-3))
    trainer.fit(*data.train, validation=data.validation, epochs=30, batch_size=32)
    print(f"{X.dtype} {X.shape}; test accuracy {trainer.evaluate(data.test)['accuracy']:.3f}")


if __name__ == "__main__":
    main()
