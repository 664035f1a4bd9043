// SPDX-License-Identifier: Apache-2.0
// From the tensors of a call to the problem the kernels see, checked.
#pragma once

#include <optional>
#include <vector>

#include "common/tensor.h"
#include "ms_deform_attn/params.h"

namespace rtdetr_ops {

using Sizes = std::vector<std::int64_t>;

// The feature pyramid: the sizes of its levels as numbers, [H_0, W_0, H_1, ...], or as a tensor
// [L, 2] on the device of `value`.
struct Pyramid {
  const Sizes& sizes;
  const std::optional<Tensor>& sizes_tensor;
  const Sizes& points;
};

// Pixel indices inside an image are 32-bit in the kernels; offsets to memory are 64-bit.
constexpr std::int64_t kMaxPixels = std::int64_t{1} << 30;

// The tensors of a call, made dense where the kernels need it, and the problem that points into
// them.
template <bool kReadsSizes>  // whether a tensor of sizes lies in host memory
struct Call {
  std::vector<Level> levels;
  Tensor value, points_xy, point_scores;
  std::optional<Tensor> reference_points, mask, size_tensor;
  Problem problem = {};

  Call(const Call&) = delete;
  Call& operator=(const Call&) = delete;

  // The plain entry: locations and weights.
  Call(const Tensor& value_, const Pyramid& pyramid, const Tensor& locations, const Tensor& weights,
       bool discrete)
      : Call(value_, pyramid, {"locations", locations}, {"weights", weights}, discrete) {}

  // The fused entry.
  Call(const Tensor& value_, const Pyramid& pyramid, const Tensor& reference, const Tensor& offsets,
       const Tensor& logits, bool discrete, double offset_scale,
       const std::optional<Tensor>& value_mask)
      : Call(value_, pyramid, {"offsets", offsets}, {"logits", logits}, discrete) {
    problem.fused = true;
    problem.offset_scale = offset_scale;
    set_reference(reference);
    if (value_mask.has_value()) set_mask(*value_mask);
  }

 private:
  struct Argument {
    const char* name;
    const Tensor& tensor;
  };

  Call(const Tensor& value_, const Pyramid& pyramid, Argument xy, Argument scores, bool discrete)
      : value(dense_from(checked(value_, "value", value_), 3)),
        points_xy(dense_from(checked(xy.tensor, xy.name, value_), 3)),
        point_scores(dense_from(checked(scores.tensor, scores.name, value_), 3)) {
    if (value.dim() != 4)
      fail("value: expected shape [B, S, M, D], got ", shape_text(value.sizes()));
    if (points_xy.dim() != 5)
      fail(xy.name, ": expected shape [B, Q, M, T, 2], got ", shape_text(points_xy.sizes()));
    problem.B = value.size(0), problem.S = value.size(1), problem.M = value.size(2),
    problem.D = value.size(3);
    problem.Q = points_xy.size(1), problem.T = points_xy.size(3);
    problem.discrete = discrete;
    check_shape(points_xy, xy.name, {problem.B, problem.Q, problem.M, problem.T, 2});
    check_shape(point_scores, scores.name, {problem.B, problem.Q, problem.M, problem.T});
    set_levels(pyramid);
    problem.value = {value.const_data_ptr(), storage_type(value, "value"), value.stride(0),
                     value.stride(1), value.stride(2)};
    problem.points_xy = taps_view(points_xy, xy.name);
    problem.point_scores = taps_view(point_scores, scores.name);
  }

  static TapsView taps_view(const Tensor& tensor, const char* name) {
    return {tensor.const_data_ptr(), storage_type(tensor, name), tensor.stride(0), tensor.stride(1),
            tensor.stride(2)};
  }

  void set_reference(const Tensor& reference) {
    const bool has_axes = reference.dim() == 4;
    const std::int64_t shared = has_axes ? reference.size(2) : 0,
                       coords = has_axes ? reference.size(3) : 0;
    if ((shared != 1 && shared != problem.L) || (coords != 2 && coords != 4))
      fail("reference: expected shape [B, Q, 1 or L, 2 or 4], got ", shape_text(reference.sizes()));
    check_shape(reference, "reference", {problem.B, problem.Q, shared, coords});
    reference_points = dense_from(checked(reference, "reference", value), 0);
    problem.reference = {reference_points->const_data_ptr(),
                         storage_type(*reference_points, "reference"), shared, coords};
  }

  void set_mask(const Tensor& value_mask) {
    if (value_mask.scalar_type() != ScalarType::Bool) {
      fail("value_mask: expected a bool tensor, got ",
           torch::headeronly::toString(value_mask.scalar_type()));
    }
    check_shape(value_mask, "value_mask", {problem.B, problem.S});
    mask = dense_from(checked(value_mask, "value_mask", value), 0);
    problem.mask = static_cast<const bool*>(mask->const_data_ptr());
  }

  void set_levels(const Pyramid& pyramid) {
    if (problem.S >= kMaxPixels) fail("value: expected S < 2^30 pixels, got S=", problem.S);
    set_points(pyramid.points);
    if (pyramid.sizes_tensor.has_value()) {
      set_size_tensor(*pyramid.sizes_tensor);
    } else {
      set_sizes(pyramid.sizes);
    }
    problem.levels = levels.data();
    problem.L = static_cast<std::int64_t>(levels.size());
  }

  void set_points(const Sizes& points) {
    std::int64_t tap = 0;
    for (const std::int64_t count : points) {
      if (count < 0 || count > problem.T)
        fail("points: expected counts from 0 to T=", problem.T, ", got ", count);
      levels.push_back({0, 0, 0, tap, count});
      tap += count;
    }
    if (tap != problem.T)
      fail("points: expected counts that add up to T=", problem.T, ", got ", tap);
  }

  // Sizes are checked as they are added up, so that no sum can overflow.
  void set_sizes(const Sizes& sizes) {
    if (sizes.size() != 2 * levels.size()) {
      fail("levels: expected one (H, W) for each of the ", levels.size(), " counts in points, got ",
           sizes.size(), " numbers");
    }
    std::int64_t pixel = 0;
    for (std::size_t l = 0; l < levels.size(); ++l) {
      const std::int64_t height = sizes[2 * l], width = sizes[2 * l + 1];
      if (height < 1 || width < 1)
        fail("levels: expected sizes (H, W) >= 1, got (", height, ", ", width, ")");
      if (height > problem.S || width > problem.S || pixel + height * width > problem.S)
        fail("levels: expected ", problem.S, " pixels in all as S of value, got more");
      levels[l].height = height, levels[l].width = width, levels[l].first_pixel = pixel;
      pixel += height * width;
    }
    if (pixel != problem.S)
      fail("levels: expected ", problem.S, " pixels in all as S of value, got ", pixel);
  }

  void set_size_tensor(const Tensor& tensor) {
    if (tensor.scalar_type() != ScalarType::Long) {
      fail("levels: expected an int64 tensor, got ",
           torch::headeronly::toString(tensor.scalar_type()));
    }
    check_shape(tensor, "levels", {static_cast<std::int64_t>(levels.size()), 2});
    size_tensor = dense_from(checked(tensor, "levels", value), 0);
    const auto* const sizes = static_cast<const std::int64_t*>(size_tensor->const_data_ptr());
    if (kReadsSizes) {
      set_sizes(Sizes(sizes, sizes + size_tensor->numel()));
    } else {
      problem.device_levels = sizes;
    }
  }
};

// Gradients nobody needs are tensors without elements.
struct Gradients {
  Tensor value, points_xy, point_scores, reference;
};

struct Needs {
  bool value, points_xy, point_scores, reference;
};

template <bool kReadsSizes>
Gradients allocate_gradients(const Call<kReadsSizes>& call, const Needs& needs) {
  const Tensor none = allocate(call.value, {0});
  return {needs.value ? allocate_like(call.value) : none,
          needs.points_xy ? allocate_like(call.points_xy) : none,
          needs.point_scores ? allocate_like(call.point_scores) : none,
          needs.reference ? allocate_like(*call.reference_points) : none};
}

// Contiguous [B, Q, M, D] of the dtype of value.
template <bool kReadsSizes>
Tensor dense_grad_output(const Call<kReadsSizes>& call, const Tensor& grad_output) {
  const Problem& p = call.problem;
  check_shape(grad_output, "grad_output", {p.B, p.Q, p.M * p.D});
  const Tensor& grad = checked(grad_output, "grad_output", call.value);
  const std::int32_t dtype = dtype_of(call.value);
  return dtype_of(grad) == dtype ? dense_from(grad, 0) : dense_copy(grad, dtype);
}

inline Backward backward_arguments(const Problem& problem, const Tensor& grad_out,
                                   const Gradients& grads, const Needs& needs,
                                   void* head_grad_reference) {
  return {problem,
          grad_out.const_data_ptr(),
          needs.value ? grads.value.mutable_data_ptr() : nullptr,
          needs.points_xy ? grads.points_xy.mutable_data_ptr() : nullptr,
          needs.point_scores ? grads.point_scores.mutable_data_ptr() : nullptr,
          needs.reference ? grads.reference.mutable_data_ptr() : nullptr,
          head_grad_reference};
}

}  // namespace rtdetr_ops
