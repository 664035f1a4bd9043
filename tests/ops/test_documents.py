# SPDX-License-Identifier: Apache-2.0
"""What the operator's README promises of the files: paths that exist, and every environment variable."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "rtdetr_ops"
README = PACKAGE / "ms_deform_attn" / "README.md"
FOLDERS = (ROOT, README.parent, ROOT / "csrc" / "ms_deform_attn")
PATH = re.compile(r"[\w./-]+(?:\.(?:py|h|cpp|cuh|cu|md)|/)")

pytestmark = pytest.mark.skipif(
    not (README.is_file() and (ROOT / "csrc").is_dir()),
    reason="the sources are not beside these tests",
)


def variables_read(path: Path) -> set[str]:
    """Names given to os.environ in a file."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    calls = [node for node in ast.walk(tree) if isinstance(node, (ast.Call, ast.Subscript))]
    return {
        name.value
        for call in calls
        if re.match(r"os\.(environ|getenv)", ast.unparse(call))
        for name in ast.walk(call)
        if isinstance(name, ast.Constant) and str(name.value).isupper()
    }


def test_environment_is_read_in_one_file() -> None:
    readers = [path for path in PACKAGE.rglob("*.py") if variables_read(path)]
    assert readers == [PACKAGE / "environment.py"]


def test_table_of_environment_variables_is_complete() -> None:
    names = re.findall(r"^\| `([A-Z_]+)` \|", README.read_text(encoding="utf-8"), re.MULTILINE)
    assert sorted(names) == sorted(variables_read(PACKAGE / "environment.py"))


def test_files_named_in_the_readme_exist() -> None:
    quoted = re.findall(r"`([^`\n]+)`", README.read_text(encoding="utf-8"))
    paths = [text for text in quoted if PATH.fullmatch(text)]
    assert len(paths) > 10
    missing = [path for path in paths if not any((folder / path).exists() for folder in FOLDERS)]
    assert missing == []
