# SPDX-License-Identifier: Apache-2.0
"""One run of training: checked and compiled (`setup`, `prepare`), run (`loop`), and what it leaves behind.

A `job` is all that the loop needs; `record` and `buffers` are what beside the model's memory says where a run
stands; `evidence`, `witness`, `about` and `context` are for those who ask about it afterwards.
"""
