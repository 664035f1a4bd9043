# SPDX-License-Identifier: Apache-2.0
"""docs/training.md as a notebook: its texts and programs, cell by cell.

``python tests/rtdetr/training/document.py`` writes docs/training.ipynb.
"""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

DOCS = Path(__file__).parents[3] / "docs"
DOCUMENT, NOTEBOOK = DOCS / "training.md", DOCS / "training.ipynb"

BLOCK = re.compile(r"^```(python|bash)\n(.*?)^```\n", re.MULTILINE | re.DOTALL)


def read_cells(text: str) -> list[tuple[str, str]]:
    """("markdown" or "code", source) of each part; a command of the shell begins with an exclamation mark."""
    cells = []
    end = 0
    for block in BLOCK.finditer(text):
        cells.append(("markdown", text[end : block.start()]))
        language, source = block.groups()
        shell = re.sub("^", "!", source.strip(), flags=re.MULTILINE)
        cells.append(("code", source if language == "python" else shell))
        end = block.end()
    cells.append(("markdown", text[end:]))
    return [(kind, source.strip()) for kind, source in cells if source.strip()]


def make_notebook(text: str) -> dict[str, Any]:
    """In nbformat 4.5."""
    cells: list[dict[str, Any]] = []
    for number, (kind, source) in enumerate(read_cells(text)):
        cell: dict[str, Any] = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}}
        if kind == "code":
            cell |= {"execution_count": None, "outputs": []}
        cells.append({**cell, "source": source.splitlines(keepends=True)})
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    metadata = {"kernelspec": kernel, "language_info": {"name": "python"}}
    return {"cells": cells, "metadata": metadata, "nbformat": 4, "nbformat_minor": 5}


def dump_notebook(text: str) -> str:
    return json.dumps(make_notebook(text), indent=1, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    NOTEBOOK.write_text(dump_notebook(DOCUMENT.read_text(encoding="utf-8")), encoding="utf-8")
