# SPDX-License-Identifier: Apache-2.0
"""Text to ids to an embedding: is a line Python or prose? Byte trigrams, hashed, and the mean of their vectors.

The text is what every Python brings along: the code and the docstrings of its standard library.
"""

from __future__ import annotations

import ast
import inspect
import zlib

import numpy as np

import hotloop as hl

MODULES = "argparse ast csv datetime fractions inspect logging pathlib random statistics textwrap typing"
BUCKETS, LENGTH = 4096, 48


def lines_of(module: str) -> tuple[set[str], set[str]]:
    """Lines of code and lines of docstrings of a module, 20 letters or more."""
    source, prose = inspect.getsource(__import__(module)), set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef)):
            prose |= {line.strip() for line in (ast.get_docstring(node) or "").splitlines()}
    code = {line.strip() for line in source.splitlines() if "#" not in line} - prose
    return {line for line in code if len(line) >= 20}, {line for line in prose if len(line) >= 20}


def trigrams(text: str) -> np.ndarray:
    """The first LENGTH byte trigrams of a line as ids (LENGTH,) from 1 on; 0 fills up."""
    raw = text.encode()
    found = [1 + zlib.crc32(raw[i : i + 3]) % (BUCKETS - 1) for i in range(min(LENGTH, len(raw) - 2))]
    return np.array(found + [0] * (LENGTH - len(found)), np.int32)


class MeanOfTrigrams(hl.nn.Module):
    def __init__(self) -> None:
        self.embedding, self.head = hl.nn.Embedding(BUCKETS, 16), hl.nn.Linear(16, 2)

    def forward(self, ids):  # (n, LENGTH) -> vectors (n, LENGTH, 16) -> their mean (n, 16) -> logits (n, 2)
        return self.head(self.embedding(ids).mean(1))


def main() -> None:
    lines = [pair for module in MODULES.split() for pair in enumerate(lines_of(module))]
    texts = [(text, kind) for kind, found in lines for text in sorted(found)]
    X, y = np.stack([trigrams(text) for text, _ in texts]), np.array([kind for _, kind in texts])
    data = hl.split(X, y, duplicates="together")  # lines that begin alike may be equal
    trainer = hl.Trainer(MeanOfTrigrams(), loss="cross_entropy", optimizer=hl.optim.AdamW(5e-3))
    trainer.fit(*data.train, validation=data.validation, epochs=6, batch_size=32)
    print(f"{X.dtype} {X.shape}; test accuracy {trainer.evaluate(data.test)['accuracy']:.3f}")
    probe = ("return self._value if found else None", "The value that was found is returned.")
    print("prose?", trainer.predict_proba(np.stack([trigrams(line) for line in probe]))[:, 1].tolist())


if __name__ == "__main__":
    main()
