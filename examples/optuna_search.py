# SPDX-License-Identifier: Apache-2.0
"""A search by Optuna over our classifier: it is shown each epoch's score, and ends hopeless trials early."""

# needs: optuna
import optuna
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import StandardScaler

import hotloop as hl

EPOCHS = 12
X, y = load_digits(return_X_y=True)
X = StandardScaler().fit_transform(X)
train_X, test_X, train_y, test_y = train_test_split(X, y, test_size=0.25, stratify=y, random_state=0)
fit_X, val_X, fit_y, val_y = train_test_split(
    train_X, train_y, test_size=0.25, stratify=train_y, random_state=0
)


def network(parameters: dict) -> hl.MLPClassifier:
    rate, drop = parameters["lr"], parameters["dropout"]
    widths = (parameters["width"],)
    return hl.MLPClassifier(widths, solver="adamw", learning_rate_init=rate, dropout=drop, random_state=0)


def objective(trial: optuna.Trial) -> float:
    parameters = {
        "width": trial.suggest_categorical("width", [16, 64, 128]),
        "lr": trial.suggest_float("lr", 1e-5, 1e-1, log=True),
        "dropout": trial.suggest_float("dropout", 0.0, 0.4),
    }
    model = network(parameters)
    score = 0.0
    for epoch in range(EPOCHS):
        model.partial_fit(fit_X, fit_y, classes=range(10))  # one epoch; nothing is compiled anew
        score = model.score(val_X, val_y)
        trial.report(score, epoch)
        if trial.should_prune():
            raise optuna.TrialPruned
    return score


optuna.logging.set_verbosity(optuna.logging.WARNING)
study = optuna.create_study(
    direction="maximize",
    sampler=optuna.samplers.TPESampler(seed=0),
    pruner=optuna.pruners.MedianPruner(n_startup_trials=4),
)
study.optimize(objective, n_trials=16)
states = [trial.state for trial in study.trials]
pruned = states.count(optuna.trial.TrialState.PRUNED)
best = network(study.best_params)
for _ in range(2 * EPOCHS):
    best.partial_fit(train_X, train_y, classes=range(10))
print(f"{len(states)} trials, {pruned} ended early; best {study.best_params}")
print(f"test accuracy {best.score(test_X, test_y):.3f}")
