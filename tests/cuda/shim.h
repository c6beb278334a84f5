// The part of CUDA C++ that the kernels use, on the CPU. Blocks run one after the other; the threads of a block
// are fibres that take turns at barriers and shuffles, or with SHIM_THREADS threads of the system, for
// ThreadSanitizer. A deadlock of threads is detected and reported.
//
// Fibres run in an order that changes from one barrier to the next, so that a result which depends on it shows.
#pragma once
#define SHIM

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#ifdef SHIM_THREADS
#include <atomic>
#include <chrono>
#include <condition_variable>
#include <functional>
#include <mutex>
#include <thread>
#else
#include <setjmp.h>
#include <ucontext.h>
#endif

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __noinline__
#define __shared__ static
#define __launch_bounds__(...)
#define __align__(n) alignas(n)

struct dim3 {
  unsigned x = 1, y = 1, z = 1;
};

using std::exp, std::pow, std::fabs, std::fma, std::log, std::sqrt, std::tanh, std::erf, std::min, std::max, std::isfinite;

namespace shim {

struct Thread {
  unsigned index = 0;
  dim3 place;
};

#ifdef SHIM_THREADS
inline thread_local Thread* current = nullptr;
#else
inline Thread* current = nullptr;
#endif
inline dim3 grid, block, block_place;
inline std::vector<unsigned char> memory;
inline unsigned memory_size = 0;
constexpr unsigned kWarp = 32, kGuard = 64;

// Waits for the block's threads (`warp` < 0) or for those of a warp.
void wait(int warp);

// A word for each thread, through which the lanes of a warp exchange values.
inline std::vector<uint64_t> words;

template <typename T>
T exchange(T value, unsigned from) {
  static_assert(sizeof(T) <= 8);
  const unsigned own = current->index, warp = own / kWarp;
  std::memcpy(&words[own], &value, sizeof(T));
  wait(warp);
  T other;
  std::memcpy(&other, &words[warp * kWarp + from % kWarp], sizeof(T));
  wait(warp);
  return other;
}

}  // namespace shim

#define threadIdx (shim::current->place)
#define blockIdx (shim::block_place)
#define blockDim (shim::block)
#define gridDim (shim::grid)

inline void __syncthreads() { shim::wait(-1); }
inline void __syncwarp(unsigned = ~0u) { shim::wait(shim::current->index / shim::kWarp); }
template <typename T>
T __shfl_xor_sync(unsigned, T value, int mask) {
  return shim::exchange(value, shim::current->index ^ mask);
}
template <typename T>
T __shfl_sync(unsigned, T value, int lane) {
  return shim::exchange(value, lane);
}
template <typename T>
T __shfl_down_sync(unsigned, T value, int by) {
  const unsigned lane = shim::current->index % shim::kWarp;
  return shim::exchange(value, lane + by < shim::kWarp ? lane + by : lane);
}
template <typename T>
T __ldg(const T* at) { return *at; }

inline real* shared_memory() { return reinterpret_cast<real*>(shim::memory.data()); }

namespace shim {

inline std::string error;

struct Barrier {
  unsigned waiting = 0, round = 0;
};

#ifdef SHIM_THREADS

// Each barrier has a lock of its own: one for all would put warps in an order that a card does not.
struct Gate {
  std::mutex mutex;
  std::condition_variable change;
  Barrier barrier;
};

// Never destroyed, as threads may wait there when the process ends.
inline Gate* const gates = new Gate[33];

inline void wait(int warp) {
  Gate& gate = gates[warp + 1];
  std::unique_lock<std::mutex> lock(gate.mutex);
  const unsigned size = warp < 0 ? block.x : std::min(kWarp, block.x - warp * kWarp);
  const unsigned round = gate.barrier.round;
  if (++gate.barrier.waiting == size) {
    gate.barrier.waiting = 0;
    ++gate.barrier.round;
    gate.change.notify_all();
  } else {
    gate.change.wait(lock, [&] { return gate.barrier.round != round; });
  }
}

// The threads, started once: the sanitizer keeps something of each that ever ran. They start and end a block by
// numbers that order each of them with the launch, and not with each other, as locks would.
inline std::atomic<unsigned> job{0}, busy{0};
inline unsigned pool_size = 0;
inline std::function<void()> work;

template <typename Done>
void spin(Done done) {
  while (!done()) std::this_thread::sleep_for(std::chrono::microseconds(20));
}

inline void serve(unsigned index, unsigned seen) {
  Thread own{index, {index, 0, 0}};
  current = &own;
  for (;;) {
    spin([&] { return job.load(std::memory_order_acquire) != seen; });
    ++seen;
    if (index < block.x) work();
    busy.fetch_sub(1, std::memory_order_release);
  }
}

template <typename Body>
void run_block(Body body) {
  for (; pool_size < block.x; ++pool_size) std::thread(serve, pool_size, job.load()).detach();
  work = body;
  busy.store(pool_size);
  job.fetch_add(1, std::memory_order_release);
  spin([] { return busy.load(std::memory_order_acquire) == 0; });
}

#else

struct Fibre : Thread {
  std::unique_ptr<char[]> stack;
  ucontext_t begin;
  jmp_buf at;
  bool started = false, done = false;
  int waits_for = -2;  // nobody; -1 the block, else a warp
};

inline std::vector<Fibre> fibres;
inline jmp_buf scheduler;
inline Barrier barriers[33];
inline void (*entry)(const void*) = nullptr;
inline const void* entry_data = nullptr;

inline void start() {
  entry(entry_data);
  static_cast<Fibre*>(current)->done = true;
  _longjmp(scheduler, 1);
}

inline void wait(int warp) {
  auto* own = static_cast<Fibre*>(current);
  own->waits_for = warp;
  ++barriers[warp + 1].waiting;
  if (_setjmp(own->at) == 0) _longjmp(scheduler, 1);
}

inline void resume(Fibre& fibre) {
  current = &fibre;
  if (_setjmp(scheduler) != 0) return;
  if (fibre.started) _longjmp(fibre.at, 1);
  fibre.started = true;
  constexpr size_t size = 1 << 16;
  if (!fibre.stack) fibre.stack.reset(new char[size]);
  getcontext(&fibre.begin);
  fibre.begin.uc_stack.ss_sp = fibre.stack.get();
  fibre.begin.uc_stack.ss_size = size;
  fibre.begin.uc_link = nullptr;
  makecontext(&fibre.begin, start, 0);
  setcontext(&fibre.begin);
}

template <typename Body>
void run_block(Body body) {
  const unsigned count = block.x;
  if (fibres.size() < count) fibres.resize(count);
  for (unsigned i = 0; i < count; ++i) {
    Fibre& fibre = fibres[i];
    static_cast<Thread&>(fibre) = {i, {i, 0, 0}};
    fibre.started = fibre.done = false;
    fibre.waits_for = -2;
  }
  for (auto& barrier : barriers) barrier = {};
  entry = [](const void* data) { (*static_cast<const Body*>(data))(); };
  entry_data = &body;
  bool backwards = false;
  for (;;) {
    bool ran = false, left = false;
    for (unsigned n = 0; n < count; ++n) {
      Fibre& fibre = fibres[backwards ? count - 1 - n : n];
      if (fibre.done || fibre.waits_for != -2) continue;
      resume(fibre);
      ran = true;
    }
    backwards = !backwards;
    // Opens each barrier that all of its threads have come to.
    for (int warp = -1; warp < 32; ++warp) {
      Barrier& barrier = barriers[warp + 1];
      const unsigned first = warp < 0 ? 0 : warp * kWarp;
      if (barrier.waiting == 0) continue;
      const unsigned size = warp < 0 ? count : std::min(kWarp, count - first);
      if (barrier.waiting < size) continue;
      barrier.waiting = 0;
      for (unsigned i = first; i < first + size; ++i)
        if (fibres[i].waits_for == warp) fibres[i].waits_for = -2;
      ran = true;
    }
    for (unsigned i = 0; i < count; ++i) left = left || !fibres[i].done;
    if (!left) return;
    if (!ran) {
      error = "threads of a block wait at different barriers, or for threads that have returned";
      return;
    }
  }
}

#endif

template <typename Arguments>
const char* launch(void (*kernel)(Arguments), unsigned x, unsigned y, unsigned z, unsigned threads, unsigned shared,
                   const void* arguments, size_t size) {
  error.clear();
  if (size != sizeof(Arguments)) {
    error = "the kernel's struct has " + std::to_string(sizeof(Arguments)) + " bytes, the caller's " + std::to_string(size);
    return error.c_str();
  }
  grid = {x, y, z};
  block = {threads, 1, 1};
  words.resize(1024);
  memory.resize(shared + kGuard);
  Arguments own = *static_cast<const Arguments*>(arguments);
  for (unsigned k = 0; k < z; ++k)
    for (unsigned j = 0; j < y; ++j)
      for (unsigned i = 0; i < x; ++i) {
        block_place = {i, j, k};
        // Not a number, until something is written; a pattern behind the end.
        std::memset(memory.data(), 0xFF, shared);
        std::memset(memory.data() + shared, 0x5A, kGuard);
        run_block([&] { kernel(own); });
        if (!error.empty()) return error.c_str();
        for (unsigned g = 0; g < kGuard; ++g)
          if (memory[shared + g] != 0x5A) {
            error = "the kernel writes beyond its " + std::to_string(shared) + " bytes of shared memory";
            return error.c_str();
          }
      }
  return nullptr;
}

}  // namespace shim

#define SHIM_KERNEL(name)                                                                                       \
  extern "C" const char* shim_##name(unsigned x, unsigned y, unsigned z, unsigned threads, unsigned shared,     \
                                     const void* arguments, size_t size) {                                      \
    return shim::launch(name, x, y, z, threads, shared, arguments, size);                                       \
  }
