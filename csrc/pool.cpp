// Memory of the kernels' tensors and of their larger workspaces, kept from one training step to the next.
//
// The C library gives large blocks back to the system as they are freed, and the system clears each page
// again before the next step touches it, which costs as much as a good part of the step itself. Here freed
// blocks wait in lists by size. What waits is never more than what was in use at once.

#include <ATen/EmptyTensor.h>
#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <pthread.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <map>
#include <mutex>
#include <new>
#include <vector>

namespace {

constexpr size_t kSmall = size_t{1} << 16;  // smaller blocks are no trouble to the C library
constexpr size_t kAlignment = 64;

struct Block {
  void* data;
  size_t size;
};

struct Pool final : c10::Allocator {
  std::mutex mutex;
  std::map<size_t, std::vector<Block*>> waiting;
  size_t used = 0, most_used = 0, kept = 0;

  // An eighth of a power of two: batches of about the same length use the same blocks.
  static size_t rounded(size_t size) {
    if (size <= kSmall) return (size + kAlignment - 1) / kAlignment * kAlignment;
    size_t step = kAlignment;
    while (step * 16 <= size) step *= 2;
    return (size + step - 1) / step * step;
  }

  c10::DataPtr allocate(size_t bytes) override {
    const c10::Device device(c10::DeviceType::CPU);
    if (bytes == 0) return {nullptr, device};
    Block* block = borrow(bytes);
    TORCH_CHECK(block != nullptr, "can't allocate memory: tried to allocate ", bytes, " bytes, out of memory");
    return {block->data, block, &give_back, device};
  }

  // A block of at least this size; null if there is no memory.
  Block* borrow(size_t bytes) {
    const size_t size = rounded(bytes);
    std::lock_guard<std::mutex> lock(mutex);
    Block* block = nullptr;
    // Batches differ in length: a block that is somewhat too large will do.
    auto found = waiting.lower_bound(size);
    while (found != waiting.end() && found->second.empty()) ++found;
    if (found != waiting.end() && found->first <= size + size / 2) {
      block = found->second.back();
      found->second.pop_back();
      kept -= block->size;
    } else {
      void* data = std::aligned_alloc(kAlignment, size);
      if (data == nullptr) {
        release(0);
        data = std::aligned_alloc(kAlignment, size);
      }
      if (data == nullptr) return nullptr;
      block = new Block{data, size};
    }
    used += block->size;
    most_used = std::max(most_used, used);
    return block;
  }

  // Frees waiting blocks, the largest first, until at most `bytes` of them are left.
  void release(size_t bytes) {
    for (auto list = waiting.rbegin(); list != waiting.rend() && kept > bytes; ++list) {
      while (!list->second.empty() && kept > bytes) {
        Block* block = list->second.back();
        list->second.pop_back();
        kept -= block->size;
        std::free(block->data);
        delete block;
      }
    }
  }

  static void give_back(void* context);

  c10::DeleterFnPtr raw_deleter() const override { return nullptr; }

  void copy_data(void* to, const void* from, size_t count) const override { std::memcpy(to, from, count); }
};

Pool* new_pool();

// Never destroyed: tensors may outlive everything else.
Pool& pool() {
  static Pool* pool = new_pool();
  return *pool;
}

// A process may be forked while one of its threads allocates: the child must not find the lock taken for ever.
Pool* new_pool() {
  pthread_atfork([] { pool().mutex.lock(); }, [] { pool().mutex.unlock(); }, [] { pool().mutex.unlock(); });
  return new Pool;
}

void Pool::give_back(void* context) {
  auto* block = static_cast<Block*>(context);
  Pool& own = pool();
  std::lock_guard<std::mutex> lock(own.mutex);
  own.used -= block->size;
  own.kept += block->size;
  own.waiting[block->size].push_back(block);
  if (own.used + own.kept > own.most_used) own.release(own.most_used - own.used);
}

}  // namespace

// A new tensor of this shape, whose elements are whatever was in its memory; null if there is no memory.
extern "C" at::Tensor* mmiln_empty(const int64_t* shape, size_t axes, bool is_double) {
  try {
    const auto kind = is_double ? at::kDouble : at::kFloat;
    const c10::DispatchKeySet keys(c10::DispatchKey::CPU);
    return new at::Tensor(at::detail::empty_generic({shape, axes}, &pool(), keys, kind, std::nullopt));
  } catch (const std::exception&) {
    return nullptr;
  }
}

// Working memory of at least `bytes`, its place in `data`; null if there is none.
extern "C" void* mmiln_borrow(size_t bytes, void** data) {
  try {
    Block* block = pool().borrow(bytes);
    *data = block == nullptr ? nullptr : block->data;
    return block;
  } catch (const std::exception&) {
    return nullptr;
  }
}

extern "C" void mmiln_give_back(void* block) { Pool::give_back(block); }
