# SPDX-License-Identifier: Apache-2.0
"""From a CSV file with missing values and text to predictions: read, check, split, prepare, train, predict.

The penguins of data/penguins.csv; data/README.md says where they come from.
"""

# needs: pyarrow
from __future__ import annotations

from pathlib import Path

import hotloop as hl
from hotloop.nn.tabular import tabular_model

FILE = Path(__file__).parent / "data" / "penguins.csv"


def main() -> None:
    table = hl.data.read(FILE)
    print(table.schema, end="\n\n")
    print(hl.check(table, "species"), end="\n\n")
    data = hl.split(table, "species", seed=0)  # 70/15/15, evenly by species

    # medians, scales and categories are those of the training rows alone
    prepare = hl.data.Preprocessor.fit(*data.train, target_name="species")
    x, y = prepare.transform(data.train.X), prepare.transform_target(data.train.y)
    x_val, y_val = prepare.transform(data.validation.X), prepare.transform_target(data.validation.y)

    trainer = hl.Trainer(
        tabular_model(prepare, hidden=(32,), dropout=0.1),
        loss="cross_entropy",
        optimizer=hl.optim.AdamW(3e-3),
        early_stopping=hl.EarlyStopping(patience=20),
    )
    trainer.preprocessor, trainer.split = prepare, data.info  # both travel in the model's file
    run = trainer.fit(x, y, validation=(x_val, y_val), epochs=200)
    print(f"ended by {run.stop_reason} after {run.epochs} epochs, best epoch {run.best_epoch}")

    X_test, y_test = data.test.open("final report")
    labels = trainer.predict_label(prepare.transform(X_test))
    species = [prepare.class_names[label] for label in labels]
    right = sum(guess == truth for guess, truth in zip(species, y_test, strict=True)) / len(y_test)
    print(f"first three: {', '.join(species[:3])}; test accuracy {right:.3f}")


if __name__ == "__main__":
    main()
