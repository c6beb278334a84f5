// Tensors of the kernels, in memory that steps reuse: the blocks of crates/numeric/src/pool.rs.

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>

#include <cstring>

// src/ops/memory.rs
extern "C" void* mmiln_borrow(size_t bytes, void** data);
extern "C" void mmiln_give_back(void* block);

namespace {

struct Pool final : c10::Allocator {
  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, device};
    void* data;
    void* block = mmiln_borrow(bytes, &data);
    TORCH_CHECK(block != nullptr, "can't allocate memory: tried to allocate ", bytes, " bytes, out of memory");
    return {data, block, &mmiln_give_back, device};
  }

  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }

  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }
};

}  // namespace

// A new tensor of this shape, with arbitrary elements; null if there is no memory.
extern "C" at::Tensor* mmiln_empty(const int64_t* shape, size_t axes, bool is_double) {
  static Pool* const pool = new Pool;  // never destroyed: tensors may outlive everything else
  try {
    const auto kind = is_double ? at::kDouble : at::kFloat;
    const c10::DispatchKeySet keys(c10::DispatchKey::CPU);
    return new at::Tensor(at::detail::empty_generic({shape, axes}, pool, keys, kind, std::nullopt));
  } catch (const std::exception&) {
    return nullptr;
  }
}
