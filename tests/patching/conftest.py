# SPDX-License-Identifier: Apache-2.0
import pytest
import torch

from rtdetr_ops.patching import adapters, binding, remove_shim


@pytest.fixture(autouse=True, scope="session")
def one_thread():
    """Models this small spend more time waking threads than computing."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def nothing_left_patched():
    """Whatever a test patched for the whole process is gone before the next one."""
    yield
    remove_shim()
    for place in list(binding._originals):
        binding.restore(place)


@pytest.fixture
def op_calls(monkeypatch):
    """The point counts of every call that reaches the op through an adapter."""
    calls = []
    inner = adapters.ms_deform_attn

    def counted(*arguments, **keywords):
        calls.append(keywords.get("points"))
        return inner(*arguments, **keywords)

    monkeypatch.setattr(adapters, "ms_deform_attn", counted)
    return calls
