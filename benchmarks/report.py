# SPDX-License-Identifier: Apache-2.0
"""Turn result files into tables and plots; without a path, the newest file of every machine."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from core.plot import plot
from core.records import load
from core.tables import full_report, readme_block

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results"
BEGIN, END = "<!-- benchmarks: begin -->", "<!-- benchmarks: end -->"


def main() -> None:
    """Beside each JSON: a Markdown file and a PNG."""
    options = _options()
    paths = options.paths or newest_results(RESULTS)
    if not paths:
        raise SystemExit(f"no results in {RESULTS}; run `python benchmarks/run.py` first")
    for path in paths:
        run = load(path)
        text = full_report(run)
        path.with_suffix(".md").write_text(text, encoding="utf-8")
        plot(run, path.with_suffix(".png"))
        print(text)
    if options.readme:
        rewrite_readme(ROOT / "README.md", of_clean_commits(paths))


def newest_results(folder: Path) -> list[Path]:
    """The newest file of every machine; when two are of one day, the one written last."""
    machines = sorted(path for path in folder.glob("*") if path.is_dir())
    newest = [
        max(
            machine.glob("*.json"),
            key=lambda path: (path.name[:10], path.stat().st_mtime),
            default=None,
        )
        for machine in machines
    ]
    return [path for path in newest if path is not None]


def of_clean_commits(paths: Sequence[Path]) -> list[Path]:
    """Those that anybody can measure again: the commit in the file is all that was measured.

    Raises:
        SystemExit: none is.
    """
    clean = [path for path in paths if not load(path).machine["modified"]]
    if not clean:
        raise SystemExit("README.md: expected results of a commit without uncommitted changes")
    return clean


def rewrite_readme(readme: Path, sources: Sequence[Path]) -> None:
    """Replace what stands between the two markers by the tables of ``sources``.

    Raises:
        ValueError: the markers are not there.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"{readme}: expected the lines {BEGIN} and {END}")
    blocks = "\n\n".join(readme_block(load(source), _path_from_root(source)) for source in sources)
    readme.write_text(f"{before}{BEGIN}\n{blocks}\n{END}{after}", encoding="utf-8")


def _path_from_root(source: Path) -> str:
    path = source.resolve()
    return path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, help="files that run.py wrote")
    parser.add_argument(
        "--readme", action="store_true", help="also rewrite the tables in README.md"
    )
    return parser.parse_args()


if __name__ == "__main__":
    main()
