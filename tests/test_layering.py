# SPDX-License-Identifier: Apache-2.0
"""Who may use whom: csrc <- rtdetr_ops <- rtdetr. Read from the sources, not from a running program."""

from __future__ import annotations

import ast
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from import_graph import climbing_imports, find_circles, read_imports, rooms_of, unplaced_modules

import rtdetr_ops
from rtdetr_ops import _extension

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "rtdetr_ops"
DETECTOR = ROOT / "rtdetr"
SOURCES = ROOT / "csrc"

# What a module of rtdetr_ops imports when it is imported itself.
AT_IMPORT = {"torch", "triton"} | set(sys.stdlib_module_names)
# What it may import when one of its functions is called.
WHEN_CALLED = {
    "patching": {"transformers"},
    "testing": {"transformers", "numpy"},
}

DETECTOR_AT_IMPORT = {
    "PIL",
    "numpy",
    "rtdetr",
    "rtdetr_ops",
    "safetensors",
    "torch",
    "typer",
    "typing_extensions",
} | set(sys.stdlib_module_names)
DETECTOR_WHEN_CALLED = {
    *("av", "barcode", "faster_coco_eval", "huggingface_hub", "matplotlib", "scipy"),
    *("segno", "sklearn", "supervision", "tqdm", "yaml"),
}

# The lowest first; a module imports from lower floors alone. "" is the package itself.
OPERATOR_FLOORS = (
    frozenset({"_extension", "environment", "tensors", "testing", "tracing"}),
    frozenset({"levels"}),
    frozenset({"backends"}),
    frozenset(
        f"ms_deform_attn.{name}"
        for name in (
            *("checks", "export_form", "operators", "reference"),
            *("triton_kernels", "triton_tuning"),
        )
    ),
    frozenset(f"ms_deform_attn.{name}" for name in ("autograd", "portable", "triton_launch")),
    frozenset({"ms_deform_attn.compiled", "ms_deform_attn.triton_backend"}),
    frozenset({"ms_deform_attn.op"}),
    frozenset({"ms_deform_attn.classic", "ms_deform_attn.module"}),
    frozenset({"ms_deform_attn.function"}),
    frozenset({"ms_deform_attn"}),
    frozenset({"patching.adapters", "patching.report", "testing.models", "testing.workloads"}),
    frozenset({"patching.hub_layer", "patching.shim", "patching.table", "testing.inputs"}),
    frozenset({"patching.recognize", "patching.targets", "testing.tester"}),
    frozenset({"patching.binding"}),
    frozenset({"patching.patch"}),
    frozenset({"patching"}),
    frozenset({""}),
)

# Of rtdetr, the rooms. What is on one floor knows nothing of each other.
DETECTOR_FLOORS = (
    frozenset({"coco", "errors", "files", "memory"}),
    frozenset({"checking", "keywords"}),
    frozenset({"boxes", "devices", "hub"}),
    frozenset({"images"}),
    frozenset({"config", "processing", "results"}),
    frozenset({"data", "loss", "weights"}),
    frozenset({"model"}),
    frozenset({"inference", "transformers"}),
    frozenset({"evaluation"}),
    frozenset({"training"}),
    frozenset({"detector"}),
    frozenset({"cli"}),
    frozenset({"", "__main__"}),
)

TORCH_HEADERS = ("torch/csrc/stable/", "torch/headeronly/")
BINDINGS = {
    "common/errors.h",
    "common/tensor.h",
    *(
        f"ms_deform_attn/{name}"
        for name in ("call.h", "op.h", "op.cpp", "op_cpu.cpp", "op_cuda.cpp")
    ),
}
CUDA_HEADERS = ("cuda", "nv", "cooperative_groups")

needs_sources = pytest.mark.skipif(not SOURCES.is_dir(), reason="csrc/ is not beside these tests")


def modules(package: Path) -> list[Path]:
    return sorted(package.rglob("*.py"))


def imports(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Line and top-level package of every import that leaves the package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")[0]) for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield node.lineno, str(node.module).split(".")[0]


def deferred_lines(tree: ast.AST) -> set[int]:
    """Lines inside functions, and under ``if TYPE_CHECKING``: not run by an import."""
    lines: set[int] = set()
    for node in ast.walk(tree):
        is_guard = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        if is_guard or isinstance(node, ast.FunctionDef):
            lines.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return lines


@pytest.mark.parametrize("path", modules(PACKAGE), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_operator_library_imports_torch_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = deferred_lines(tree)
    part = path.relative_to(PACKAGE).parts[0]
    for line, name in imports(tree):
        allowed = AT_IMPORT | WHEN_CALLED.get(part, set()) if line in deferred else AT_IMPORT
        assert name in allowed, f"{path.name}:{line} imports {name}"


def test_operator_library_imports_go_down() -> None:
    graph = read_imports(PACKAGE)
    assert unplaced_modules(graph, OPERATOR_FLOORS) == []
    assert climbing_imports(graph, OPERATOR_FLOORS) == []


def test_operator_library_has_no_circle() -> None:
    assert find_circles(read_imports(PACKAGE)) == []


def test_detector_imports_go_down() -> None:
    rooms = rooms_of(read_imports(DETECTOR))
    assert unplaced_modules(rooms, DETECTOR_FLOORS) == []
    assert climbing_imports(rooms, DETECTOR_FLOORS) == []


def test_detector_has_no_circle() -> None:
    assert find_circles(read_imports(DETECTOR)) == []


def test_every_kind_of_import_is_seen(tmp_path: Path) -> None:
    package = tmp_path / "package"
    (package / "inner").mkdir(parents=True)
    sources = {
        "__init__": "",
        "top": "from . import a\nfrom .inner import name\nfrom .inner.b import other\n",
        "a": "def late():\n    from . import c\n    import package.d\n",
        "c": "if TYPE_CHECKING:\n    from .d import x\n",
        "d": 'import_module(".top", __package__)\n',
        "inner/__init__": "from .b import name\n",
        "inner/b": "from ..c import y\n",
    }
    for name, text in sources.items():
        (package / f"{name}.py").write_text(text)
    graph = read_imports(package)
    assert graph == {
        "": frozenset(),
        "top": {"a", "inner", "inner.b"},
        "a": {"c", "d"},
        "c": {"d"},
        "d": {"top"},
        "inner": {"inner.b"},
        "inner.b": {"c"},
    }
    assert find_circles(graph) == [{"a", "c", "d", "inner", "inner.b", "top"}]
    floors = (frozenset({"", "d"}), frozenset({"c", "a"}), frozenset({"inner", "inner.b"}))
    assert unplaced_modules(graph, floors) == ["top"]
    assert climbing_imports(graph, (*floors, frozenset({"top"}))) == [
        "a -> c",
        "d -> top",
        "inner -> inner.b",
    ]


@pytest.mark.parametrize(
    "path", modules(DETECTOR), ids=lambda path: str(path.relative_to(DETECTOR))
)
def test_detector_imports_its_dependencies_alone(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    deferred = deferred_lines(tree)
    # The room of that name is for those who have it.
    own = {"transformers"} if path == DETECTOR / "transformers.py" else set()
    for line, name in imports(tree):
        allowed = DETECTOR_AT_IMPORT | own | (DETECTOR_WHEN_CALLED if line in deferred else set())
        assert name in allowed, f"{path.name}:{line} imports {name}"


def test_detector_uses_public_names() -> None:
    for path in modules(DETECTOR):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rtdetr_ops"):
                names = {alias.name for alias in node.names}
                assert node.module == "rtdetr_ops", f"{path.name}:{node.lineno}"
                assert names <= set(rtdetr_ops.__all__), f"{path.name}:{node.lineno}"


def includes(path: Path) -> list[str]:
    return re.findall(
        r'^\s*#\s*include\s+[<"]([^>"]+)[>"]', path.read_text(encoding="utf-8"), re.MULTILINE
    )


def sources() -> list[Path]:
    return sorted(
        path for path in SOURCES.rglob("*") if path.suffix in {".h", ".cpp", ".cu", ".cuh"}
    )


def included_from(path: Path) -> set[str]:
    """Everything a file includes, its own headers followed."""
    found: set[str] = set()
    pending = includes(path)
    while pending:
        header = pending.pop()
        if header not in found:
            found.add(header)
            pending += includes(SOURCES / header) if (SOURCES / header).is_file() else []
    return found


@needs_sources
@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_kernels_know_no_torch(path: Path) -> None:
    own = str(path.relative_to(SOURCES))
    for header in sorted(included_from(path)):
        if header.startswith(("torch/", "ATen/", "c10/")):
            assert own in BINDINGS, f"{own} includes {header}"
            assert header.startswith(TORCH_HEADERS), f"{header} is not of the stable ABI"
        if header.startswith(("pybind11/", "Python.h")):
            assert own == "module.cpp", f"{own} includes {header}"


@needs_sources
@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_only_kernels_know_cuda(path: Path) -> None:
    # One of its headers is all they use: the host emulation stands in for it.
    found = {header for header in included_from(path) if header.startswith(CUDA_HEADERS)}
    assert found <= ({"cuda_runtime.h"} if path.suffix in {".cu", ".cuh"} else set())


@needs_sources
@pytest.mark.parametrize("path", sources(), ids=lambda path: str(path.relative_to(SOURCES)))
def test_includes_go_down(path: Path) -> None:
    for header in includes(path):
        if path.parent.name == "common" and (SOURCES / header).is_file():
            assert header.startswith("common/"), f"{path.name} includes {header}"
        assert not header.startswith(".."), f"{path.name} includes {header}"


@pytest.mark.skipif(_extension.MISSING is not None, reason=str(_extension.MISSING))
@pytest.mark.skipif(shutil.which("nm") is None, reason="needs nm of binutils")
def test_library_exports_nothing_but_its_entry() -> None:
    # An inline function of a wide instruction set that leaks out may be the one a processor without it runs.
    library = str(_extension._C.__file__)
    table = subprocess.run(
        ["nm", "-DC", "--defined-only", library], capture_output=True, text=True, check=True
    ).stdout
    own = [line for line in table.splitlines() if re.search("rtdetr_ops|avx|Kernels", line)]
    assert own == []
    assert "PyInit__C" in table


def loaded_by(statement: str) -> set[str]:
    code = f"{statement}\nimport sys\nprint(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return set(run.stdout.split())


@pytest.mark.slow
def test_import_is_light() -> None:
    loaded = loaded_by("import rtdetr_ops") - loaded_by("import torch")
    packages = {name.split(".")[0] for name in loaded} - set(sys.stdlib_module_names)
    assert packages <= {"rtdetr_ops", "torch"}
    assert "torch._dynamo" not in loaded
    assert "rtdetr_ops.testing" not in loaded


@pytest.mark.slow
def test_import_asks_no_gpu() -> None:
    code = (
        "import torch\n"
        "def refuse(*_): raise AssertionError('import asked for a GPU')\n"
        "torch.cuda.is_available = torch.cuda.device_count = torch.cuda._lazy_init = refuse\n"
        "import rtdetr_ops\n"
        "assert not torch.cuda.is_initialized()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_no_device_is_initialized() -> None:
    assert not torch.cuda.is_initialized()
