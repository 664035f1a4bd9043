// SPDX-License-Identifier: Apache-2.0
// Kernels without a fault: what they compute is known.
#include <cstdint>
#include <thread>

#include "probe.h"

namespace {

using probes::launch;
using probes::print;
using probes::shared;

constexpr unsigned kAll = 0xffffffff;

__global__ void where_kernel(int* numbers) {
  const unsigned thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
  const unsigned block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const unsigned threads = blockDim.x * blockDim.y * blockDim.z;
  numbers[block * threads + thread] += static_cast<int>(
      threadIdx.x + 10 * (threadIdx.y + 10 * (threadIdx.z + 10 * (blockIdx.x + 10 * blockIdx.z))));
}

PROBE(where) {
  std::vector<int> numbers(16);
  launch({.grid = {2, 1, 2}, .block = {2, 1, 2}}, where_kernel, numbers.data());
  print(numbers);
}

template <class T, T (*kShuffle)(T)>
__global__ void shuffle_kernel(double* received) {
  const T mine = static_cast<T>(threadIdx.x) + static_cast<T>(0.5);
  received[threadIdx.x] = static_cast<double>(kShuffle(mine) - static_cast<T>(0.5));
}

template <class T, T (*kShuffle)(T)>
void show_shuffle(unsigned threads = 32) {
  std::vector<double> received(threads);
  launch({.block = threads}, shuffle_kernel<T, kShuffle>, received.data());
  print(received);
}

float from_lane_3(float x) { return __shfl_sync(kAll, x, 3); }
float from_lane_9_of_8(float x) { return __shfl_sync(kAll, x, 9, 8); }
float up_2_of_8(float x) { return __shfl_up_sync(kAll, x, 2, 8); }
double down_3(double x) { return __shfl_down_sync(kAll, x, 3); }
float down_3_of_16(float x) { return __shfl_down_sync(kAll, x, 3, 16); }
std::int64_t xor_5(std::int64_t x) { return __shfl_xor_sync(kAll, x, 5); }
float xor_24_of_16(float x) { return __shfl_xor_sync(kAll, x, 24, 16); }

double from_the_other_half(double x) {
  const bool upper = threadIdx.x >= 16;
  return __shfl_sync(upper ? 0xffff0000 : 0x0000ffff, x, upper ? 0 : 16);
}

PROBE(shuffle_outside_mask) { show_shuffle<double, from_the_other_half>(); }
PROBE(shuffle_index) { show_shuffle<float, from_lane_3>(); }
PROBE(shuffle_index_width) { show_shuffle<float, from_lane_9_of_8>(); }
PROBE(shuffle_up_width) { show_shuffle<float, up_2_of_8>(); }
PROBE(shuffle_down) { show_shuffle<double, down_3>(); }
PROBE(shuffle_down_width) { show_shuffle<float, down_3_of_16>(); }
PROBE(shuffle_xor) { show_shuffle<std::int64_t, xor_5>(); }
PROBE(shuffle_xor_width) { show_shuffle<float, xor_24_of_16>(); }
PROBE(shuffle_partial_warp) { show_shuffle<double, down_3>(40); }

// Each quarter of the warp sums by itself, a different number of times.
__global__ void quarters_kernel(int* sums) {
  const unsigned quarter = threadIdx.x / 8, mask = 0xffu << (8 * quarter);
  int sum = 1;
  for (unsigned round = 0; round <= quarter; ++round) {
    for (int step = 1; step < 8; step *= 2) sum += __shfl_xor_sync(mask, sum, step);
  }
  sums[threadIdx.x] = sum;
}

PROBE(quarters) {
  std::vector<int> sums(32);
  launch({.block = 32}, quarters_kernel, sums.data());
  print(sums);
}

__global__ void ballot_kernel(unsigned* votes) {
  const unsigned half = threadIdx.x < 16 ? 0xffff : 0xffff0000;
  votes[threadIdx.x] = __ballot_sync(half, threadIdx.x % 3 == 0);
}

PROBE(ballot) {
  std::vector<unsigned> votes(32);
  launch({.block = 32}, ballot_kernel, votes.data());
  print(votes);
}

// Reversed through shared memory, over and over; an even number of times is the identity.
__global__ void reverse_kernel(int* numbers, int times) {
  int* exchange = shared<int>();
  int mine = numbers[blockIdx.x * blockDim.x + threadIdx.x];
  for (int i = 0; i < times; ++i) {
    exchange[threadIdx.x] = mine;
    __syncthreads();
    mine = exchange[blockDim.x - 1 - threadIdx.x];
    __syncthreads();
  }
  numbers[blockIdx.x * blockDim.x + threadIdx.x] = mine;
}

PROBE(reverse) {
  std::vector<int> numbers(3 * 50);
  for (int i = 0; i < 150; ++i) numbers[static_cast<std::size_t>(i)] = i;
  launch({.grid = 3, .block = 50}, reverse_kernel, numbers.data(), 7);
  print(numbers);
}

__global__ void early_exit_kernel(int* numbers) {
  if (threadIdx.x >= 48) return;
  shared<int>()[threadIdx.x] = static_cast<int>(threadIdx.x);
  __syncthreads();
  numbers[threadIdx.x] = shared<int>()[47 - threadIdx.x];
}

PROBE(early_exit) {
  std::vector<int> numbers(48);
  launch({}, early_exit_kernel, numbers.data());
  print(numbers);
}

__global__ void fresh_kernel(int* not_nan) {
  float* memory = shared<float>();
  atomicAdd(not_nan, memory[threadIdx.x] == memory[threadIdx.x] ? 1 : 0);
  __syncthreads();
  memory[threadIdx.x] = 1;
}

PROBE(fresh) {
  std::vector<int> not_nan(1);
  launch({.grid = 5}, fresh_kernel, not_nan.data());
  print(not_nan);
}

template <class T>
__global__ void count_kernel(T* counter, T* seen) {
  seen[static_cast<int>(atomicAdd(counter, T(1)))] = T(1);
}

template <class T>
void show_count() {
  std::vector<T> counter(1), seen(200);
  launch({.grid = 4, .block = 50}, count_kernel<T>, counter.data(), seen.data());
  T sum = 0;
  for (const T one : seen) sum += one;
  print(std::vector<T>{counter[0], sum});
}

PROBE(count) {
  show_count<float>();
  show_count<double>();
  show_count<int>();
  show_count<unsigned>();
}

__global__ void arithmetic_kernel(double* results) {
  const float nan = __uint_as_float(0x7fc00000);
  const double values[] = {min(nan, 2.0f),
                           max(3.0f, nan),
                           static_cast<double>(min(-1, 2)),
                           static_cast<double>(max(1u, 2u)),
                           static_cast<double>(__popc(0xf0f0)),
                           static_cast<double>(__ffs(8)),
                           __fmul_rn(1.0f + 0x1p-23f, 1.0f + 0x1p-23f),
                           fma(3.0, 2.0, 1.0),
                           __ldg(results)};
  for (int i = 0; i < 9; ++i) results[i] = values[i];
}

PROBE(arithmetic) {
  std::vector<double> results(9, 7);
  launch({.block = 1}, arithmetic_kernel, results.data());
  print(results);
}

// Who comes first, second, ...
__global__ void order_kernel(int* order, int* next) {
  order[atomicAdd(next, 1)] = static_cast<int>(blockIdx.x * blockDim.x + threadIdx.x);
}

PROBE(order) {
  for (int repeat = 0; repeat < 2; ++repeat) {
    std::vector<int> order(12), next(1);
    launch({.grid = 3, .block = 4}, order_kernel, order.data(), next.data());
    print(order);
  }
}

// Without a barrier between, most orders read what is not there yet.
__global__ void hasty_kernel(float* numbers) {
  shared<float>()[threadIdx.x] = 1;
  numbers[threadIdx.x] = shared<float>()[threadIdx.x ^ 1];
}

PROBE(hasty) {
  std::vector<float> numbers(64);
  launch({}, hasty_kernel, numbers.data());
  print(numbers);
}

__global__ void idle_kernel() {}

PROBE(limits) {
  launch({.grid = 0}, idle_kernel);
  launch({.grid = {1, 65536}}, idle_kernel);
  launch({.block = 1025}, idle_kernel);
  launch({.block = {1, 1, 65}}, idle_kernel);
  launch({.shared = 48 * 1024}, idle_kernel);
  launch({.shared = 48 * 1024 + 1}, idle_kernel);
  constexpr auto kLimit = cudaFuncAttributeMaxDynamicSharedMemorySize;
  std::printf("%s\n", cudaGetErrorName(cudaFuncSetAttribute(idle_kernel, kLimit, 232448)));
  launch({.shared = 232448}, idle_kernel);
  std::printf("%s\n", cudaGetErrorName(cudaFuncSetAttribute(idle_kernel, kLimit, 232449)));
  for (auto error : {cudaPeekAtLastError, cudaGetLastError, cudaGetLastError}) {
    std::printf("%s\n", cudaGetErrorName(error()));
  }
}

PROBE(device) {
  int value = -1;
  cudaGetDevice(&value);
  std::vector<int> values = {value};
  for (auto attribute :
       {cudaDevAttrMultiProcessorCount, cudaDevAttrComputeCapabilityMajor,
        cudaDevAttrComputeCapabilityMinor, cudaDevAttrMaxSharedMemoryPerBlockOptin}) {
    cudaDeviceGetAttribute(&value, attribute, 0);
    values.push_back(value);
  }
  print(values);
  char bytes[3] = {1, 1, 1};
  cudaMemsetAsync(bytes, 5, 2);
  print(std::vector<int>{bytes[0], bytes[1], bytes[2], __CUDA_ARCH__});
}

PROBE(host_threads) {
  std::vector<std::vector<int>> numbers(4, std::vector<int>(64, 1));
  std::vector<std::thread> threads;
  for (auto& mine : numbers) {
    threads.emplace_back([&mine] {
      for (int i = 0; i < 20; ++i) {
        cudaLaunchConfig_t config = {};
        config.blockDim = 64;
        config.dynamicSmemBytes = 256;
        cudaLaunchKernelEx(&config, reverse_kernel, mine.data(), 3);
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  int sum = 0;
  for (const auto& mine : numbers) {
    for (const int one : mine) sum += one;
  }
  print(std::vector<int>{sum});
}

}  // namespace
