# SPDX-License-Identifier: Apache-2.0
# needs: torch
"""REINFORCE in a plain torch loop, with the policy a hotloop network: `hotloop.torch.Module`."""

import numpy as np
import torch

import hotloop as hl
from hotloop.torch import Module


class Reach:
    """Points on a line, pushed left, not at all or right; each step costs the distance from the goal. All at
    once, as rows: a state is (position, speed, goal), float32 (rows, 3)."""

    def __init__(self, rows: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.rows = rows

    def reset(self) -> torch.Tensor:
        self.position, self.goal = self.random.uniform(-1, 1, (2, self.rows))
        self.speed = np.zeros(self.rows)
        return self.state()

    def state(self) -> torch.Tensor:
        return torch.from_numpy(np.stack([self.position, self.speed, self.goal], 1).astype(np.float32))

    def step(self, action: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        self.speed = 0.7 * self.speed + 0.15 * (action.numpy() - 1)
        self.position = self.position + self.speed
        return self.state(), torch.from_numpy(-np.abs(self.position - self.goal))


def main() -> None:
    torch.manual_seed(0)
    torch.set_num_threads(1)  # batches this small gain nothing from torch's threads
    policy = Module(hl.nn.Sequential(hl.nn.Linear(3, 64), hl.nn.Tanh(), hl.nn.Linear(64, 3)))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    world, returns = Reach(rows=64, seed=0), []
    for _ in range(150):
        state, log_probs, rewards = world.reset(), [], []
        for _ in range(20):  # 20 forward passes wait for their gradients
            choice = torch.distributions.Categorical(logits=policy(state))
            action = choice.sample()
            log_probs.append(choice.log_prob(action))
            state, reward = world.step(action)
            rewards.append(reward)
        ahead = torch.stack(rewards).flip(0).cumsum(0).flip(0)  # the reward from each step on
        advantage = (ahead - ahead.mean(1, keepdim=True)) / ahead.std()
        optimizer.zero_grad()
        (-(torch.stack(log_probs) * advantage).mean()).backward()
        optimizer.step()
        returns.append(float(ahead[0].mean()))
    print(f"mean return of an episode: first {np.mean(returns[:5]):.2f}, last {np.mean(returns[-5:]):.2f}")


if __name__ == "__main__":
    main()
