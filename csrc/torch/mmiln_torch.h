// What differs between the versions of torch that the core compiles against. Every C++ file includes it first, those of
// torch-sys too (.cargo/config.toml).
#pragma once

#include <ATen/core/Tensor.h>
#include <torch/headeronly/version.h>

#include <tuple>

static_assert(TORCH_VERSION_MAJOR == 2 && TORCH_VERSION_MINOR >= 11, "mmiln needs torch 2.11 or later");

// From 2.13 on, c10::intrusive_ptr holds the nodes of autograd; before, std::shared_ptr did.
#define MMILN_NODES_ARE_INTRUSIVE (TORCH_VERSION_MINOR >= 13)

// torch-sys wraps every function of the version that it was made for, 2.13. Those that another version lacks are
// declared here, so that it compiles; the core calls none of them.
#define MMILN_LACKS(name, result)                                       \
  template <class... Args>                                              \
  result name(const Args&...) {                                         \
    TORCH_CHECK(false, "torch ", TORCH_VERSION, " lacks torch::" #name); \
  }

namespace torch {
using Two = std::tuple<at::Tensor, at::Tensor>;
#if TORCH_VERSION_MINOR < 12
MMILN_LACKS(_flash_attention_forward_no_dropout_inplace, at::Tensor)
MMILN_LACKS(_philox_key_fold_in, at::Tensor)
MMILN_LACKS(_philox_key_split, at::Tensor)
MMILN_LACKS(_philox_normal, at::Tensor)
MMILN_LACKS(_philox_normal_, at::Tensor)
MMILN_LACKS(_philox_normal_out, at::Tensor)
MMILN_LACKS(_philox_uniform, at::Tensor)
MMILN_LACKS(_philox_uniform_, at::Tensor)
MMILN_LACKS(_philox_uniform_out, at::Tensor)
MMILN_LACKS(_scaled_dot_product_attention_math_for_mps, Two)
MMILN_LACKS(_upsample_lanczos2d_aa, at::Tensor)
MMILN_LACKS(_upsample_lanczos2d_aa_backward, at::Tensor)
MMILN_LACKS(_upsample_lanczos2d_aa_backward_out, at::Tensor)
MMILN_LACKS(_upsample_lanczos2d_aa_out, at::Tensor)
#endif
#if TORCH_VERSION_MINOR >= 14
MMILN_LACKS(cholesky, at::Tensor)
MMILN_LACKS(cholesky_out, at::Tensor)
MMILN_LACKS(qr, Two)
MMILN_LACKS(qr_out, Two)
#endif
}  // namespace torch

#undef MMILN_LACKS
