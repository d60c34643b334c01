# SPDX-License-Identifier: Apache-2.0
"""hotloop inside torch."""

from __future__ import annotations

from hotloop.torch.functional import cross_entropy, dropout, layer_norm, linear_gelu
from hotloop.torch.optim import SGD, Adam, AdamW
