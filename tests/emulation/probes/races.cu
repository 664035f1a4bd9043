// SPDX-License-Identifier: Apache-2.0
// Kernels with a race, and their neighbors without one.
#include <atomic>
#include <cstdint>

#include "probe.h"

namespace {

using probes::launch;
using probes::Shape;
using probes::shared;

constexpr unsigned kAll = 0xffffffff;

// Runs a kernel on 256 zeros in global memory.
void run(Shape shape, void (*kernel)(float*)) {
  alignas(16) float numbers[256] = {};
  launch(shape, kernel, static_cast<float*>(numbers));
}

// Two threads, by their numbers, write and read one number of shared memory with `kBetween`
// between.
template <void (*kBetween)(), unsigned kWriter, unsigned kReader>
__global__ void write_then_read_kernel(float* out) {
  if (threadIdx.x == kWriter) shared<float>()[3] = 1;
  kBetween();
  if (threadIdx.x == kReader) out[0] = shared<float>()[3];
}
template <void (*kBetween)(), unsigned kWriter, unsigned kReader>
__global__ void read_then_write_kernel(float* out) {
  if (threadIdx.x == kReader) out[0] = shared<float>()[3];
  kBetween();
  if (threadIdx.x == kWriter) shared<float>()[3] = 1;
}

void nothing() {}
void exchange() { __shfl_sync(kAll, 1, 0); }
void warp() { __syncwarp(); }
void half_warps() { __syncwarp(threadIdx.x % 32 < 16 ? 0xffff : 0xffff0000); }
void block() { __syncthreads(); }

PROBE(write_read) { run({}, write_then_read_kernel<nothing, 1, 2>); }
PROBE(write_read_same_thread) { run({}, write_then_read_kernel<nothing, 2, 2>); }
PROBE(write_shuffle_read) { run({}, write_then_read_kernel<exchange, 1, 2>); }
PROBE(write_syncwarp_read) { run({}, write_then_read_kernel<warp, 1, 2>); }
PROBE(write_syncwarp_read_other_warp) { run({}, write_then_read_kernel<warp, 1, 34>); }
PROBE(write_half_warps_read) { run({}, write_then_read_kernel<half_warps, 1, 2>); }
PROBE(write_half_warps_read_other_half) { run({}, write_then_read_kernel<half_warps, 1, 18>); }
PROBE(write_barrier_read) { run({}, write_then_read_kernel<block, 1, 34>); }
PROBE(read_write) { run({}, read_then_write_kernel<nothing, 1, 2>); }
PROBE(read_syncwarp_write) { run({}, read_then_write_kernel<warp, 1, 2>); }
PROBE(read_syncwarp_write_other_warp) { run({}, read_then_write_kernel<warp, 1, 34>); }
PROBE(read_barrier_write) { run({}, read_then_write_kernel<block, 1, 34>); }

// All read, then one writes: two readers' warps are in order with it, the third's is not.
__global__ void many_readers_kernel(float* out) {
  out[1 + threadIdx.x] = shared<float>()[3];
  __syncwarp();
  if (threadIdx.x == 0) shared<float>()[3] = 1;
}
PROBE(many_readers) { run({.block = 64}, many_readers_kernel); }
PROBE(many_readers_in_order) { run({.block = 32}, many_readers_kernel); }

// As before, but the warp in order has most of the readers.
__global__ void few_readers_kernel(float* out) {
  if (threadIdx.x < 8 || threadIdx.x == 32) out[1 + threadIdx.x] = shared<float>()[3];
  __syncwarp();
  if (threadIdx.x == 0) shared<float>()[3] = 1;
}
PROBE(few_readers) { run({.block = 64}, few_readers_kernel); }

// 1 -> 2 -> 3, pair by pair.
__global__ void chain_kernel(float* out) {
  const unsigned lane = threadIdx.x;
  if (lane == 1) shared<float>()[0] = 1;
  if (lane == 1 || lane == 2) __syncwarp(0b0110);
  if (lane == 2 || lane == 3) __syncwarp(0b1100);
  if (lane == 3) out[0] = shared<float>()[0];
}
PROBE(chain) { run({.block = 32}, chain_kernel); }

__global__ void same_value_kernel(float* out) { out[0] = 1; }
PROBE(same_value) { run({.block = 2}, same_value_kernel); }
PROBE(same_value_blocks) { run({.grid = 2, .block = 1}, same_value_kernel); }
PROBE(launches_in_order) {
  float out = 0;
  launch({.block = 1}, same_value_kernel, &out);
  launch({.block = 1}, same_value_kernel, &out);
}

__global__ void blocks_read_kernel(float* out) {
  out[1 + blockIdx.x] = out[0];
  __syncthreads();
  if (blockIdx.x == 1) out[0] = 1;
}
PROBE(blocks_read_write) { run({.grid = 4, .block = 1}, blocks_read_kernel); }

// Many blocks: the heap gives some of them what an earlier one had.
__global__ void own_shared_kernel(float*) { shared<float>()[63 - threadIdx.x] = 1; }
PROBE(own_shared) { run({.grid = 64, .shared = 48 * 1024}, own_shared_kernel); }

template <class T>
__global__ void neighbors_kernel(float* out) {
  reinterpret_cast<T*>(out)[threadIdx.x] = T{1};
}
PROBE(neighbor_bytes) { run({}, neighbors_kernel<std::uint8_t>); }
PROBE(neighbor_halves) { run({}, neighbors_kernel<std::uint16_t>); }

__global__ void vector_kernel(float* out) {
  if (threadIdx.x == 0) *reinterpret_cast<float4*>(out) = float4{};
  if (threadIdx.x == 1) out[3] = 1;
}
PROBE(vector_overlap) { run({}, vector_kernel); }

struct Eight {
  float numbers[8];
};
__global__ void structure_kernel(float* out) {
  auto* const records = reinterpret_cast<Eight*>(out);
  if (threadIdx.x == 0) records[0] = records[1];
  if (threadIdx.x == 1) out[7] = 1;
}
PROBE(structure_overlap) { run({}, structure_kernel); }

__global__ void atomics_kernel(float* out) { atomicAdd(out, 1.0f); }
PROBE(atomics) { run({.grid = 3}, atomics_kernel); }

__global__ void atomic_read_kernel(float* out) {
  atomicAdd(out, 1.0f);
  __syncthreads();
  if (threadIdx.x == 9) out[1 + blockIdx.x] = out[0];
}
PROBE(atomic_barrier_read) { run({}, atomic_read_kernel); }
PROBE(atomic_read_blocks) { run({.grid = 2}, atomic_read_kernel); }

__global__ void atomic_write_kernel(float* out) {
  if (threadIdx.x == 0) out[0] = 0;
  atomicAdd(out, 1.0f);
}
PROBE(atomic_write) { run({}, atomic_write_kernel); }

__global__ void standard_atomic_kernel(float* out) {
  auto* const count = reinterpret_cast<std::atomic<int>*>(out);
  count->fetch_add(1);
  if (threadIdx.x == 70) *reinterpret_cast<int*>(out) = 0;
}
PROBE(standard_atomic) { run({.block = 64}, standard_atomic_kernel); }
PROBE(standard_atomic_write) { run({.block = 96}, standard_atomic_kernel); }

__global__ void local_kernel(float* out) {
  float local[8];
  for (int i = 0; i < 8; ++i) {
    __syncwarp();
    local[i] = static_cast<float>(i);
  }
  out[threadIdx.x] = local[threadIdx.x % 8];
}
PROBE(local_arrays) { run({.grid = 1}, local_kernel); }

__global__ void two_dimensions_kernel(float* out) { out[threadIdx.x] = 1; }
PROBE(two_dimensions) { run({.grid = {1, 2}, .block = {8, 1, 1}}, two_dimensions_kernel); }

}  // namespace
