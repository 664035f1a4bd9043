// SPDX-License-Identifier: Apache-2.0
// The operators on CUDA: the device, the stream and the memory of each launch.
#include <torch/csrc/stable/accelerator.h>

#include "common/errors.h"
#include "ms_deform_attn/cuda_kernels.h"
#include "ms_deform_attn/op.h"

// Tests emulate the kernels on the host and register them for tensors there.
#if !defined(RTDETR_OPS_CUDA_DISPATCH_KEY)
#define RTDETR_OPS_CUDA_DISPATCH_KEY CUDA
#endif

// Only CUDA builds of torch have it; beside another torch it is null, and nothing is registered
// that could be called with a tensor on a GPU.
extern "C" __attribute__((weak)) AOTITorchError
aoti_torch_get_current_cuda_stream(std::int32_t device_index, void** stream);

namespace rtdetr_ops {
namespace {

// The device of a tensor and its current stream, for as long as this lives.
class DeviceScope {
 public:
  explicit DeviceScope(const Tensor& tensor) {
    if (aoti_torch_get_current_cuda_stream == nullptr) return;
    const std::int32_t device = tensor.get_device_index();
    guard_.emplace(device);
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device, &stream_));
  }
  void* stream() const { return stream_; }

 private:
  std::optional<torch::stable::accelerator::DeviceGuard> guard_;
  void* stream_ = nullptr;
};

struct Cuda {
  static constexpr bool kReadsSizes = false;

  static Tensor forward(const Call<kReadsSizes>& call) {
    const Problem& p = call.problem;
    const DeviceScope scope(call.value);
    Tensor out = allocate(call.value, {p.B, p.Q, p.M * p.D});
    const Memory workspace(call.value, forward_workspace(p));
    const Forward args = {p, out.mutable_data_ptr()};
    check(launch_forward(args, {scope.stream(), workspace.data(), false}));
    return out;
  }

  static Gradients backward(const Call<kReadsSizes>& call, const Tensor& grad_out,
                            const Needs& needs, bool deterministic) {
    const Problem& p = call.problem;
    const DeviceScope scope(call.value);
    const Gradients grads = allocate_gradients(call, needs);
    const std::int64_t reference_numbers =
        p.B * p.Q * p.M * p.reference.levels * p.reference.coords;
    const Memory head_grad_reference(
        call.value,
        needs.reference ? static_cast<std::size_t>(reference_numbers) * sizeof(double) : 0);
    const Backward args = backward_arguments(p, grad_out, grads, needs, head_grad_reference.data());
    const Memory workspace(call.value, backward_workspace(args, deterministic));
    check(launch_backward(args, {scope.stream(), workspace.data(), deterministic}));
    return grads;
  }

 private:
  // Bytes on the device of `like`, given back to the allocator of torch, which keeps them from
  // other work on this stream until the launches are through.
  class Memory {
   public:
    Memory(const Tensor& like, std::size_t bytes) {
      if (bytes > 0) tensor_ = allocate_bytes(like, static_cast<std::int64_t>(bytes));
    }
    void* data() const { return tensor_.has_value() ? tensor_->mutable_data_ptr() : nullptr; }

   private:
    std::optional<Tensor> tensor_;
  };

  static void check(Status status) {
    if (status.failed()) fail("ms_deform_attn: ", status.error());
  }
};

}  // namespace

STABLE_TORCH_LIBRARY_IMPL(rtdetr_ops, RTDETR_OPS_CUDA_DISPATCH_KEY, library) {
  implement<Cuda>(library);
}

}  // namespace rtdetr_ops
