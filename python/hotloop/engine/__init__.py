# SPDX-License-Identifier: Apache-2.0
"""Passes over data: training, evaluation and prediction, by the kind of data and of loss.

`native` runs whole epochs over arrays in one native call; `blocks` and `streams` feed data that come in
pieces, `callable` a loss that is a Python function; `scored` adds scikit-learn's scores to any of them.
"""
