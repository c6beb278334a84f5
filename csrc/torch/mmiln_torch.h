// What differs between the versions of torch that the core compiles against, and of Python that it runs with. Every C++
// file includes it first, those of torch-sys too (.cargo/config.toml).
#pragma once

// torch's headers call one function that is not the same in all of CPython from 3.11 on: the thread state, or null without
// the GIL. 3.13 renamed it. The name must be replaced before Python.h declares it.
#if __has_include(<patchlevel.h>)
#include <patchlevel.h>  // Python's version
extern "C" {
struct _ts;
struct _ts* mmiln_thread_state_to_3_12() __asm__("_PyThreadState_UncheckedGet") __attribute__((weak));
struct _ts* mmiln_thread_state_from_3_13() __asm__("PyThreadState_GetUnchecked") __attribute__((weak));
inline struct _ts* mmiln_thread_state() {
  return mmiln_thread_state_from_3_13 ? mmiln_thread_state_from_3_13() : mmiln_thread_state_to_3_12();
}
}
#if PY_VERSION_HEX < 0x030D0000
#define _PyThreadState_UncheckedGet mmiln_thread_state
#else
#define PyThreadState_GetUnchecked mmiln_thread_state
#endif
#endif

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
