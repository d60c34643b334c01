# SPDX-License-Identifier: Apache-2.0
# needs: torch
# needs: lightning
"""PyTorch Lightning with hotloop's optimiser: it is named once, in `configure_optimizers`."""

import logging
import warnings

import torch

import hotloop.torch as ht

warnings.simplefilter("ignore")  # what Lightning imports, and its advice
import lightning  # noqa: E402

logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)


class Regression(lightning.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        layers = [torch.nn.Linear(6, 64), torch.nn.ReLU(), torch.nn.Linear(64, 1)]
        self.network = torch.nn.Sequential(*layers)

    def training_step(self, batch: list[torch.Tensor], index: int) -> torch.Tensor:
        x, y = batch
        return torch.nn.functional.mse_loss(self.network(x), y)

    def configure_optimizers(self) -> dict:
        optimizer = ht.AdamW(self.parameters(), lr=2e-2)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=3e-2, total_steps=320)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


torch.set_num_threads(1)  # small networks gain nothing from more
lightning.seed_everything(0, verbose=False)
X = torch.rand(2048, 6)  # Friedman (1991): five features count, the sixth does not
y = 10 * torch.sin(3.1416 * X[:, 0] * X[:, 1]) + 20 * (X[:, 2] - 0.5) ** 2 + 10 * X[:, 3] + 5 * X[:, 4]
y = ((y - y.mean()) / y.std())[:, None]
rows = torch.utils.data.TensorDataset(X[:1024], y[:1024])
batches = torch.utils.data.DataLoader(rows, batch_size=64, shuffle=True)
trainer = lightning.Trainer(
    max_epochs=20, accelerator="cpu", gradient_clip_val=1.0, logger=False, enable_checkpointing=False,
    enable_progress_bar=False, enable_model_summary=False,
)  # fmt: skip
model = Regression()
trainer.fit(model, batches)
with torch.no_grad():
    error = (model.network(X[1024:]) - y[1024:]).square().mean().item()
print(f"share of the variance unexplained {error:.4f} after {trainer.global_step} steps")
