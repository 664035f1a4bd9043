# SPDX-License-Identifier: Apache-2.0
"""Paths, URLs, arrays and videos as RGB images."""
