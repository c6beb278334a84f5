// The difference loss between two streams' control vectors, equation (26).
//
// Normalised vectors are never written out. With the means m of the columns and the product s of both rows'
// 1 / (length + eps), entry (i, j) of P^T Q is the sum over rows of s (p_i - m_i) (q_j - m_j).
#include "common.cuh"

constexpr int TILE = 64, DEPTH = 16, BACK_TILE = 16;

struct Orthogonality {
  const real *p, *q;  // (rows, width)
  real* parts;        // (tiles): what each adds to the loss
  real* products;     // P^T Q, (width, width), kept for backward
  real* norms;        // (tiles, Norms::size): each tile's own; null without normalisation
  double weight;      // of the square of each entry of P^T Q
  int rows, width;
};

// What the vectors are normalised with.
struct Norms {
  real* mean[2];   // (width): of the columns of P and of Q
  real* drift[2];  // (width): the mean of s (p - m) and of s (q - m)
  real* scale;     // (rows): s

  __device__ Norms(real* at, int width)
      : mean{at, at + width}, drift{at + 2 * width, at + 3 * width}, scale(at + 4 * width) {}
  __device__ static size_t size(int rows, int width) { return 4 * (size_t)width + rows; }
};

__device__ void find_norms(const Orthogonality& c, const Norms& norms, bool drift, real* shared) {
  const int width = c.width, lane = threadIdx.x % WARP;
  const real share = (real)(1.0 / c.rows);
  const auto centred = [&](const real* x, int side, int row, int j) {
    return x[(size_t)row * width + j] - norms.mean[side][j];
  };
  sum_columns<2>(
      c.rows, width, shared,
      [&](int row, int j, real* sums) {
        sums[0] += c.p[(size_t)row * width + j];
        sums[1] += c.q[(size_t)row * width + j];
      },
      [&](int j, const real* sums) {
        for (int side = 0; side < 2; ++side) norms.mean[side][j] = sums[side] * share;
      });
  for (int row = threadIdx.x / WARP; row < c.rows; row += blockDim.x / WARP) {
    real squares[2] = {};
    for (int j = lane; j < width; j += WARP) {
      const real p = centred(c.p, 0, row, j), q = centred(c.q, 1, row, j);
      squares[0] += p * p;
      squares[1] += q * q;
    }
    const real p = sqrt(warp_sum(squares[0])), q = sqrt(warp_sum(squares[1]));
    if (lane == 0) norms.scale[row] = 1 / (p + (real)1e-6) * (1 / (q + (real)1e-6));
  }
  __syncthreads();
  if (!drift) return;
  sum_columns<2>(
      c.rows, width, shared,
      [&](int row, int j, real* sums) {
        sums[0] += norms.scale[row] * centred(c.p, 0, row, j);
        sums[1] += norms.scale[row] * centred(c.q, 1, row, j);
      },
      [&](int j, const real* sums) {
        for (int side = 0; side < 2; ++side) norms.drift[side][j] = sums[side] * share;
      });
}

// A block a tile of P^T Q. Shared memory: rows of both sides, DEPTH by TILE each.
extern "C" __global__ void orthogonality(const Many<Orthogonality> calls) {
  const Orthogonality& c = calls.at[blockIdx.z];
  const int width = c.width, across = (width + TILE - 1) / TILE;
  if ((int)blockIdx.x >= across * across) return;
  const int top = blockIdx.x / across * TILE, left = blockIdx.x % across * TILE;
  real* shared = shared_memory();
  const Norms norms(c.norms + blockIdx.x * Norms::size(c.rows, width), width);
  if (c.norms) find_norms(c, norms, blockIdx.x == 0, shared);

  // Each thread has four rows and four columns of the tile.
  real *p = shared, *q = shared + DEPTH * TILE;
  const int i = threadIdx.x / (TILE / 4), j = threadIdx.x % (TILE / 4);
  real sums[4][4] = {};
  for (int first = 0; first < c.rows; first += DEPTH) {
    for (int at = threadIdx.x; at < DEPTH * TILE; at += blockDim.x) {
      const int row = first + at / TILE, x = top + at % TILE, y = left + at % TILE;
      real of_p = row < c.rows && x < width ? c.p[(size_t)row * width + x] : (real)0;
      real of_q = row < c.rows && y < width ? c.q[(size_t)row * width + y] : (real)0;
      if (c.norms && row < c.rows) {
        if (x < width) of_p = (of_p - norms.mean[0][x]) * norms.scale[row];
        if (y < width) of_q -= norms.mean[1][y];
      }
      p[at] = of_p;
      q[at] = of_q;
    }
    __syncthreads();
    for (int k = 0; k < DEPTH; ++k) {
      const Four a = reinterpret_cast<const Four*>(p)[k * (TILE / 4) + i];
      const Four b = reinterpret_cast<const Four*>(q)[k * (TILE / 4) + j];
      for (int u = 0; u < 4; ++u)
        for (int v = 0; v < 4; ++v) sums[u][v] += a.at[u] * b.at[v];
    }
    __syncthreads();
  }
  real square = 0;
  for (int u = 0; u < 4; ++u)
    for (int v = 0; v < 4; ++v) {
      const int x = top + 4 * i + u, y = left + 4 * j + v;
      square += sums[u][v] * sums[u][v];  // nothing beyond the columns
      if (x < width && y < width) c.products[(size_t)x * width + y] = sums[u][v];
    }
  square = block_sum(square, shared);
  if (threadIdx.x == 0) c.parts[blockIdx.x] = square * (real)c.weight;
}

// Of one side: its gradient is that of the products times the other side's vectors. Rows' lengths are constants,
// and centring the result over the batch is centring what is multiplied.
struct Back {
  const real* other;     // (rows, width)
  const real* products;  // (width, width): from one column of this side to the next are `own` numbers
  const real *mean, *drift, *scale;  // the other side's, of both; null without normalisation
  const real* dy;
  Gradient dx;
  double slope;  // of the loss by an entry of P^T Q, over that entry
  int rows, width, own;
};

extern "C" __global__ void orthogonality_backward(const Many<Back> calls) {
  const Back& c = calls.at[blockIdx.z];
  __shared__ real a[BACK_TILE][BACK_TILE + 1], b[BACK_TILE][BACK_TILE + 1];
  const int i = threadIdx.x / BACK_TILE, j = threadIdx.x % BACK_TILE, width = c.width;
  const int first_row = blockIdx.x * BACK_TILE, first_column = blockIdx.y * BACK_TILE;
  if (first_row >= c.rows || first_column >= width) return;
  const int row = first_row + i, column = first_column + j, from_other = c.own == 1 ? width : 1;
  real sum = 0;
  for (int first = 0; first < width; first += BACK_TILE) {
    const int across = first + j, down = first + i;
    real x = row < c.rows && across < width ? c.other[(size_t)row * width + across] : (real)0;
    if (c.scale && row < c.rows && across < width) x = c.scale[row] * (x - c.mean[across]) - c.drift[across];
    a[i][j] = x;
    b[i][j] = down < width && column < width
                  ? c.products[(size_t)column * c.own + (size_t)down * from_other]
                  : (real)0;
    __syncthreads();
    for (int k = 0; k < BACK_TILE; ++k) sum += a[i][k] * b[k][j];
    __syncthreads();
  }
  if (row < c.rows && column < width) c.dx.put((size_t)row * width + column, sum * ((real)c.slope * *c.dy));
}
