# SPDX-License-Identifier: Apache-2.0
"""``python -m hotloop`` is the command ``hotloop``."""

from __future__ import annotations

from hotloop.cli import main

raise SystemExit(main())
