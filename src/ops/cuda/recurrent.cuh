// Code that the scans of GRU and LSTM share.
//
// A scan is a chain of short steps, so its time is that of one step times their number. Where the recurrent weights
// fit, they stay in the registers of a block for the whole scan of one utterance in one direction: a step is one
// product with a vector in shared memory and one barrier, and nothing waits for memory. The blocks of wider layers
// read their weights at each step, for a few utterances side by side.
#pragma once
#include "ops.cuh"

// Numbers that are read by one instruction.
template <int N>
struct alignas(N * sizeof(real)) Pack {
  real at[N];
};

// Which scan a block runs. Blocks start in the order of their numbers, so those of rank 0, with each stream's
// longest utterances, come first.
struct Place {
  int rank, direction, call;
};

__device__ inline Place place() {
  const int number = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
  const int of_a_rank = gridDim.y * gridDim.z;
  return {number / of_a_rank, number % of_a_rank / (int)gridDim.z, number % (int)gridDim.z};
}

// Writes zeros to the rows beyond the true ones: to those whose turn it is, one in `turns`.
__device__ inline void clear_beyond(const Layout& layout, int turn, int turns, real* rows, int stride,
                                    int width) {
  for (int row = layout.total() + turn; row < layout.rows; row += turns)
    for (int i = threadIdx.x; i < width; i += blockDim.x) rows[(size_t)row * stride + i] = 0;
}

// The logistic function. Its reciprocal is accurate to the last place, but has no branch for results too small to be
// normal numbers: with that branch, the gates of a step would wait for each other.
__device__ inline float logistic(float x) {
#ifdef SHIM
  return 1 / (1 + exp(-x));
#else
  constexpr float MOST = 8e37f;
  float y = 1 + exp(-x), inverse;
  y = y > MOST ? MOST : y;  // a NaN stays NaN
  asm("rcp.approx.ftz.f32 %0, %1;" : "=f"(inverse) : "f"(y));
  return fma(inverse, fma(-y, inverse, 1.0f), inverse);
#endif
}
__device__ inline double logistic(double x) { return 1 / (1 + exp(-x)); }

// Reads row after row of a scan, and at the end the last one again, so that reading ahead needs no condition.
struct Ahead {
  const real* row;
  int step, left;

  template <int N>
  __device__ void read(real (&to)[N], int stride) {
#pragma unroll
    for (int i = 0; i < N; ++i) to[i] = row[i * stride];
    if (--left > 0) row += step;
  }
};

// Writes `N` numbers, `stride` apart, that each of COPIES threads has: a thread, if it may `write`, writes every
// COPIES-th, from its own `to` on.
template <int COPIES, int N>
__device__ void put_in_turn(real* to, int stride, const real (&numbers)[N], int copy, bool write) {
#pragma unroll
  for (int first = 0; first < N; first += COPIES) {
    real own = numbers[first];
#pragma unroll
    for (int other = 1; other < COPIES; ++other)
      if (copy == other && first + other < N) own = numbers[first + other];
    // The condition is here, so that a branch skips nothing but the store.
    if (write && (first + COPIES <= N || first + copy < N)) to[first * stride] = own;
  }
}

// Adds up UNITS * VALUES sums over the lanes of a group, each of which holds a part of all of them; afterwards every
// lane has the VALUES of one unit.
template <int LANES, int UNITS, int VALUES>
__device__ void add_lanes(real (&sums)[UNITS][VALUES]) {
  if constexpr (LANES > 1) {
    constexpr int APART = LANES / 2, LEFT = UNITS > 1 ? UNITS / 2 : 1;
    const bool upper = threadIdx.x & APART;
    real left[LEFT][VALUES];
#pragma unroll
    for (int u = 0; u < LEFT; ++u)
#pragma unroll
      for (int v = 0; v < VALUES; ++v) {
        const real other = UNITS > 1 && !upper ? sums[UNITS - LEFT + u][v] : sums[u][v];
        const real own = UNITS > 1 && upper ? sums[UNITS - LEFT + u][v] : sums[u][v];
        left[u][v] = own + __shfl_xor_sync(ALL, other, APART);
      }
    add_lanes<APART>(left);
#pragma unroll
    for (int v = 0; v < VALUES; ++v) sums[0][v] = left[0][v];
  }
}

// Whether a block can hold the weights of 128 units: only in floats.
constexpr bool HOLDS_128 = sizeof(real) == 4;

// A block that holds the weights of up to WIDTH units, see also recurrent.rs. With 64 units, each of its 4 warps has
// a scheduler of the multiprocessor to itself, and its threads have more registers than those of other kernels: no
// more than two or three such blocks can run on a multiprocessor at the same time.
template <int WIDTH>
struct Block {
  // Threads for each unit.
  static constexpr int COPIES = WIDTH <= 64 ? 2 : 4;
  static constexpr int THREADS = WIDTH * COPIES;
  // The most weights that a thread has in registers; the others are in shared memory.
  static constexpr int IN_REGISTERS = sizeof(real) == 8 ? 64 : WIDTH <= 64 ? 128 : 84;
};

// A matrix that a block multiplies with one vector after the other, VALUES products of LENGTH numbers for each unit.
// A thread holds the weights of UNITS units for every LANES-th piece of the vector, so that each number it reads
// serves all of them, and few lanes have to be added up. It ends with the sums of one unit, as do that unit's other
// threads.
template <int WIDTH, int UNITS, int VALUES, int LENGTH>
struct Held {
  static constexpr int LANES = UNITS * Block<WIDTH>::COPIES;
  static constexpr int OWN = LENGTH / LANES, COUNT = OWN * UNITS * VALUES;
  static constexpr int MOST = Block<WIDTH>::IN_REGISTERS, IN_REGISTERS = COUNT < MOST ? COUNT : MOST;
  static constexpr int WIDE = 16 / sizeof(real), AT_ONCE = OWN % WIDE == 0 ? WIDE : 2;
  static_assert(OWN * LANES == LENGTH && OWN % AT_ONCE == 0);

  real own[IN_REGISTERS];

  static __device__ real& rest(int i) {
    return shared_memory()[(i - IN_REGISTERS) * Block<WIDTH>::THREADS + threadIdx.x];
  }

  // `weight(unit, value, place in the vector)` returns a weight.
  template <typename Weight>
  __device__ void load(Weight weight) {
    const int lane = threadIdx.x % LANES, first = threadIdx.x / LANES * UNITS;
    const auto weight_of = [&](int i) {
      const int at = i / (UNITS * VALUES), place = (at / AT_ONCE * LANES + lane) * AT_ONCE + at % AT_ONCE;
      return weight(first + i / VALUES % UNITS, i % VALUES, place);
    };
    // Those in shared memory come first, while registers are free for reading ahead.
#pragma unroll 4
    for (int i = IN_REGISTERS; i < COUNT; ++i) rest(i) = weight_of(i);
#pragma unroll
    for (int i = 0; i < IN_REGISTERS; ++i) own[i] = weight_of(i);
  }

  // A lane's part of a vector in shared memory.
  struct Vector {
    Pack<AT_ONCE> pieces[OWN / AT_ONCE];

    __device__ explicit Vector(const real* whole) {
      const auto* from = reinterpret_cast<const Pack<AT_ONCE>*>(whole) + threadIdx.x % LANES;
#pragma unroll
      for (int i = 0; i < OWN / AT_ONCE; ++i) pieces[i] = from[i * LANES];
    }
  };

  __device__ void multiply(const Vector& vector, real (&result)[VALUES]) const {
    real sums[UNITS][VALUES] = {};
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int at = i / (UNITS * VALUES);
      const real w = i < IN_REGISTERS ? own[i] : rest(i);
      sums[i / VALUES % UNITS][i % VALUES] += w * vector.pieces[at / AT_ONCE].at[at % AT_ONCE];
    }
    add_lanes<LANES>(sums);
#pragma unroll
    for (int v = 0; v < VALUES; ++v) result[v] = sums[0][v];
  }
};

// Utterances that a block scans side by side where it reads weights at each step: their numbers of one unit are read
// by one instruction.
constexpr int MEMBERS = 16 / sizeof(real);
using Row = Pack<MEMBERS>;

struct Members {
  int groups, count, steps, utterance[MEMBERS], first[MEMBERS], length[MEMBERS];

  // The `rank`-th group of the utterances, longest first.
  __device__ Members(const Layout& layout, int rank) {
    groups = (layout.batch + MEMBERS - 1) / MEMBERS;
    const int left = layout.batch - rank * MEMBERS;
    count = left < MEMBERS ? left : MEMBERS;
#pragma unroll
    for (int m = 0; m < MEMBERS; ++m) {
      utterance[m] = layout.order[rank * MEMBERS + (m < count ? m : 0)];
      first[m] = layout.first[utterance[m]];
      length[m] = m < count ? layout.length(utterance[m]) : 0;
    }
    steps = length[0];
  }
};

// Products of VALUES columns of a matrix, which are `apart`, with rows `stride` apart, and all members' vectors.
template <int VALUES>
__device__ void multiply(const real* matrix, int stride, int apart, const Row* vectors, int length,
                         real (&sums)[VALUES][MEMBERS]) {
#pragma unroll
  for (int v = 0; v < VALUES; ++v)
#pragma unroll
    for (int m = 0; m < MEMBERS; ++m) sums[v][m] = 0;
#pragma unroll 4
  for (int k = 0; k < length; ++k) {
    const Row row = vectors[k];
#pragma unroll
    for (int v = 0; v < VALUES; ++v) {
      const real w = matrix[(size_t)k * stride + v * apart];
#pragma unroll
      for (int m = 0; m < MEMBERS; ++m) sums[v][m] += w * row.at[m];
    }
  }
}
