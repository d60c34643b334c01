# SPDX-License-Identifier: Apache-2.0
# needs: torch
"""A plain torch loop with hotloop's optimiser and fused functions: AdamW, linear_gelu, layer_norm, cross_entropy."""

import torch

import hotloop.torch as ht


class Block(torch.nn.Module):
    """gelu(x W^T + b), then layer norm: two passes over memory less, and the state dict is torch's own."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.linear = torch.nn.Linear(n_in, n_out)
        self.norm = torch.nn.LayerNorm(n_out)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        h = ht.linear_gelu(x, self.linear.weight, self.linear.bias)
        return ht.layer_norm(h, h.shape[-1], self.norm.weight, self.norm.bias)


def spirals(rows: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three intertwined spirals in the plane, and which one each point is of."""
    torch.manual_seed(seed)
    label = torch.randint(3, (rows,))
    radius = torch.rand(rows)
    angle = 4 * radius + 2.1 * label + 0.15 * torch.randn(rows)
    return torch.stack([radius * angle.cos(), radius * angle.sin()], 1), label


torch.set_num_threads(1)  # small networks gain nothing from more
X, y = spirals(4000, seed=0)
X_test, y_test = spirals(2000, seed=1)
torch.manual_seed(2)
model = torch.nn.Sequential(Block(2, 64), Block(64, 64), torch.nn.Linear(64, 3))
optimizer = ht.AdamW(model.parameters(), lr=5e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=8)
for _ in range(8):
    for rows in torch.randperm(len(X)).split(64):
        optimizer.zero_grad()
        ht.cross_entropy(model(X[rows]), y[rows], label_smoothing=0.05).backward()
        optimizer.step()
    schedule.step()

with torch.no_grad():
    accuracy = (model(X_test).argmax(1) == y_test).float().mean().item()
print(f"test accuracy {accuracy:.3f}")

# The state goes on in torch's own optimiser, and would come back.
torchs = torch.optim.AdamW(model.parameters())
torchs.load_state_dict(optimizer.state_dict())
print(f"torch goes on after {int(torchs.state_dict()['state'][0]['step'])} steps")
