# SPDX-License-Identifier: Apache-2.0
"""What `make` installs can be had, as wheels, from the public index alone, whatever this machine is set up with."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import pytest
from environments import CONSTRAINTS, ROOT

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

pytestmark = pytest.mark.network

# pip judges markers by the Python it runs on, also under --python-version.
PIP_FOR_PYTHON = """
import sys
from pip._vendor.packaging import markers
version = sys.argv.pop(1)
python = {**markers.default_environment(), "python_version": version, "python_full_version": f"{version}.0"}
markers.default_environment = lambda: python
from pip._internal.cli.main import main
sys.exit(main())
"""

# How to reach the index, as opposed to which index and what else.
TRANSPORT = {"PIP_CERT", "PIP_CLIENT_CERT", "PIP_PROXY"}

RUNNING = f"{sys.version_info.major}.{sys.version_info.minor}"
PYTHONS = ("3.10", "3.11", "3.12", "3.13")


def everything() -> list[str]:
    """What a build needs, the package's dependencies, and those of every extra."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = settings["project"]
    extras = (name for extra in project["optional-dependencies"].values() for name in extra)
    return ["pip", *settings["build-system"]["requires"], *project["dependencies"], *extras]


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment's Python, with the pip that `make` uses, from the public index."""
    folder = tmp_path_factory.mktemp("resolution") / "env"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    python = folder / "bin" / "python"
    (pip,) = (pin for pin in CONSTRAINTS.read_text().splitlines() if pin.startswith("pip=="))
    done = _run_clean(python, *("-m", "pip", "install", "-q", "--retries=1", "--timeout=15", pip))
    if "(from versions: none)" in done.stderr:
        pytest.skip(f"no public index: {done.stderr.strip().splitlines()[-1]}")
    assert done.returncode == 0, done.stderr
    return python


def resolve(
    python: Path, requirements: list[str], constraints: Path, report: Path, version: str = RUNNING
) -> str:
    """Choose versions without installing them, into `report`; return what stands in the way.

    Only metadata is read, and nothing that would have to be built from source is taken.
    """
    words = ("install", "--dry-run", "--quiet", "--ignore-installed", "--report", report)
    only_metadata = ("--use-feature=fast-deps", "--only-binary=:all:")
    other = ("--python-version", version, "--target", report.parent) if version != RUNNING else ()
    done = _run_clean(
        *(python, "-c", PIP_FOR_PYTHON, version, *words, *only_metadata, *other),
        *("-c", constraints, *requirements),
    )
    # Without an answer from the index pip blames the constraints.
    if done.returncode and "connection broken by" in done.stderr:
        pytest.skip(f"the public index went away: {done.stderr.strip().splitlines()[-1]}")
    return done.stderr if done.returncode else ""


def _run_clean(*command: object) -> subprocess.CompletedProcess[str]:
    """Run with pip's own defaults: no configuration files, no variables but those of the transport."""
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PIP_", "PYTHON")) or name in TRANSPORT
    }
    env["PIP_CONFIG_FILE"] = os.devnull
    words = [str(word) for word in command]
    return subprocess.run(words, env=env, text=True, check=False, capture_output=True)


@pytest.mark.parametrize(
    "version",
    [v if v == RUNNING else pytest.param(v, marks=pytest.mark.slow) for v in PYTHONS],
)
def test_everything_resolves_under_the_constraints(
    python: Path, tmp_path: Path, version: str
) -> None:
    report = tmp_path / "report.json"

    assert resolve(python, everything(), CONSTRAINTS, report, version) == ""

    answer: dict[str, Any] = json.loads(report.read_text())
    assert answer["environment"]["python_version"] == version
    files = [item["download_info"]["url"] for item in answer["install"]]
    assert len(files) > len(everything()) / 2
    assert [file for file in files if not file.endswith(".whl")] == []


def test_a_pin_that_another_pin_forbids_is_noticed(python: Path, tmp_path: Path) -> None:
    """The pinned torch asks for one triton and no other."""
    pins = CONSTRAINTS.read_text().splitlines()
    constraints = tmp_path / "constraints.txt"
    others = (pin for pin in pins if not pin.startswith("triton=="))
    constraints.write_text("\n".join((*others, "triton==3.9.0")))

    problem = resolve(python, ["torch", "triton"], constraints, tmp_path / "report.json")

    assert "ResolutionImpossible" in problem


def test_a_torch_without_cuda_is_preferred_where_an_index_has_it(
    python: Path, tmp_path: Path
) -> None:
    """The pin admits a local version such as 2.13.0+cpu, and `make TORCH_INDEX=...` relies on pip ranking it higher."""
    (pin,) = (pin for pin in CONSTRAINTS.read_text().splitlines() if pin.startswith("torch=="))
    version = f"{pin.removeprefix('torch==')}+cpu"
    index = tmp_path / "index" / "torch"
    index.mkdir(parents=True)
    with zipfile.ZipFile(index / f"torch-{version}-py3-none-any.whl", "w") as wheel:
        info = f"torch-{version}.dist-info"
        wheel.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: torch\nVersion: {version}\n"
        )
        wheel.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nTag: py3-none-any\n")
        wheel.writestr(f"{info}/RECORD", "")
    (index / "index.html").write_text(
        f'<a href="torch-{version}-py3-none-any.whl">torch-{version}-py3-none-any.whl</a>'
    )
    report = tmp_path / "report.json"

    assert (
        resolve(
            python, [f"--extra-index-url={index.parent.as_uri()}", "torch"], CONSTRAINTS, report
        )
        == ""
    )

    answer = json.loads(report.read_text())
    assert [item["metadata"]["version"] for item in answer["install"]] == [version]
