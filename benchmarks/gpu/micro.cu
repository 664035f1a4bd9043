// SPDX-License-Identifier: Apache-2.0
// How fast this GPU gathers and reduces short vectors: the ceilings of the operator. Prints one
// JSON object.
//
//   nvcc -O3 -std=c++17 -arch=sm_90 micro.cu -o micro && ./micro
//
// Every lane group draws its vectors from a hash, so that no index array is read. Reductions add 1
// to each element; where the buffer is large enough for the counts to stay exact, their sum is
// checked.
#include <cuda_bf16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#define CHECK(call)                                                                       \
  do {                                                                                    \
    cudaError_t error = (call);                                                           \
    if (error != cudaSuccess) {                                                           \
      std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, cudaGetErrorString(error)); \
      std::exit(1);                                                                       \
    }                                                                                     \
  } while (0)

constexpr int kThreads = 256;
constexpr int kVectorBytes = 128;
constexpr int kUnroll = 4;  // independent vectors in flight per lane group
constexpr uint32_t kVectorsPerLaunch = 1u << 23;
constexpr int kLaunches = 10;
constexpr int kHotVectors = 20 * 20;

// The architecture this file was compiled for: one, as the command above names one.
constexpr int kArchs[] = {__CUDA_ARCH_LIST__};
constexpr bool kHopper = kArchs[0] >= 900;

__device__ uint32_t hash(uint32_t x) {
  x ^= x >> 16;
  x *= 0x7feb352du;
  x ^= x >> 15;
  x *= 0x846ca68bu;
  return x ^ (x >> 16);
}

// Uniform over the vectors, or with probability ~ 1 / rank over a few hot ones.
struct Uniform {
  uint32_t vectors;
  __device__ uint32_t operator()(uint32_t draw) const { return __umulhi(hash(draw), vectors); }
};

struct Zipf {
  uint32_t vectors;
  __device__ uint32_t operator()(uint32_t draw) const {
    float u = hash(draw) * 0x1p-32f;
    return min(static_cast<uint32_t>(exp2f(u * log2f(vectors + 1.f))) - 1u, vectors - 1u);
  }
};

// What a lane group does to the vector it drew. kLanes lanes share a vector of kVectorBytes bytes.
struct RedF32 {
  static constexpr int kLanes = 32;
  static __device__ void apply(char* vector, int lane) {
    asm volatile("red.relaxed.gpu.global.add.f32 [%0], %1;" ::"l"(vector + 4 * lane), "f"(1.f)
                 : "memory");
  }
};

struct RedF32x4 {
  static constexpr int kLanes = 8;
  static __device__ void apply(char* vector, int lane) {
#if __CUDA_ARCH__ >= 900
    asm volatile(
        "red.relaxed.gpu.global.add.v4.f32 [%0], {%1, %1, %1, %1};" ::"l"(vector + 16 * lane),
        "f"(1.f)
        : "memory");
#endif
  }
};

struct RedBf16x8 {
  static constexpr int kLanes = 8;
  static __device__ void apply(char* vector, int lane) {
#if __CUDA_ARCH__ >= 900
    const uint32_t ones = 0x3f803f80u;  // two bfloat16 ones
    asm volatile("red.relaxed.gpu.global.add.noftz.v4.bf16x2 [%0], {%1, %1, %1, %1};" ::"l"(
                     vector + 16 * lane),
                 "r"(ones)
                 : "memory");
#endif
  }
};

struct Store16 {
  static constexpr int kLanes = 8;
  static __device__ void apply(char* vector, int lane) {
    asm volatile("st.global.v4.f32 [%0], {%1, %1, %1, %1};" ::"l"(vector + 16 * lane), "f"(1.f)
                 : "memory");
  }
};

template <class Op, class Draw>
__global__ void __launch_bounds__(kThreads)
    scatter_kernel(char* buffer, Draw draw, uint32_t count) {
  const uint32_t group = (blockIdx.x * kThreads + threadIdx.x) / Op::kLanes;
  const uint32_t groups = gridDim.x * kThreads / Op::kLanes;
  const int lane = threadIdx.x % Op::kLanes;
  for (uint32_t i = group; i < count; i += groups) {
    Op::apply(buffer + size_t{draw(i)} * kVectorBytes, lane);
  }
}

// One thread hands whole vectors of ones in shared memory to the copy engine, which adds them to
// the buffer.
template <class Draw>
__global__ void __launch_bounds__(kThreads) bulk_kernel(char* buffer, Draw draw, uint32_t count) {
#if __CUDA_ARCH__ >= 900
  __shared__ alignas(128) float ones[kVectorBytes / 4];
  if (threadIdx.x < kVectorBytes / 4) ones[threadIdx.x] = 1.f;
  __syncthreads();
  asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
  __syncthreads();
  const uint32_t source = static_cast<uint32_t>(__cvta_generic_to_shared(ones));
  const uint32_t threads = gridDim.x * kThreads;
  for (uint32_t i = blockIdx.x * kThreads + threadIdx.x; i < count; i += threads) {
    char* vector = buffer + size_t{draw(i)} * kVectorBytes;
    asm volatile(
        "cp.reduce.async.bulk.global.shared::cta.bulk_group.add.f32 [%0], [%1], %2;" ::"l"(vector),
        "r"(source), "n"(kVectorBytes)
        : "memory");
    asm volatile("cp.async.bulk.commit_group;" ::: "memory");
    asm volatile("cp.async.bulk.wait_group.read 8;" ::: "memory");
  }
  asm volatile("cp.async.bulk.wait_group 0;" ::: "memory");
#endif
}

template <int kBytes>
__global__ void __launch_bounds__(kThreads)
    gather_kernel(const char* buffer, float* sink, uint32_t vectors, uint32_t count) {
  constexpr int kLanes = kBytes / 16;
  const Uniform draw{vectors};
  const uint32_t group = (blockIdx.x * kThreads + threadIdx.x) / kLanes;
  const uint32_t groups = gridDim.x * kThreads / kLanes;
  const int lane = threadIdx.x % kLanes;
  float sum = 0.f;
  for (uint32_t i = group * kUnroll; i < count; i += groups * kUnroll) {
    float4 part[kUnroll];
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) {
      part[k] =
          __ldg(reinterpret_cast<const float4*>(buffer + size_t{draw(i + k)} * kBytes) + lane);
    }
#pragma unroll
    for (int k = 0; k < kUnroll; ++k) sum += part[k].x + part[k].y + part[k].z + part[k].w;
  }
  if (sum == -1.f) *sink = sum;  // never true, and the compiler cannot know
}

// Random floats in [1, 2): equal ones would draw less power, and run faster, than real data.
__global__ void __launch_bounds__(kThreads) fill_kernel(uint32_t* buffer, size_t count) {
  const size_t threads = size_t{gridDim.x} * kThreads;
  for (size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += threads) {
    buffer[i] = 0x3f800000u | (hash(static_cast<uint32_t>(i)) >> 9);
  }
}

__global__ void __launch_bounds__(kThreads)
    sum_kernel(const float* buffer, size_t count, double* total) {
  double sum = 0;
  const size_t threads = size_t{gridDim.x} * kThreads;
  for (size_t i = size_t{blockIdx.x} * kThreads + threadIdx.x; i < count; i += threads)
    sum += buffer[i];
  for (int lane = 16; lane > 0; lane /= 2) sum += __shfl_down_sync(0xffffffffu, sum, lane);
  if (threadIdx.x % 32 == 0) atomicAdd(total, sum);
}

struct Gpu {
  cudaDeviceProp properties;
  int blocks;
  char* buffer;
  size_t bytes;
  double* total;
  std::vector<std::string> entries;
};

// Median seconds of a launch.
template <class Launch>
double median_seconds(Launch launch) {
  cudaEvent_t before, after;
  CHECK(cudaEventCreate(&before));
  CHECK(cudaEventCreate(&after));
  std::vector<float> milliseconds(kLaunches);
  launch();
  CHECK(cudaGetLastError());
  for (float& one : milliseconds) {
    CHECK(cudaEventRecord(before));
    launch();
    CHECK(cudaEventRecord(after));
    CHECK(cudaEventSynchronize(after));
    CHECK(cudaEventElapsedTime(&one, before, after));
  }
  CHECK(cudaEventDestroy(before));
  CHECK(cudaEventDestroy(after));
  std::sort(milliseconds.begin(), milliseconds.end());
  return milliseconds[kLaunches / 2] * 1e-3;
}

void report(Gpu& gpu, const std::string& name, double bytes, double seconds) {
  char text[160];
  std::snprintf(text, sizeof text, "  \"%s\": %.5g", name.c_str(), bytes / seconds);
  gpu.entries.push_back(text);
}

double sum_of(Gpu& gpu, size_t bytes) {
  CHECK(cudaMemset(gpu.total, 0, sizeof *gpu.total));
  sum_kernel<<<gpu.blocks, kThreads>>>(reinterpret_cast<float*>(gpu.buffer), bytes / 4, gpu.total);
  CHECK(cudaGetLastError());
  double total = 0;
  CHECK(cudaMemcpy(&total, gpu.total, sizeof total, cudaMemcpyDeviceToHost));
  return total;
}

template <class Launch>
void measure_scatter(Gpu& gpu, const std::string& name, size_t bytes, bool counts_stay_exact,
                     Launch launch) {
  CHECK(cudaMemset(gpu.buffer, 0, bytes));
  launch();
  CHECK(cudaGetLastError());
  const double expected = double{kVectorsPerLaunch} * (kVectorBytes / 4);
  if (counts_stay_exact && sum_of(gpu, bytes) != expected) {
    std::fprintf(stderr, "%s: the sum is not %.0f: reductions were lost\n", name.c_str(), expected);
    std::exit(1);
  }
  report(gpu, name, double{kVectorsPerLaunch} * kVectorBytes, median_seconds(launch));
}

template <class Op, class Draw>
void scatter(Gpu& gpu, const std::string& name, size_t bytes, Draw draw, bool counts_stay_exact) {
  measure_scatter(gpu, name, bytes, counts_stay_exact, [&] {
    scatter_kernel<Op><<<gpu.blocks, kThreads>>>(gpu.buffer, draw, kVectorsPerLaunch);
  });
}

template <class Draw>
void scatter_all(Gpu& gpu, const std::string& where, size_t bytes, Draw draw, bool sparse) {
  scatter<RedF32>(gpu, "red_f32_" + where, bytes, draw, sparse);
  scatter<Store16>(gpu, "store_16B_" + where, bytes, draw, false);
  if constexpr (kHopper) {
    scatter<RedF32x4>(gpu, "red_f32x4_" + where, bytes, draw, sparse);
    scatter<RedBf16x8>(gpu, "red_bf16x8_" + where, bytes, draw, false);
    measure_scatter(gpu, "bulk_reduce_" + where, bytes, sparse, [&] {
      bulk_kernel<<<gpu.blocks, kThreads>>>(gpu.buffer, draw, kVectorsPerLaunch);
    });
  }
}

template <int kBytes>
void gather(Gpu& gpu, const std::string& where, size_t bytes) {
  const auto vectors = static_cast<uint32_t>(bytes / kBytes);
  const uint32_t count = kVectorsPerLaunch * (kVectorBytes / kBytes);
  const double seconds = median_seconds([&] {
    gather_kernel<kBytes>
        <<<gpu.blocks, kThreads>>>(gpu.buffer, reinterpret_cast<float*>(gpu.total), vectors, count);
  });
  report(gpu, "gather_" + std::to_string(kBytes) + "B_" + where, double{count} * kBytes, seconds);
}

void copy(Gpu& gpu) {
  const size_t half = gpu.bytes / 2;
  const double seconds = median_seconds([&] {
    CHECK(cudaMemcpyAsync(gpu.buffer + half, gpu.buffer, half, cudaMemcpyDeviceToDevice));
  });
  report(gpu, "copy_dram", 2. * half, seconds);  // bytes read and bytes written
}

void print(const Gpu& gpu) {
  std::printf("{\n  \"device\": \"%s\",\n  \"compiled_for\": %d,\n", gpu.properties.name,
              kArchs[0] / 10);
  for (size_t i = 0; i < gpu.entries.size(); ++i) {
    std::printf("%s%s\n", gpu.entries[i].c_str(), i + 1 < gpu.entries.size() ? "," : "");
  }
  std::printf("}\n");
}

int main() {
  Gpu gpu{};
  CHECK(cudaGetDeviceProperties(&gpu.properties, 0));
  const int per_sm = gpu.properties.maxThreadsPerMultiProcessor / kThreads;
  gpu.blocks = gpu.properties.multiProcessorCount * per_sm;
  gpu.bytes = size_t{2} << 30;
  CHECK(cudaMalloc(&gpu.buffer, gpu.bytes));
  CHECK(cudaMalloc(&gpu.total, sizeof *gpu.total));
  fill_kernel<<<gpu.blocks, kThreads>>>(reinterpret_cast<uint32_t*>(gpu.buffer), gpu.bytes / 4);
  CHECK(cudaGetLastError());

  copy(gpu);
  const size_t small = 22'000'000 / kVectorBytes * kVectorBytes;
  const size_t large = 275'000'000 / kVectorBytes * kVectorBytes;
  gather<128>(gpu, "22MB", small);
  gather<64>(gpu, "22MB", small);
  gather<128>(gpu, "275MB", large);
  gather<64>(gpu, "275MB", large);
  scatter_all(gpu, "22MB", small, Uniform{static_cast<uint32_t>(small / kVectorBytes)}, true);
  scatter_all(gpu, "275MB", large, Uniform{static_cast<uint32_t>(large / kVectorBytes)}, true);
  scatter_all(gpu, "hot_20x20", kHotVectors * kVectorBytes, Zipf{kHotVectors}, false);
  print(gpu);
  return 0;
}
