# SPDX-License-Identifier: Apache-2.0
"""What users hand in, made into checked data: frames in order and preprocessed, arrays, streams."""
