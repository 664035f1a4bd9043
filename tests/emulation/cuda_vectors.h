// SPDX-License-Identifier: Apache-2.0
// CUDA's short vectors, with its alignments: UndefinedBehaviorSanitizer finds a misaligned load.
#pragma once

// Kernels move numbers of any type through them, which NVIDIA's compiler takes as it is meant.
#define RTDETR_OPS_ANY_TYPE [[gnu::may_alias]]

struct RTDETR_OPS_ANY_TYPE alignas(8) int2 {
  int x, y;
};
struct RTDETR_OPS_ANY_TYPE alignas(16) int4 {
  int x, y, z, w;
};
struct RTDETR_OPS_ANY_TYPE alignas(8) uint2 {
  unsigned int x, y;
};
struct uint3 {
  unsigned int x, y, z;
};
struct RTDETR_OPS_ANY_TYPE alignas(16) uint4 {
  unsigned int x, y, z, w;
};
struct RTDETR_OPS_ANY_TYPE alignas(8) float2 {
  float x, y;
};
struct RTDETR_OPS_ANY_TYPE alignas(16) float4 {
  float x, y, z, w;
};
struct RTDETR_OPS_ANY_TYPE alignas(16) double2 {
  double x, y;
};

struct dim3 {
  unsigned int x, y, z;

  constexpr dim3(unsigned int x_ = 1, unsigned int y_ = 1, unsigned int z_ = 1)
      : x(x_), y(y_), z(z_) {}
};

constexpr int2 make_int2(int x, int y) { return {x, y}; }
constexpr int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
constexpr uint2 make_uint2(unsigned int x, unsigned int y) { return {x, y}; }
constexpr uint3 make_uint3(unsigned int x, unsigned int y, unsigned int z) { return {x, y, z}; }
constexpr uint4 make_uint4(unsigned int x, unsigned int y, unsigned int z, unsigned int w) {
  return {x, y, z, w};
}
constexpr float2 make_float2(float x, float y) { return {x, y}; }
constexpr float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
constexpr double2 make_double2(double x, double y) { return {x, y}; }
