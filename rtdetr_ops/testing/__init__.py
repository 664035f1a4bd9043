# SPDX-License-Identifier: Apache-2.0
"""Inputs and shapes that the tests and the benchmarks share."""
