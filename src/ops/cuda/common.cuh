// What every kernel shares. Sources are compiled once for each type of number: `real` is float or double.
//
// Conventions of all kernels:
//   - the one parameter is a struct, which Rust declares in the same order;
//   - blockIdx.z is the call, where several streams run in one launch (`Many`);
//   - rows beyond the true frames of a packed tensor (`Layout::rows` may be larger than the true total) are
//     written as zeros, results and gradients alike: products may then run over all rows;
//   - a sum is taken in an order that depends on sizes alone, never by atomics: same input, same bits.
#pragma once

typedef unsigned int uint32;
typedef unsigned long long uint64;

constexpr int MANY = 8;
constexpr int WARP = 32;
constexpr uint32 ALL = 0xffffffffu;

// Up to N calls of one kernel; gridDim.z of them count.
template <typename Call, int N = MANY>
struct Many {
  Call at[N];
};

// Where each utterance lies in packed rows.
struct Layout {
  const int* first;      // (batch + 1): row of each utterance's first frame, then the number of true rows
  const int* order;      // (batch): the utterances, longest first
  const int* utterance;  // (rows): that a row belongs to, -1 beyond the true ones
  int batch;
  int rows;

  __device__ int length(int b) const { return first[b + 1] - first[b]; }
  __device__ int total() const { return first[batch]; }
};

// Where a gradient goes, and whether it is added to what is there; nowhere if null.
struct Gradient {
  real* to;
  int add;

  __device__ void put(size_t i, real x) const { to[i] = add ? to[i] + x : x; }
};

// Philox 4x32-10 at a 128-bit counter, under a 64-bit key (Salmon et al., SC 2011); as src/rng.rs.
struct Words {
  uint32 at[4];

  // Without an address, so that words stay in registers.
  __device__ uint32 of(uint32 i) const { return i < 2 ? (i < 1 ? at[0] : at[1]) : (i < 3 ? at[2] : at[3]); }
};

__device__ inline Words philox(uint64 key, uint32 c0, uint32 c1, uint32 c2, uint32 c3) {
  uint32 k0 = (uint32)key, k1 = (uint32)(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64 a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
    c0 = (uint32)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32)b;
    c2 = (uint32)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Dropout of one operation in one step: the same masks as the CPU's, by address.
struct Dropout {
  const uint64* key_at;  // where the step's key stands, or null:
  uint64 key;            // the key itself
  double kept;           // 1 / (1 - p)
  uint32 site;
  uint32 threshold;      // p in 2^16; 0 is no dropout

  __device__ bool off() const { return threshold == 0; }
  __device__ uint64 seed() const { return key_at ? *key_at : key; }
  __device__ real of(uint32 bits) const { return (bits & 0xFFFF) >= threshold ? (real)kept : (real)0; }

  // What element `i` of a tensor is multiplied with.
  __device__ real flat(size_t i) const {
    if (off()) return 1;
    const uint32 in_tile = (uint32)(i % 128), word = in_tile % 64;
    const Words w = philox(seed(), (uint32)(i / 128) * 16 + word % 16, 0, 0, site);
    return of(w.of(word / 16) >> (in_tile / 64 * 16));
  }

  // What the probabilities of the 8 keys from 8 * `keys` on are multiplied with for one query, `stream` being
  // the utterance and head: word j % 4 of the result, its low half for j < 4.
  __device__ Words eight(uint32 stream, uint32 keys, uint32 query) const {
    return philox(seed(), query, keys, stream, site);
  }
  __device__ real among(const Words& eight, int j) const { return of(eight.at[j % 4] >> (j / 4 * 16)); }
};

// `Dropout::flat` for a thread that asks for several elements: what the generator made for one is kept, as it
// often holds the next one's bits, too, where a warp goes along a row.
struct DropoutAlong {
  const Dropout& dropout;
  uint64 seed;
  uint32 counter;
  Words words;

  __device__ explicit DropoutAlong(const Dropout& dropout)
      : dropout(dropout), seed(dropout.off() ? 0 : dropout.seed()), counter(ALL) {}

  __device__ real at(size_t i) {
    if (dropout.off()) return 1;
    const uint32 in_tile = (uint32)(i % 128), word = in_tile % 64, next = (uint32)(i / 128) * 16 + word % 16;
    if (next != counter) words = philox(seed, next, 0, 0, dropout.site);
    counter = next;
    return dropout.of(words.of(word / 16) >> (in_tile / 64 * 16));
  }
};

// The sum over a warp, in every lane.
__device__ inline real warp_sum(real x) {
  for (int lane = WARP / 2; lane > 0; lane /= 2) x += __shfl_xor_sync(ALL, x, lane);
  return x;
}

// A warp's row becomes (row - mean) / deviation; `sum` is a lane's share of the sum of its numbers, of which a lane
// has every WARP-th. Returns 1 / deviation, the root of variance + eps.
__device__ inline real normalize(real* row, real sum, int width, double eps, int lane) {
  const real mean = warp_sum(sum) / width;
  real square = 0;
  for (int j = lane; j < width; j += WARP) {
    row[j] -= mean;
    square += row[j] * row[j];
  }
  const real scale = 1 / sqrt(warp_sum(square) / width + (real)eps);
  for (int j = lane; j < width; j += WARP) row[j] *= scale;
  return scale;
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

// Sums over the rows of each column, by a whole block: `add(row, column, sums)` adds to a column's sums what a row
// has of them, `put(column, sums)` takes them, once each column. `shared` holds SUMS numbers a thread and is free
// afterwards.
template <int SUMS, typename Add, typename Put>
__device__ inline void sum_columns(int rows, int width, real* shared, Add add, Put put) {
  // Where there are more threads than columns, each column's rows are shared out in slices.
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

// Numbers side by side at an address that is a multiple of 16, moved by as few instructions as there can be.
struct alignas(16) Four {
  real at[4];
};

__device__ inline real sigmoid(real x) { return 1 / (1 + exp(-x)); }

// What follows an affine map, numbered as `Activation` in linear/mod.rs.
enum { NONE, RELU, SIGMOID, GELU, GELU_TANH };

__device__ inline real activate(int activation, real x) {
  switch (activation) {
    case RELU: return x > 0 ? x : (real)0;
    case SIGMOID: return sigmoid(x);
    case GELU: return (real)0.5 * x * (1 + erf(x * (real)0.70710678118654752440));
    case GELU_TANH:
      return (real)0.5 * x * (1 + tanh((real)0.7978845608028654 * (x + (real)0.044715 * x * x * x)));
    default: return x;
  }
}

// Working memory of a block, as much as the launch asked for.
#ifndef SHIM
__device__ inline real* shared_memory() {
  extern __shared__ __align__(16) double block_memory[];
  return reinterpret_cast<real*>(block_memory);
}
#endif
