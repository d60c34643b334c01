# SPDX-License-Identifier: Apache-2.0
"""Data on its way in: the border, splits, preprocessing, tables. Import the modules themselves."""
