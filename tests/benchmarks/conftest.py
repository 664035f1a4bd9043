# SPDX-License-Identifier: Apache-2.0
"""The benchmark programs are scripts beside each other: make them importable by name."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "benchmarks"))
