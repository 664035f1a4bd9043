# SPDX-License-Identifier: Apache-2.0
"""What every benchmark shares: cases, contenders, devices, checks, result files and tables."""
