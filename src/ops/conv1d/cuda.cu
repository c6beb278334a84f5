// Puts each frame beside its neighbours, so that a convolution over time (4) is a product. A warp handles a row.
#include "ops.cuh"

struct Columns {
  const real* x;  // (rows, in)
  real* to;       // (rows, in, kernel)
  Layout layout;
  int input, kernel;
};

// columns[t, i, j] = x[t + j - kernel / 2, i], zeros beyond both ends of the utterance.
extern "C" __global__ void conv1d_columns(const Many<Columns> calls) {
  const Columns& c = calls.at[blockIdx.z];
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
  if (row >= c.layout.rows) return;
  const int b = c.layout.utterance[row], depth = c.input * c.kernel;
  const int first = b >= 0 ? c.layout.first[b] : 0, last = b >= 0 ? c.layout.first[b + 1] : 0;
  for (int e = lane; e < depth; e += WARP) {
    const int i = e / c.kernel, from = row + e % c.kernel - c.kernel / 2;
    const bool inside = from >= first && from < last;
    c.to[(size_t)row * depth + e] = inside ? c.x[(size_t)from * c.input + i] : (real)0;
  }
}

struct Gather {
  const real* dcolumns;  // (rows, in, kernel)
  Gradient dx;           // (rows, in)
  Layout layout;
  int input, kernel;
};

// Each frame's gradient: the sum over its places in the columns of its neighbours.
extern "C" __global__ void conv1d_gather(const Many<Gather> calls) {
  const Gather& c = calls.at[blockIdx.z];
  const int row = (blockIdx.x * blockDim.x + threadIdx.x) / WARP, lane = threadIdx.x % WARP;
  if (row >= c.layout.rows) return;
  const int b = c.layout.utterance[row], depth = c.input * c.kernel;
  const int first = b >= 0 ? c.layout.first[b] : 0, last = b >= 0 ? c.layout.first[b + 1] : 0;
  for (int i = lane; i < c.input; i += WARP) {
    real sum = 0;
    for (int j = 0; j < c.kernel; ++j) {
      const int from = row - j + c.kernel / 2;
      if (from >= first && from < last) sum += c.dcolumns[(size_t)from * depth + i * c.kernel + j];
    }
    c.dx.put((size_t)row * c.input + i, sum);
  }
}
