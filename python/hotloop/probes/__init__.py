# SPDX-License-Identifier: Apache-2.0
"""What is tried on a copy of a model before a run: a learning rate, one batch, two steps of everything.

None of it touches the model: each works on a replica, which is dropped afterwards, whatever happens.
"""

from __future__ import annotations
