# SPDX-License-Identifier: Apache-2.0
"""``python -m rtdetr`` is the command ``rtdetr``."""

from .cli import main

if __name__ == "__main__":
    main()
