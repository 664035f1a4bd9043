# SPDX-License-Identifier: Apache-2.0
"""Every front end builds against the torch of the user's shell, and asks for a second one only where there is none.

torch and the compiler are stand-ins. The builds see no index, so that one that asks for a torch fails.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from environments import CONSTRAINTS, ROOT, fake_compiler, fake_torch, run

sys.path.insert(0, str(ROOT / "build_tools"))

from needs import NEEDS, requirement

pytestmark = [pytest.mark.slow, pytest.mark.network]

UV = shutil.which("uv", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")

# What a user's shell may have, and this one must not.
FOREIGN = ("VIRTUAL_ENV", "CONDA_PREFIX", "PYTHONPATH", "RTDETR_OPS_TORCH", "RTDETR_OPS_CUDA")


@dataclass(frozen=True)
class Shell:
    """What a user has started a front end from."""

    bin: Path  # has the first python of PATH
    compiler: Path
    folder: Path
    variables: dict[str, object] = field(default_factory=dict)

    def start(self, *command: object, **variables: object) -> str:
        """Run a front end; return what it printed."""
        environ = {"PATH": f"{self.bin}:/usr/bin:/bin", "CXX": self.compiler}
        environ |= self.variables | variables
        words = [f"{name}={value}" for name, value in environ.items()]
        unset = [f"--unset={name}" for name in FOREIGN]
        return run("env", *unset, *words, *command, cwd=self.folder)

    def torch_seen(self) -> set[str]:
        """Return the folders that the compiler was told to find torch in."""
        words = self._commands().split()
        folders = (
            word.removeprefix("-isystem") for word in words if word.endswith("/torch/include")
        )
        return {folder.removesuffix("/include") for folder in folders}

    def compilations(self) -> int:
        """Count what was compiled for the library."""
        return self._commands().count(" csrc/")

    def _commands(self) -> str:
        return self.compiler.with_name("c++.log").read_text()


@pytest.fixture(scope="module")
def needs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of wheels with all that a build needs but torch."""
    folder = tmp_path_factory.mktemp("needs")
    words = ("pip", "download", "-q", "-d", folder, "-c", CONSTRAINTS)
    run(sys.executable, "-m", *words, *map(requirement, NEEDS))
    return folder


@pytest.fixture
def shell(tmp_path: Path, needs: Path) -> Shell:
    """A shell with a Python that has no torch, and no index in reach."""
    compiler = fake_compiler(tmp_path / "c++")
    here = tmp_path / "here"
    here.mkdir()
    python = make_environment(tmp_path / "bare")
    closed = {"PIP_NO_INDEX": 1, "PIP_FIND_LINKS": needs, "UV_OFFLINE": 1, "UV_FIND_LINKS": needs}
    closed |= {"UV_NO_INDEX": 1, "UV_CACHE_DIR": tmp_path / "cache"}
    return Shell(python.parent, compiler, here, closed)


def make_environment(folder: Path, *options: str) -> Path:
    """Make a virtual environment without pip; return its interpreter."""
    run(sys.executable, "-m", "venv", "--without-pip", *options, folder)
    return folder / "bin" / "python"


def site_of(environment: Path) -> Path:
    (site,) = environment.glob("lib/python*/site-packages")
    return site


def pip_wheel(shell: Shell, source: Path, python: Path | None = None, **variables: object) -> None:
    """Build with the pip of an environment; without one, of an environment that has no torch."""
    words = (sys.executable, "-m", "pip", "--python", python or shell.bin / "python")
    shell.start(*words, "wheel", "--no-deps", "-w", shell.folder, source, **variables)


def uv_wheel(shell: Shell, source: Path, **variables: object) -> None:
    shell.start(require_uv(), "build", "--wheel", "-o", shell.folder, source, **variables)


def require_uv() -> str:
    if UV is None:
        pytest.skip("needs uv, which the extra dev brings")
    return UV


def from_pip(shell: Shell, source: Path, tmp_path: Path) -> Path:
    python = make_environment(tmp_path / "env")
    torch = fake_torch(site_of(tmp_path / "env"))
    pip_wheel(shell, source, python)
    return torch


def from_pip_beside_pythonpath(shell: Shell, source: Path, tmp_path: Path) -> Path:
    """As `pip install --target` and the modules of clusters have it."""
    torch = fake_torch(shell.folder / "modules")
    pip_wheel(shell, source, PYTHONPATH="modules")
    return torch


def from_pip_over_another_python(shell: Shell, source: Path, tmp_path: Path) -> Path:
    python = make_environment(tmp_path / "env", "--system-site-packages")
    run(sys.executable, "-m", "venv", "--without-pip", tmp_path / "pattern")
    users = site_of(tmp_path / "pattern").relative_to(tmp_path / "pattern")
    torch = fake_torch(tmp_path / "user" / users)
    pip_wheel(shell, source, python, PYTHONUSERBASE=tmp_path / "user")
    return torch


def from_pip_beside_a_named_torch(shell: Shell, source: Path, tmp_path: Path) -> Path:
    torch = fake_torch(tmp_path / "elsewhere")
    pip_wheel(shell, source, RTDETR_OPS_TORCH=tmp_path / "elsewhere")
    return torch


def from_uv_pip(shell: Shell, source: Path, tmp_path: Path) -> Path:
    make_environment(tmp_path / "env")
    torch = fake_torch(site_of(tmp_path / "env"))
    words = ("pip", "install", "--no-deps", source)
    shell.start(require_uv(), *words, VIRTUAL_ENV=tmp_path / "env")
    assert list(site_of(tmp_path / "env").glob("rtdetr_ops/_C.*"))
    return torch


def from_uv_in_conda(shell: Shell, source: Path, tmp_path: Path) -> Path:
    make_environment(tmp_path / "conda")
    torch = fake_torch(site_of(tmp_path / "conda"))
    uv_wheel(shell, source, CONDA_PREFIX=tmp_path / "conda")
    return torch


def from_uv_in_a_project(shell: Shell, source: Path, tmp_path: Path) -> Path:
    make_environment(shell.folder / ".venv")
    torch = fake_torch(site_of(shell.folder / ".venv"))
    uv_wheel(shell, source)
    return torch


def from_uv_with_the_python_of_path(shell: Shell, source: Path, tmp_path: Path) -> Path:
    torch = fake_torch(site_of(shell.bin.parent))
    uv_wheel(shell, source)
    return torch


def from_build(shell: Shell, source: Path, tmp_path: Path) -> Path:
    """The package `build`, in an environment that has torch."""
    python = make_environment(tmp_path / "env")
    torch = fake_torch(site_of(tmp_path / "env"))
    (site_of(tmp_path / "env") / "build.pth").write_text(f"{site_of(Path(sys.prefix))}\n")
    shell.start(python, "-m", "build", "--wheel", "--outdir", shell.folder, source)
    return torch


FRONT_ENDS = {name: case for name, case in globals().items() if name.startswith("from_")}


@pytest.mark.parametrize("front_end", FRONT_ENDS)
def test_a_build_takes_the_torch_of_the_shell(
    front_end: str, shell: Shell, source: Path, tmp_path: Path
) -> None:
    torch = FRONT_ENDS[front_end](shell, source, tmp_path)

    assert shell.torch_seen() == {str(torch)}


@pytest.mark.parametrize("wheel", [pip_wheel, uv_wheel])
def test_a_build_asks_for_a_torch_where_the_shell_has_none(
    wheel: Callable[..., None], shell: Shell, source: Path
) -> None:
    with pytest.raises(AssertionError, match=r"torch>=2\.10"):
        wheel(shell, source)


def test_pip_takes_no_torch_from_an_environment_that_it_does_not_install_into(
    shell: Shell, source: Path, tmp_path: Path
) -> None:
    make_environment(tmp_path / "env")
    fake_torch(site_of(tmp_path / "env"))

    with pytest.raises(AssertionError, match=r"torch>=2\.10"):
        pip_wheel(shell, source, VIRTUAL_ENV=tmp_path / "env")


def test_an_editable_install_compiles_what_changed(
    shell: Shell, source: Path, tmp_path: Path
) -> None:
    fake_torch(site_of(shell.bin.parent))
    python = shell.bin / "python"
    install = (
        sys.executable,
        "-m",
        "pip",
        "--python",
        python,
        "install",
        "--no-deps",
        "-e",
        source,
    )

    shell.start(*install)
    all_files = shell.compilations()
    shell.start(*install)

    assert all_files > 1
    assert shell.compilations() == all_files
