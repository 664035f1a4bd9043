# SPDX-License-Identifier: Apache-2.0
"""The README as the page of a package index shows it."""

from __future__ import annotations

import re
from pathlib import Path

_LINK = re.compile(r"!?\[(?P<text>[^\]]*)\]\((?!https?://|#)(?P<path>[^)#]*)[^)]*\)")


def read_description(readme: Path) -> str:
    """Return the README; in place of links to its neighbors, which such a page does not have, their names."""
    return _LINK.sub(r"\g<text> (\g<path>)", readme.read_text(encoding="utf-8"))
