# SPDX-License-Identifier: Apache-2.0
"""The benchmark programs are scripts beside each other: make them importable by name.

So are the build tools, one of which finds nvcc for the check on a GPU.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
sys.path[:0] = [str(ROOT / "benchmarks"), str(ROOT / "build_tools")]
