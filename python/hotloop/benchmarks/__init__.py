# SPDX-License-Identifier: Apache-2.0
"""What ``hotloop bench`` runs: every kernel, and whole training runs beside other libraries and the floor.

Part of the package, so that anybody can measure their own machine; nothing of it is imported unless asked
for. The same code stands behind `bench/` in the repository, which adds the dated results.
"""

from __future__ import annotations
