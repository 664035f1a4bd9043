# SPDX-License-Identifier: Apache-2.0
"""A program for test_out_of_memory.py: repeats a call under a rising limit of memory and writes its errors as JSON."""

from __future__ import annotations

import json
import re
import resource
import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from rtdetr_ops import ms_deform_attn_fused

# Every large array of the calls is a multiple of the step. So what is left below a limit is about the slack, which is
# enough for the small ones.
STEP, SLACK = 2**21, 2**20
QUERIES, SIDE, HEADS, POINTS, CHANNELS = 2**17, 512, 2, 4, 4


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0))


def with_gaps(tensor: Tensor) -> Tensor:
    """The same numbers with a gap behind each, so that a kernel needs a copy."""
    return torch.stack([tensor, tensor], -1)[..., 0]


def fused_inputs() -> list[Tensor]:
    shape = (1, QUERIES, HEADS, POINTS)
    value = rand(1, SIDE * SIDE, HEADS, CHANNELS)
    reference = rand(1, QUERIES, 1, 4)
    return [with_gaps(tensor) for tensor in (value, reference, rand(*shape, 2), rand(*shape))]


def forward(*inputs: Tensor) -> Tensor:
    value, *rest = inputs
    return ms_deform_attn_fused(value, [(SIDE, SIDE)], *rest)


def forward_of_copies() -> Callable[[], object]:
    inputs = fused_inputs()
    return lambda: forward(*inputs)


def backward() -> Callable[[], object]:
    leaves = [tensor.requires_grad_() for tensor in fused_inputs()]
    out = forward(*leaves)
    grad = with_gaps(torch.ones_like(out))
    return lambda: torch.autograd.grad(out, leaves, grad, retain_graph=True)


def gradient_of_another_dtype() -> Callable[[], object]:
    value, _, locations, weights = (tensor.contiguous() for tensor in fused_inputs())
    grad = torch.ones(1, QUERIES, HEADS * CHANNELS, dtype=torch.float64)
    arguments = (value, [SIDE, SIDE], None, locations, weights, [POINTS], False, False)
    operator = torch.ops.rtdetr_ops.ms_deform_attn_backward
    return lambda: operator(grad, *arguments, False, False, True)


def scratch() -> Callable[[], object]:
    """One query with so many points that what a thread keeps of them is megabytes an array."""
    points = 2**19
    inputs = (rand(1, 4, 2, 1), rand(1, 1, 1, 4), rand(1, 1, 2, points, 2), rand(1, 1, 2, points))
    leaves = [tensor.requires_grad_() for tensor in inputs]

    def call() -> object:
        out = ms_deform_attn_fused(leaves[0], [(2, 2)], *leaves[1:])
        return torch.autograd.grad(out.sum(), leaves)

    return call


CALLS = {
    call.__name__: call
    for call in (forward_of_copies, backward, gradient_of_another_dtype, scratch)
}


def address_space() -> int:
    match = re.search(r"VmSize:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert match is not None
    return 1024 * int(match[1])


def errors_on_the_way(call: Callable[[], object]) -> list[tuple[str, str]]:
    """Type and text of the error under each limit, until the call succeeds."""
    _, hard = resource.getrlimit(resource.RLIMIT_AS)
    least = address_space() + SLACK
    errors = []
    for limit in range(least, least + 2**31, STEP):
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))
        try:
            call()
        except Exception as error:
            errors.append((type(error).__name__, str(error)))
        else:
            return errors
        finally:
            resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    raise AssertionError("2 GiB were not enough")


def main() -> None:
    name, threads = sys.argv[1:]
    torch.set_num_threads(int(threads))
    call = CALLS[name]()
    call()  # starts the threads
    sys.stdout.write(json.dumps(errors_on_the_way(call)))


if __name__ == "__main__":
    main()
