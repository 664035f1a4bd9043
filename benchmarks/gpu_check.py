# SPDX-License-Identifier: Apache-2.0
"""``python benchmarks/gpu_check.py``: everything there is to find out on a machine with a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parent.parent / "build_tools"))  # finds nvcc

from gpu.check import main

if __name__ == "__main__":
    sys.exit(main())
