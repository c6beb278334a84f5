// Code that every kernel shares. Sources are compiled once for each type of number: `real` is float or double.
//
// Conventions of all kernels:
//   - the one parameter is a struct, which Rust declares in the same order;
//   - blockIdx.z is the call, where several streams run in one launch (`Many`);
//   - the order of a sum depends on sizes alone, never on atomics: the same input gives the same bits.
#pragma once

typedef unsigned int uint32;
typedef unsigned long long uint64;

constexpr int MANY = 8;
constexpr int WARP = 32;
constexpr uint32 ALL = 0xffffffffu;

// Up to N calls of one kernel, of which gridDim.z are used.
template <typename Call, int N = MANY>
struct Many {
  Call at[N];
};

// The place of a gradient, null if it is not wanted, and whether it is added to the content of that place.
struct Gradient {
  real* to;
  int add;

  __device__ void put(size_t i, real x) const { to[i] = add ? to[i] + x : x; }
};

// The sum over a warp, in every lane.
__device__ inline real warp_sum(real x) {
  for (int lane = WARP / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(ALL, x, lane);
  return x;
}

// The sum over a block of whole warps, in every thread; `shared` holds WARP numbers and is free afterwards.
__device__ inline real block_sum(real x, real* shared) {
  x = warp_sum(x);
  if (threadIdx.x % WARP == 0) shared[threadIdx.x / WARP] = x;
  __syncthreads();
  real sum = 0;
  for (int warp = 0; warp < (int)(blockDim.x / WARP); ++warp) sum += shared[warp];
  __syncthreads();
  return sum;
}

// Sums over the rows of each column, by a whole block: `add(row, column, sums)` adds a row's terms to a column's
// sums, `put(column, sums)` stores them, once for each column. `shared` holds SUMS numbers a thread and is free
// afterwards.
template <int SUMS, typename Add, typename Put>
__device__ inline void sum_columns(int rows, int width, real* shared, Add add, Put put) {
  // Where there are more threads than columns, each column's rows are divided into slices.
  const int threads = blockDim.x, span = min(width, threads), slices = threads / span, slice = threadIdx.x / span;
  for (int first = 0; first < width; first += span) {
    const int column = first + threadIdx.x % span;
    real sums[SUMS] = {};
    if (slice < slices && column < width) {
#pragma unroll 4
      for (int row = slice; row < rows; row += slices) add(row, column, sums);
    }
    for (int k = 0; k < SUMS; ++k) shared[k * threads + threadIdx.x] = sums[k];
    __syncthreads();
    if (slice == 0 && column < width) {
      for (int other = 1; other < slices; ++other)
        for (int k = 0; k < SUMS; ++k) sums[k] += shared[k * threads + other * span + threadIdx.x];
      put(column, sums);
    }
    __syncthreads();
  }
}

// Four numbers at an address that is a multiple of 16, so that they are moved by as few instructions as possible.
struct alignas(16) Four {
  real at[4];
};

// Working memory of a block, as much as the launch asked for.
#ifndef SHIM
__device__ inline real* shared_memory() {
  extern __shared__ __align__(16) double block_memory[];
  return reinterpret_cast<real*>(block_memory);
}
#endif
