# SPDX-License-Identifier: Apache-2.0
"""What holds native memory and runs on it: one model's numbers and programs, threads, devices.

A `session` has the `memory` of one module and an `executable` for each plan, on a CPU or on a GPU.
"""
