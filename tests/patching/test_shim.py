# SPDX-License-Identifier: Apache-2.0
import importlib
import importlib.util
import sys
from types import ModuleType

import pytest
import torch

from rtdetr_ops import ms_deform_attn, use_backend
from rtdetr_ops.patching import install_shim, remove_shim

NAME = "MultiScaleDeformableAttention"


def inputs():
    torch.manual_seed(0)
    value = torch.randn(3, 14, 2, 8, dtype=torch.float64)
    shapes, start = torch.tensor([[2, 4], [3, 2]]), torch.tensor([0, 8])
    locations = torch.rand(3, 5, 2, 2, 4, 2, dtype=torch.float64) * 1.2 - 0.1
    weights = torch.rand(3, 5, 2, 2, 4, dtype=torch.float64)
    return value, shapes, start, locations, weights


def test_import_finds_the_shim_and_remove_takes_it_away():
    assert importlib.util.find_spec(NAME) is None
    assert install_shim() is install_shim()
    assert importlib.import_module(NAME).ms_deform_attn_forward
    assert importlib.util.find_spec(NAME) is not None
    assert remove_shim()
    assert not remove_shim()
    with pytest.raises(ModuleNotFoundError):
        importlib.import_module(NAME)


@pytest.mark.parametrize("im2col_step", [1, 2, 64])
def test_forward_and_backward_are_those_of_the_op(im2col_step):
    value, shapes, start, locations, weights = inputs()
    leaves = [tensor.clone().requires_grad_() for tensor in (value, locations, weights)]
    expected = ms_deform_attn(leaves[0], shapes, leaves[1], leaves[2], backend="reference")
    grad = torch.randn_like(expected)
    gradients = torch.autograd.grad(expected, leaves, grad)

    extension = install_shim()
    output = extension.ms_deform_attn_forward(value, shapes, start, locations, weights, im2col_step)
    torch.testing.assert_close(output, expected.detach())
    with torch.no_grad():  # as inside the backward of a once-differentiable Function
        results = extension.ms_deform_attn_backward(
            value, shapes, start, locations, weights, grad, im2col_step
        )
    torch.testing.assert_close(results, gradients)


@pytest.mark.parametrize("start", [[0, 7], [8, 0], [0]], ids=["wrong", "swapped", "short"])
def test_wrong_start_index_is_refused(start):
    value, shapes, _, locations, weights = inputs()
    extension = install_shim()
    with pytest.raises(ValueError, match=r"level_start_index: expected \[0, 8\], .* got \["):
        extension.ms_deform_attn_forward(value, shapes, torch.tensor(start), locations, weights, 64)


@pytest.mark.parametrize(
    ("grad", "error", "message"),
    [
        (
            torch.zeros(3, 5, 15),
            ValueError,
            r"expected shape \[B=3, Q=5, M\*D=16\], got \[3, 5, 15\]",
        ),
        (
            torch.zeros(3, 4, 16),
            ValueError,
            r"expected shape \[B=3, Q=5, M\*D=16\], got \[3, 4, 16\]",
        ),
        (
            torch.zeros(3, 5, 16, device="meta"),
            ValueError,
            "expected device cpu as value, got meta",
        ),
        (
            torch.zeros(3, 5, 16).int(),
            TypeError,
            "expected a tensor of float64, float32, bfloat16 or float16, got torch.int32",
        ),
        (None, TypeError, "expected a tensor, got NoneType"),
    ],
    ids=["shape", "queries", "device", "dtype", "none"],
)
@pytest.mark.parametrize("backend", [None, "reference"])
def test_wrong_gradient_is_refused(grad, error, message, backend):
    extension = install_shim()
    with use_backend(backend), pytest.raises(error, match=f"^grad_output: {message}$"):
        extension.ms_deform_attn_backward(*inputs(), grad, 64)


@pytest.fixture
def package(monkeypatch, tmp_path):
    """The name of a package whose code imports the extension as its own ``_C``, as detrex and Grounding DINO do."""
    folder = tmp_path / "some_detector"
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "layers.py").write_text(
        "try:\n    from some_detector import _C\nexcept ImportError:\n    _C = None\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield folder.name
    remove_shim(f"{folder.name}._C")
    for name in [name for name in sys.modules if name.partition(".")[0] == folder.name]:
        del sys.modules[name]


@pytest.mark.parametrize("imported", [False, True], ids=["before_package", "after_package"])
def test_extension_inside_a_package(package, imported):
    if imported:
        importlib.import_module(package)
    extension = install_shim(f"{package}._C")
    assert importlib.import_module(f"{package}.layers")._C is extension
    assert extension.__name__ == "some_detector._C"
    assert NAME not in sys.modules
    assert remove_shim(f"{package}._C")
    del sys.modules[f"{package}.layers"]
    assert importlib.import_module(f"{package}.layers")._C is None


def test_extension_inside_a_package_is_shadowed_when_forced(package):
    parent, real = importlib.import_module(package), ModuleType(f"{package}._C")
    sys.modules[real.__name__] = parent._C = real
    with pytest.raises(RuntimeError, match=r"some_detector\._C is imported already"):
        install_shim(real.__name__)
    extension = install_shim(real.__name__, force=True)
    assert importlib.import_module(f"{package}.layers")._C is extension
    assert remove_shim(real.__name__)
    assert parent._C is sys.modules[real.__name__] is real


def test_names_are_independent():
    first, second = install_shim(), install_shim("some_module")
    assert first is not second
    assert remove_shim("some_module")
    assert sys.modules[NAME] is first
    assert remove_shim()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("detrex/_C", "name: expected a dotted name such as 'detrex._C', got 'detrex/_C'"),
        ("", "name: expected a dotted name .*, got ''"),
        (True, "name: expected the name of a module, got True"),
    ],
)
def test_wrong_name_is_refused(name, message):
    for function in (install_shim, remove_shim):
        with pytest.raises((TypeError, ValueError), match=message):
            function(name)


def test_real_extension_is_not_shadowed_unless_forced(monkeypatch):
    real = ModuleType(NAME)
    real.__file__ = "elsewhere.so"
    monkeypatch.setitem(sys.modules, NAME, real)
    with pytest.raises(RuntimeError, match=r"imported already \(from elsewhere\.so\)"):
        install_shim()
    assert install_shim(force=True) is sys.modules[NAME]
    assert remove_shim()
    assert sys.modules[NAME] is real
