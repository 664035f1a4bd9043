# SPDX-License-Identifier: Apache-2.0
"""Triton's interpreter as the tests run it: bfloat16 repaired, and faster."""
