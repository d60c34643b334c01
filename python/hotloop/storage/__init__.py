# SPDX-License-Identifier: Apache-2.0
"""What is written to disk: safetensors files, trained models, and the state of runs."""
