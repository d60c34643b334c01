# SPDX-License-Identifier: Apache-2.0
# needs: torch
# needs: skorch
# needs: sklearn
"""skorch with hotloop's optimiser: a class and its settings, which a grid search may vary as any other."""

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import GridSearchCV, train_test_split
from skorch import NeuralNetClassifier

import hotloop.torch as ht

digits = load_digits()
X, y = (digits.data / 16).astype("float32"), digits.target.astype("int64")
X, X_test, y, y_test = train_test_split(X, y, test_size=0.3, random_state=0, stratify=y)


class Network(torch.nn.Sequential):
    def __init__(self, width: int = 64) -> None:
        super().__init__(torch.nn.Linear(64, width), torch.nn.ReLU(), torch.nn.Linear(width, 10))


torch.set_num_threads(1)  # small networks gain nothing from more
torch.manual_seed(0)
net = NeuralNetClassifier(
    Network, criterion=torch.nn.CrossEntropyLoss, optimizer=ht.AdamW, lr=5e-3, optimizer__weight_decay=0.01,
    max_epochs=10, batch_size=32, train_split=None, verbose=0,
)  # fmt: skip
search = GridSearchCV(net, {"lr": [3e-5, 5e-3]}, cv=2, scoring="accuracy")
search.fit(X, y)
print(f"best learning rate {search.best_params_['lr']:g}")
print(f"test accuracy {search.score(X_test, y_test):.3f}")
