// Products of matrices, several in one launch, in the numbers' own precision.
//
// A block computes a tile of C from slices of A and B of a fixed depth along k: while it multiplies a slice, the next
// is read into registers. Where C is small and k long, several blocks compute a tile, each over a part of k, and
// `add_parts` adds up their results.
#include "ops.cuh"

struct Product {
  const real *a, *b;  // (m, k), (k, n), of any strides
  const real* bias;   // (n), or null
  real* before;       // (m, n): receives A B + bias, the activation's argument; or null
  const real* positive;  // (m, n), or null: C is zero where this is not above zero
  const real* times;     // (m, n), or null: C times this, element by element, goes to `kept`
  real* kept;
  const int* true_rows;  // address of the number of C's true rows, which zeros follow; or null
  Gradient c;            // (m, n), rows of `c_row`
  Gradient row_sums;     // (m): sums of A's rows, if wanted
  real* parts;           // (splits, m * n + m): instead of C and the sums of rows, if there are several splits
  int m, n, k;
  int a_row, a_column, b_row, b_column, c_row;
  int activation;
  int splits, depth;  // number of parts of k, and the size of each
};

constexpr int CALLS = 24;

// Size of a block's tile, depth of its slices, and size of a thread's part of the tile.
struct Large {
  static constexpr int ROWS = 64, COLUMNS = 64, DEPTH = 16, DOWN = 8, ACROSS = 4;
};
struct Small {
  static constexpr int ROWS = 32, COLUMNS = 32, DEPTH = 32, DOWN = 4, ACROSS = 4;
};

// Blocks that run on a multiprocessor at the same time.
constexpr int LARGE_BLOCKS = sizeof(real) == 4 ? 5 : 2, SMALL_BLOCKS = 2 * LARGE_BLOCKS;

template <typename Tile>
constexpr int THREADS = Tile::ROWS / Tile::DOWN * (Tile::COLUMNS / Tile::ACROSS);

// Stride of rows in shared memory: rows begin where four numbers can be read at once, and the elements of one
// column in eight rows lie in different banks.
template <int WIDE>
constexpr int STRIDE = WIDE + 4;

template <int COUNT>
__device__ inline void read(const real* from, real (&to)[COUNT]) {
  for (int i = 0; i < COUNT; i += 4) {
    const Four four = *reinterpret_cast<const Four*>(from + i);
    for (int j = 0; j < 4; ++j) to[i + j] = four.at[j];
  }
}

// A thread's part of a slice of A or B, which is DEPTH along k and WIDE across. Neighbouring threads read neighbours
// along k, which are contiguous in memory, if ALONG; else neighbours across.
template <int WIDE, int DEPTH, int BLOCK, bool ALONG>
struct Slice {
  static constexpr int COUNT = WIDE * DEPTH / BLOCK;
  // Steps from one of the thread's elements to the next along k and, after TURN of them, across.
  static constexpr int DOWN = ALONG ? 8 : BLOCK / WIDE, ACROSS = BLOCK / 8, TURN = ALONG ? DEPTH / 8 : COUNT;
  const real* from;
  int across_stride, k_stride;
  int across, k;  // of the first element
  real held[COUNT];

  __device__ Slice(const real* matrix, int across_stride, int k_stride)
      : across_stride(across_stride), k_stride(ALONG ? 1 : k_stride) {
    across = ALONG ? threadIdx.x / 8 : threadIdx.x % WIDE;
    k = ALONG ? threadIdx.x % 8 : threadIdx.x / WIDE;
    from = matrix + (size_t)across * across_stride + (size_t)k * this->k_stride;
  }

  // Reads the next slice; zeros from `width` and `depth` on, where the matrix ends.
  __device__ void load(int width, int depth) {
#pragma unroll
    for (int i = 0; i < COUNT; ++i) {
      const int right = ACROSS * (i / TURN), down = DOWN * (i % TURN);
      const bool inside = across + right < width && k + down < depth;
      held[i] = inside ? from[(size_t)right * across_stride + (size_t)down * k_stride] : (real)0;
    }
    from += (size_t)DEPTH * k_stride;
  }

  __device__ void store(real* to) const {
#pragma unroll
    for (int i = 0; i < COUNT; ++i)
      to[(k + DOWN * (i % TURN)) * STRIDE<WIDE> + across + ACROSS * (i / TURN)] = held[i];
  }
};

// The first row and column of a block's tile, and its part of k.
struct Place {
  int row, column, first, last;
};

// A thread's part of a tile.
struct Own {
  int row, column;

  // A warp has 4 rows and 8 columns of threads, so that its lanes read a slice from different banks.
  template <typename Tile>
  __device__ static Own of() {
    constexpr int WARPS = Tile::COLUMNS / (8 * Tile::ACROSS);  // side by side
    const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    return {(warp / WARPS * 4 + lane / 8) * Tile::DOWN, (warp % WARPS * 8 + lane % 8) * Tile::ACROSS};
  }
};

// Adds A B to `sum` and, if `sums_rows`, the sum of the row of A that has the thread's number to `row_sum`.
template <typename Tile, bool A_ALONG, bool B_ALONG>
__device__ inline void multiply(const Product& p, Place at, Own own, real* here,
                                real (&sum)[Tile::DOWN][Tile::ACROSS], bool sums_rows, real& row_sum) {
  constexpr int DEPTH = Tile::DEPTH, BLOCK = THREADS<Tile>;
  constexpr int A = STRIDE<Tile::ROWS>, B = STRIDE<Tile::COLUMNS>;
  Slice<Tile::ROWS, DEPTH, BLOCK, A_ALONG> a(
      p.a + (size_t)at.row * p.a_row + (size_t)at.first * p.a_column, p.a_row, p.a_column);
  Slice<Tile::COLUMNS, DEPTH, BLOCK, B_ALONG> b(
      p.b + (size_t)at.column * p.b_column + (size_t)at.first * p.b_row, p.b_column, p.b_row);
  const int height = p.m - at.row, width = p.n - at.column;
  real* next = here + DEPTH * (A + B);
  a.load(height, at.last - at.first);
  b.load(width, at.last - at.first);
  a.store(here);
  b.store(here + DEPTH * A);
  __syncthreads();
  for (int left = at.last - at.first; left > 0; left -= DEPTH) {
    if (left > DEPTH) {
      a.load(height, left - DEPTH);
      b.load(width, left - DEPTH);
    }
    const int depth = left < DEPTH ? left : DEPTH;
    const real *a_here = here + own.row, *b_here = here + DEPTH * A + own.column;
#pragma unroll 2
    for (int k = 0; k < depth; ++k) {
      real x[Tile::DOWN], y[Tile::ACROSS];
      read(a_here + k * A, x);
      read(b_here + k * B, y);
#pragma unroll
      for (int i = 0; i < Tile::DOWN; ++i)
#pragma unroll
        for (int j = 0; j < Tile::ACROSS; ++j) sum[i][j] += x[i] * y[j];
    }
    if (sums_rows)
      for (int k = 0; k < depth; ++k) row_sum += here[k * A + threadIdx.x];
    if (left > DEPTH) {
      a.store(next);
      b.store(next + DEPTH * A);
      __syncthreads();
      real* const other = here;
      here = next;
      next = other;
    }
  }
}

// Shared memory: two slices each of A and B, later the tile.
template <typename Tile>
__device__ inline void make_tile(const Product& p) {
  constexpr int ROWS = Tile::ROWS, COLUMNS = Tile::COLUMNS, BLOCK = THREADS<Tile>;
  constexpr int TILE = STRIDE<COLUMNS>;
  static_assert(ROWS * TILE <= 2 * Tile::DEPTH * (STRIDE<ROWS> + TILE), "a tile takes the place of slices");
  static_assert(BLOCK >= ROWS && BLOCK % COLUMNS == 0, "threads have rows and columns of their own");
  const int across = (p.n + COLUMNS - 1) / COLUMNS, down = (p.m + ROWS - 1) / ROWS;
  if ((int)blockIdx.x >= across * down * p.splits) return;
  const int split = blockIdx.x / (across * down);
  Place at;
  at.row = blockIdx.x / across % down * ROWS;
  at.column = blockIdx.x % across * COLUMNS;
  at.first = split * p.depth;
  at.last = at.first + p.depth < p.k ? at.first + p.depth : p.k;
  const int rows = p.true_rows ? *p.true_rows : p.m;
  const bool sums_rows = (p.row_sums.to || p.splits > 1) && at.column == 0 && threadIdx.x < ROWS;

  const Own own = Own::of<Tile>();
  real* const shared = shared_memory();
  real sum[Tile::DOWN][Tile::ACROSS] = {}, row_sum = 0;
  if (at.row >= rows) {
    // Beyond the true rows the tile stays zero.
  } else if (p.a_column != 1) {
    multiply<Tile, false, false>(p, at, own, shared, sum, sums_rows, row_sum);
  } else if (p.b_row != 1) {
    multiply<Tile, true, false>(p, at, own, shared, sum, sums_rows, row_sum);
  } else {
    multiply<Tile, true, true>(p, at, own, shared, sum, sums_rows, row_sum);
  }
  // Goes through shared memory, so that neighbouring threads write neighbours.
  __syncthreads();
#pragma unroll
  for (int i = 0; i < Tile::DOWN; ++i)
#pragma unroll
    for (int j = 0; j < Tile::ACROSS; j += 4)
      *reinterpret_cast<Four*>(shared + (own.row + i) * TILE + own.column + j) =
          {sum[i][j], sum[i][j + 1], sum[i][j + 2], sum[i][j + 3]};
  __syncthreads();

  real* const part = p.splits > 1 ? p.parts + split * ((size_t)p.m * p.n + p.m) : nullptr;
  if (sums_rows && at.row + (int)threadIdx.x < p.m) {
    const int row = at.row + threadIdx.x;
    if (part) part[(size_t)p.m * p.n + row] = row_sum;
    else p.row_sums.put(row, row_sum);
  }
  const int j = threadIdx.x % COLUMNS, column = at.column + j;
  if (column >= p.n) return;
  const real bias = p.bias ? p.bias[column] : (real)0;
  for (int i = threadIdx.x / COLUMNS; i < ROWS && at.row + i < p.m; i += BLOCK / COLUMNS) {
    const int row = at.row + i;
    const size_t place = (size_t)row * p.n + column;
    real x = shared[i * TILE + j] + bias;
    if (part) {
      part[place] = x;
      continue;
    }
    if (p.before) p.before[place] = x;
    x = activate(p.activation, x);
    if (row >= rows || (p.positive && !(p.positive[place] > 0))) x = 0;
    p.c.put((size_t)row * p.c_row + column, x);
    if (p.kept) p.kept[place] = x * p.times[place];
  }
}

using Products = Many<Product, CALLS>;

extern "C" __global__ void __launch_bounds__(128, LARGE_BLOCKS) product(const Products calls) {
  make_tile<Large>(calls.at[blockIdx.z]);
}

// The same product with smaller, hence more tiles, for a C that has few large ones.
extern "C" __global__ void __launch_bounds__(64, SMALL_BLOCKS) small_product(const Products calls) {
  make_tile<Small>(calls.at[blockIdx.z]);
}

struct ColumnSums {
  const real* x;  // (rows, columns), of any strides
  Gradient to;
  real* parts;  // (splits, columns): instead of `to`, if there are several splits
  int rows, columns, row_stride, column_stride;
  int splits, depth;  // number of parts of the rows, and the size of each
};

// A block sums WARP columns, each of its warps over some of the rows.
extern "C" __global__ void column_sums(const Many<ColumnSums> calls) {
  constexpr int WARPS = 8;
  const ColumnSums& c = calls.at[blockIdx.z];
  __shared__ real sums[WARPS][WARP];
  const int across = (c.columns + WARP - 1) / WARP;
  if ((int)blockIdx.x >= across * c.splits) return;
  const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, split = blockIdx.x / across;
  const int column = blockIdx.x % across * WARP + lane;
  const int last = min(c.rows, (split + 1) * c.depth);
  real sum = 0;
  if (column < c.columns) {
#pragma unroll 4
    for (int row = split * c.depth + warp; row < last; row += WARPS)
      sum += c.x[(size_t)row * c.row_stride + (size_t)column * c.column_stride];
  }
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= c.columns) return;
  for (int other = 1; other < WARPS; ++other) sum += sums[other][lane];
  if (c.splits > 1) c.parts[(size_t)split * c.columns + column] = sum;
  else c.to.put(column, sum);
}
