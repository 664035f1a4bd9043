// SPDX-License-Identifier: Apache-2.0
// The registered operators: schemas, checks, allocation, and the loop over tasks on the CPU.
#include <algorithm>
#include <array>
#include <atomic>
#include <limits>
#include <memory>
#include <optional>
#include <tuple>

#include "common/tensor.h"
#include "ms_deform_attn/cpu_kernels.h"

namespace rtdetr_ops {
namespace {

using Sizes = std::vector<std::int64_t>;

// Pixel indices inside an image are 32-bit in the kernels; offsets to memory are 64-bit.
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 30;

// The tensors of a call, made dense where the kernels need it, and the problem that points into
// them.
struct Call {
  std::vector<Level> levels;
  Tensor value, pairs, scalars;
  std::optional<Tensor> anchors, mask;
  Problem problem = {};

  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  Call(const Tensor& value_, const Sizes& level_sizes, const Tensor& pairs_, const Tensor& scalars_,
       const Sizes& points, bool discrete)
      : value(dense_from(value_, 3)),
        pairs(dense_from(pairs_, 3)),
        scalars(dense_from(scalars_, 3)) {
    STD_TORCH_CHECK(value.dim() == 4, "value: expected shape [B, S, M, D], got ",
                    shape_text(value.sizes()));
    STD_TORCH_CHECK(pairs.dim() == 5, "locations: expected shape [B, Q, M, T, 2], got ",
                    shape_text(pairs.sizes()));
    problem.B = value.size(0), problem.S = value.size(1), problem.M = value.size(2),
    problem.D = value.size(3);
    problem.Q = pairs.size(1), problem.T = pairs.size(3);
    problem.discrete = discrete;
    check_shape(pairs, "locations", {problem.B, problem.Q, problem.M, problem.T, 2});
    check_shape(scalars, "weights", {problem.B, problem.Q, problem.M, problem.T});
    set_levels(level_sizes, points);
    problem.value = {value.const_data_ptr(), storage_type(value, "value"), value.stride(0),
                     value.stride(1), value.stride(2)};
    problem.pairs = taps_view(pairs, "locations");
    problem.scalars = taps_view(scalars, "weights");
  }

  void fuse(const Tensor& reference, double offset_scale, const std::optional<Tensor>& value_mask) {
    STD_TORCH_CHECK(reference.dim() == 4, "reference: expected shape [B, Q, 1 or L, 2 or 4], got ",
                    shape_text(reference.sizes()));
    const std::int64_t shared = reference.size(2), coords = reference.size(3);
    STD_TORCH_CHECK((shared == 1 || shared == problem.L) && (coords == 2 || coords == 4),
                    "reference: expected shape [B, Q, 1 or L, 2 or 4], got ",
                    shape_text(reference.sizes()));
    check_shape(reference, "reference", {problem.B, problem.Q, shared, coords});
    anchors = dense_from(reference, 0);
    problem.fused = true;
    problem.offset_scale = offset_scale;
    problem.anchors = {anchors->const_data_ptr(), storage_type(*anchors, "reference"), shared,
                       coords};
    if (value_mask.has_value()) {
      STD_TORCH_CHECK(value_mask->scalar_type() == ScalarType::Bool,
                      "value_mask: expected a bool tensor, got ",
                      torch::headeronly::toString(value_mask->scalar_type()));
      check_shape(*value_mask, "value_mask", {problem.B, problem.S});
      mask = dense_from(*value_mask, 0);
      problem.mask = static_cast<const bool*>(mask->const_data_ptr());
    }
  }

 private:
  static TapsView taps_view(const Tensor& tensor, const char* name) {
    return {tensor.const_data_ptr(), storage_type(tensor, name), tensor.stride(0), tensor.stride(1),
            tensor.stride(2)};
  }

  // Sizes are checked as they are added up, so that no sum can overflow.
  void set_levels(const Sizes& sizes, const Sizes& points) {
    STD_TORCH_CHECK(problem.S < kMaxPixels, "value: expected S < 2^30 pixels, got S=", problem.S);
    STD_TORCH_CHECK(sizes.size() == 2 * points.size(),
                    "levels: expected one (H, W) for each of the ", points.size(),
                    " counts in points, got ", sizes.size(), " numbers");
    std::int64_t pixel = 0, tap = 0;
    for (std::size_t l = 0; l < points.size(); ++l) {
      const std::int64_t height = sizes[2 * l], width = sizes[2 * l + 1];
      STD_TORCH_CHECK(height > 0 && width > 0, "levels: expected sizes (H, W) >= 1, got (", height,
                      ", ", width, ")");
      STD_TORCH_CHECK(
          height <= problem.S && width <= problem.S && pixel + height * width <= problem.S,
          "levels: expected ", problem.S, " pixels in all as S of value, got more");
      STD_TORCH_CHECK(points[l] >= 0 && points[l] <= problem.T,
                      "points: expected counts from 0 to T=", problem.T, ", got ", points[l]);
      levels.push_back({height, width, pixel, tap, points[l]});
      pixel += height * width;
      tap += points[l];
    }
    STD_TORCH_CHECK(pixel == problem.S, "levels: expected ", problem.S,
                    " pixels in all as S of value, got ", pixel);
    STD_TORCH_CHECK(tap == problem.T, "points: expected ", problem.T,
                    " in all as T of locations, got ", tap);
    problem.levels = levels.data();
    problem.L = static_cast<std::int64_t>(levels.size());
  }
};

// Shares tasks out one by one; `pass(begin, end)` must not care how. Small work stays on the
// calling thread.
template <class Pass>
void run_tasks(std::int64_t tasks, std::int64_t operations, const Pass& pass) {
  constexpr std::int64_t kOperationsPerThread = 1 << 18;
  const std::int64_t threads =
      std::min({static_cast<std::int64_t>(torch::stable::get_num_threads()), tasks,
                1 + operations / kOperationsPerThread});
  if (threads <= 1) {
    if (tasks > 0) pass(0, tasks);
    return;
  }
  torch::stable::parallel_for(0, threads, 1, [&](std::int64_t begin, std::int64_t end) {
    pass(tasks * begin / threads, tasks * end / threads);
  });
}

std::int64_t operations(const Problem& p) {
  return p.B * p.Q * p.M * p.T * p.D * (p.discrete ? 1 : 4);
}

Tensor run_forward(const Call& call) {
  const Problem& p = call.problem;
  Tensor out = allocate(call.value, {p.B, p.Q, p.M * p.D});
  const Forward args = {p, out.mutable_data_ptr()};
  const CpuKernels& kernels = cpu_kernels();
  run_tasks(kernels.query_tasks(p), operations(p),
            [&](std::int64_t begin, std::int64_t end) { kernels.forward(args, begin, end); });
  return out;
}

struct Gradients {
  Tensor value, pairs, scalars, anchors;
};

// Gradients nobody needs come back as tensors without elements.
Gradients run_backward(const Call& call, const Tensor& grad_output, bool needs_value,
                       bool needs_pairs, bool needs_scalars, bool needs_anchors) {
  const Problem& p = call.problem;
  check_shape(grad_output, "grad_output", {p.B, p.Q, p.M * p.D});
  Tensor grad_out = dense_from(grad_output, 0);
  if (grad_out.scalar_type() != call.value.scalar_type()) {
    grad_out = torch::stable::to(grad_out, call.value.scalar_type());
  }
  const Tensor none = allocate(call.value, {0});
  const Gradients grads = {needs_value ? allocate_like(call.value) : none,
                           needs_pairs ? allocate_like(call.pairs) : none,
                           needs_scalars ? allocate_like(call.scalars) : none,
                           needs_anchors ? allocate_like(*call.anchors) : none};
  const std::int64_t anchor_row = p.M * p.anchors.levels * p.anchors.coords;
  const auto head_anchors =
      std::make_unique_for_overwrite<double[]>(needs_anchors ? p.B * p.Q * anchor_row : 0);
  const Backward args = {p,
                         grad_out.const_data_ptr(),
                         needs_value ? grads.value.mutable_data_ptr() : nullptr,
                         needs_pairs ? grads.pairs.mutable_data_ptr() : nullptr,
                         needs_scalars ? grads.scalars.mutable_data_ptr() : nullptr,
                         needs_anchors ? grads.anchors.mutable_data_ptr() : nullptr,
                         head_anchors.get()};
  const CpuKernels& kernels = cpu_kernels();
  if (needs_pairs || needs_scalars || needs_anchors) {
    run_tasks(kernels.query_tasks(p), operations(p), [&](std::int64_t begin, std::int64_t end) {
      kernels.backward_taps(args, begin, end);
    });
  }
  if (needs_anchors) {
    run_tasks(p.B * p.Q, p.B * p.Q * anchor_row, [&](std::int64_t begin, std::int64_t end) {
      kernels.backward_anchors(args, begin, end);
    });
  }
  if (needs_value) {
    const std::int64_t threads = torch::stable::get_num_threads();
    run_tasks(kernels.value_tasks(p, threads), operations(p) + p.B * p.S * p.M * p.D,
              [&](std::int64_t begin, std::int64_t end) {
                kernels.backward_value(args, threads, begin, end);
              });
  }
  return grads;
}

Tensor forward_cpu(const Tensor& value, const Sizes& levels, const Tensor& locations,
                   const Tensor& weights, const Sizes& points, bool discrete) {
  return run_forward(Call(value, levels, locations, weights, points, discrete));
}

std::tuple<Tensor, Tensor, Tensor> backward_cpu(const Tensor& grad_output, const Tensor& value,
                                                const Sizes& levels, const Tensor& locations,
                                                const Tensor& weights, const Sizes& points,
                                                bool discrete, bool needs_value,
                                                bool needs_locations, bool needs_weights) {
  const Call call(value, levels, locations, weights, points, discrete);
  const Gradients grads =
      run_backward(call, grad_output, needs_value, needs_locations, needs_weights, false);
  return {grads.value, grads.pairs, grads.scalars};
}

Tensor fused_forward_cpu(const Tensor& value, const Sizes& levels, const Tensor& reference,
                         const Tensor& offsets, const Tensor& logits, const Sizes& points,
                         bool discrete, double offset_scale,
                         const std::optional<Tensor>& value_mask) {
  Call call(value, levels, offsets, logits, points, discrete);
  call.fuse(reference, offset_scale, value_mask);
  return run_forward(call);
}

std::tuple<Tensor, Tensor, Tensor, Tensor> fused_backward_cpu(
    const Tensor& grad_output, const Tensor& value, const Sizes& levels, const Tensor& reference,
    const Tensor& offsets, const Tensor& logits, const Sizes& points, bool discrete,
    double offset_scale, const std::optional<Tensor>& value_mask, bool needs_value,
    bool needs_reference, bool needs_offsets, bool needs_logits) {
  Call call(value, levels, offsets, logits, points, discrete);
  call.fuse(reference, offset_scale, value_mask);
  const Gradients grads =
      run_backward(call, grad_output, needs_value, needs_offsets, needs_logits, needs_reference);
  return {grads.value, grads.anchors, grads.pairs, grads.scalars};
}

}  // namespace

STABLE_TORCH_LIBRARY_FRAGMENT(rtdetr_ops, m) {
  m.def(
      "ms_deform_attn(Tensor value, SymInt[] levels, Tensor locations, Tensor weights, int[] "
      "points, bool discrete)"
      " -> Tensor");
  m.def(
      "ms_deform_attn_backward(Tensor grad_output, Tensor value, SymInt[] levels, Tensor locations,"
      " Tensor weights, int[] points, bool discrete, bool needs_value, bool needs_locations, bool "
      "needs_weights)"
      " -> (Tensor, Tensor, Tensor)");
  m.def(
      "ms_deform_attn_fused(Tensor value, SymInt[] levels, Tensor reference, Tensor offsets, "
      "Tensor logits,"
      " int[] points, bool discrete, float offset_scale, Tensor? value_mask) -> Tensor");
  m.def(
      "ms_deform_attn_fused_backward(Tensor grad_output, Tensor value, SymInt[] levels, Tensor "
      "reference,"
      " Tensor offsets, Tensor logits, int[] points, bool discrete, float offset_scale, Tensor? "
      "value_mask,"
      " bool needs_value, bool needs_reference, bool needs_offsets, bool needs_logits)"
      " -> (Tensor, Tensor, Tensor, Tensor)");
}

STABLE_TORCH_LIBRARY_IMPL(rtdetr_ops, CPU, m) {
  m.impl("ms_deform_attn", TORCH_BOX(&forward_cpu));
  m.impl("ms_deform_attn_backward", TORCH_BOX(&backward_cpu));
  m.impl("ms_deform_attn_fused", TORCH_BOX(&fused_forward_cpu));
  m.impl("ms_deform_attn_fused_backward", TORCH_BOX(&fused_backward_cpu));
}

}  // namespace rtdetr_ops
