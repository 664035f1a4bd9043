# SPDX-License-Identifier: Apache-2.0
"""The emulator computes what CUDA does, and finds the faults that it is there to find."""

from __future__ import annotations

import math
import re
import sys

import pytest
from probe_programs import Probes

pytestmark = [
    pytest.mark.slow,  # compiles four programs
    pytest.mark.skipif(sys.platform != "linux", reason="the emulator reads ELF files"),
]

LANES = range(32)

# What each thread receives of the others' numbers.
SHUFFLED = {
    "shuffle_index": [3] * 32,
    "shuffle_index_width": [lane // 8 * 8 + 1 for lane in LANES],
    "shuffle_up_width": [lane if lane % 8 < 2 else lane - 2 for lane in LANES],
    "shuffle_down": [lane if lane > 28 else lane + 3 for lane in LANES],
    "shuffle_down_width": [lane if lane % 16 > 12 else lane + 3 for lane in LANES],
    "shuffle_xor": [lane ^ 5 for lane in LANES],
    # A lower group of lanes may be asked, a higher one not.
    "shuffle_xor_width": [lane if lane < 16 else lane ^ 24 for lane in LANES],
}

MISUSED = {
    "divergent_barrier": r"divergent_barrier_kernel\(\): block \(0, 0, 0\), thread \(0, 0, 0\) waits at "
    r"__syncthreads for thread \(5, 0, 0\), which waits at __syncwarp \(mask 0xffffffff\)",
    "exited_lane": r"thread \(32, 0, 0\) waits at __shfl_sync \(mask 0xffffffff\) for thread \(37, 0, 0\), "
    r"which has exited",
    "lane_at_barrier": r"waits at __syncwarp \(mask 0xffffffff\) for thread \(7, 0, 0\), which waits at "
    r"__syncthreads",
    "outside_mask": r"thread \(31, 0, 0\) calls __ballot_sync \(mask 0x7fffffff\), which does not name its own "
    r"lane 31",
    "masks_differ": r"waits at __shfl_xor_sync \(mask 0xffffffff\) for thread \(16, 0, 0\), which waits at "
    r"__shfl_xor_sync \(mask 0xfffffffe\)",
    "operations_differ": r"waits at __shfl_down_sync \(mask 0xffffffff\) for thread \(1, 0, 0\), which waits at "
    r"__shfl_up_sync",
    "width": r"width_kernel<float, 12>\(\): .* shuffles with width 12, expected a power of two up to 32",
}

RACY = {
    "write_read": "shared memory at 0xc",
    "write_shuffle_read": "shared memory at 0xc",
    "write_syncwarp_read_other_warp": "shared memory at 0xc",
    "write_half_warps_read_other_half": "shared memory at 0xc",
    "read_write": "shared memory at 0xc",
    "read_syncwarp_write_other_warp": "shared memory at 0xc",
    "many_readers": "writes 4 bytes of shared memory at 0xc, .* has read",
    "few_readers": "shared memory at 0xc",
    "same_value": "writes 4 bytes of global memory .* has written",
    "same_value_blocks": "block .0, 0, 0.*block .1, 0, 0|block .1, 0, 0.*block .0, 0, 0",
    "blocks_read_write": "of global memory",
    "vector_overlap": "global memory .* has written",
    "structure_overlap": "global memory .* has (read|written)",
    "atomic_read_blocks": "reads .* has atomically updated|atomically updates .* has read",
    "atomic_write": "writes .* has atomically updated|atomically updates .* has written",
    "standard_atomic_write": "writes .* has atomically updated|atomically updates .* has written",
    "two_dimensions": "block .0, 1, 0.",
}

ORDERED = (
    "write_read_same_thread",
    "write_syncwarp_read",
    "write_half_warps_read",
    "write_barrier_read",
    "read_syncwarp_write",
    "read_barrier_write",
    "many_readers_in_order",
    "chain",
    "launches_in_order",
    "own_shared",
    "neighbor_bytes",
    "neighbor_halves",
    "atomics",
    "atomic_barrier_read",
    "standard_atomic",
    "local_arrays",
)

STOPPED = {
    "shared_overrun": "heap-buffer-overflow",
    "global_overrun": "heap-buffer-overflow",
    "atomic_overrun": "heap-buffer-overflow",
    "local_overrun": "stack-buffer-overflow",
    "misaligned": "misaligned address",
    "stack_overflow": "stack-overflow",
}


def test_every_thread_knows_its_place(probes: Probes) -> None:
    # 1s, 100s: thread x, z; 1,000s, 10,000s: block x, z. Each runs once.
    places = [
        x + 100 * z + 1000 * X + 10000 * Z
        for Z in (0, 1)
        for X in (0, 1)
        for z in (0, 1)
        for x in (0, 1)
    ]
    assert probes.numbers("where") == places


@pytest.mark.parametrize("name", SHUFFLED)
def test_shuffle(probes: Probes, name: str) -> None:
    assert probes.numbers(name) == SHUFFLED[name]


def test_lane_that_is_not_there_brings_nan(probes: Probes) -> None:
    received = probes.numbers("shuffle_partial_warp")
    assert received[32:37] == [35, 36, 37, 38, 39]
    assert all(map(math.isnan, received[37:]))


def test_lane_outside_the_mask_brings_nan(probes: Probes) -> None:
    assert all(map(math.isnan, probes.numbers("shuffle_outside_mask")))


def test_parts_of_a_warp_go_their_own_ways(probes: Probes) -> None:
    assert probes.numbers("quarters") == [8 ** (1 + lane // 8) for lane in LANES]


def test_ballot(probes: Probes) -> None:
    votes = [
        sum(1 << lane for lane in half if lane % 3 == 0) for half in (range(16), range(16, 32))
    ]
    assert probes.numbers("ballot") == [votes[lane // 16] for lane in LANES]


def test_barrier(probes: Probes) -> None:
    assert probes.numbers("reverse") == [
        50 * block + 49 - i for block in range(3) for i in range(50)
    ]


def test_barrier_does_not_wait_for_exited_threads(probes: Probes) -> None:
    assert probes.numbers("early_exit") == [47 - i for i in range(48)]


def test_shared_memory_is_nan_before_every_block(plain: Probes) -> None:
    assert plain.numbers("fresh") == [0]


def test_atomic_add(probes: Probes) -> None:
    # Sum, and how many different sums the threads saw, for four types.
    assert probes.lines("count")[1::2] == ["200 200 "] * 4


def test_arithmetic(probes: Probes) -> None:
    assert probes.numbers("arithmetic") == [2, 3, -1, 2, 8, 4, 1 + 2**-22, 7, 7]


def test_order_changes_with_launch_and_seed_and_repeats_otherwise(plain: Probes) -> None:
    runs = [plain.lines("order", seed=seed)[1::2] for seed in (1, 1, 2)]
    assert runs[0] == runs[1]
    first, second, other = *runs[0], runs[2][0]
    assert len({first, second, other, "0 1 2 3 4 5 6 7 8 9 10 11 "}) == 4
    assert sorted(map(int, first.split())) == list(range(12))


def test_blocks_run_in_any_order(plain: Probes) -> None:
    orders = set()
    for seed in range(10):
        threads = [int(word) for word in plain.lines("order", seed=seed)[1].split()]
        orders.add(tuple(thread // 4 for thread in threads))
    # One block after another; which of the three begins is left to chance.
    assert all(sorted(order[::4]) == [0, 1, 2] for order in orders)
    assert {order[0] for order in orders} == {0, 1, 2}


def test_default_seed_is_fixed(plain: Probes) -> None:
    assert plain.lines("order") == plain.lines("order", seed=1)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_order_uncovers_a_missing_barrier(plain: Probes, seed: int) -> None:
    assert any(map(math.isnan, plain.numbers("hasty", seed=seed)))


def test_launch_is_refused_beyond_the_limits_of_the_device(plain: Probes) -> None:
    configuration = "cudaErrorInvalidConfiguration: invalid configuration argument"
    assert plain.lines("limits") == [
        *[configuration] * 4,
        "cudaSuccess: no error",
        "cudaErrorInvalidValue: invalid argument",
        "cudaSuccess",
        "cudaSuccess: no error",
        *["cudaErrorInvalidValue"] * 3,
        "cudaSuccess",
    ]


def test_device(plain: Probes) -> None:
    assert plain.lines("device") == ["0 4 9 0 232448 ", "5 5 1 900 "]


def test_host_threads_launch_at_once(probes: Probes) -> None:
    assert probes.lines("host_threads") == [f"{4 * 64} "]


@pytest.mark.parametrize("name", MISUSED)
@pytest.mark.parametrize("seed", [1, 2])
def test_misuse_is_reported(probes: Probes, name: str, seed: int) -> None:
    (line,) = probes.lines(name, seed=seed)
    assert line.startswith("cudaErrorLaunchFailure: ")
    assert re.search(MISUSED[name], line)
    assert line.endswith(f"[launch 1 with RTDETR_OPS_EMULATOR_SEED={seed}]")


def test_launch_after_a_failed_one_succeeds(probes: Probes) -> None:
    failed, succeeded, count = probes.lines("recovery")
    assert failed.startswith("cudaErrorLaunchFailure: ")
    assert (succeeded, count) == ("cudaSuccess: no error", "128 ")


@pytest.mark.parametrize("name", RACY)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_race_is_found_in_any_order(races: Probes, name: str, seed: int) -> None:
    (line,) = races.lines(name, seed=seed)
    assert line.startswith("cudaErrorLaunchFailure: ")
    assert re.search(RACY[name], line)
    assert re.search(r"with nothing to order them \(code at probes\+0x[0-9a-f]+\)", line)


@pytest.mark.parametrize("name", ORDERED)
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_ordered_accesses_are_no_race(races: Probes, name: str, seed: int) -> None:
    assert set(races.lines(name, seed=seed)) == {"cudaSuccess: no error"}


@pytest.mark.parametrize("name", STOPPED)
def test_sanitizer_stops_it(sanitized: Probes, name: str) -> None:
    done = sanitized.run(name)
    assert done.returncode != 0
    assert STOPPED[name] in done.stderr
