// Embeddings of tokens: rows of three tables, the norm of their sum, dropout. A warp handles a token. Backward stores
// the gradients of the sums, and blocks then add them up for each row of a table that occurs.
#include "ops.cuh"

struct Embedding {
  const int* places;  // (rows, 3): rows of words, positions and segments, -1 beyond the true tokens
  const real *words, *positions, *segments, *weight, *bias;
  real* y;            // (rows, width)
  const real* dy;     // this and below: backward only
  real* dsum;         // (rows, width): gradient of the sum before the norm, of true tokens
  real* sums;         // (blocks, 2, width): each block's share of weight's and bias's gradient
  Dropout dropout;
  double eps;
  int rows, width;
};

// Writes the normalised sum of a token's rows, before scale and shift, to a warp's memory; returns 1 / deviation.
__device__ real normal_of(const Embedding& c, int token, int lane, real* normal) {
  const int* const at = c.places + (size_t)token * 3;
  const real* const words = c.words + (size_t)at[0] * c.width;
  const real* const positions = c.positions + (size_t)at[1] * c.width;
  const real* const segments = c.segments + (size_t)at[2] * c.width;
  real sum = 0;
  for (int j = lane; j < c.width; j += WARP) {
    normal[j] = words[j] + positions[j] + segments[j];
    sum += normal[j];
  }
  return normalize(normal, sum, c.width, c.eps, lane);
}

// Shared memory: a row for each warp.
extern "C" __global__ void embedding(const Many<Embedding> calls) {
  const Embedding& c = calls.at[blockIdx.z];
  const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int token = blockIdx.x * warps + warp;
  if (token >= c.rows) return;
  const bool is_true = c.places[(size_t)token * 3] >= 0;
  real* const normal = shared_memory() + warp * c.width;
  if (is_true) normal_of(c, token, lane, normal);
  for (int j = lane; j < c.width; j += WARP) {
    const size_t at = (size_t)token * c.width + j;
    c.y[at] = is_true ? (normal[j] * c.weight[j] + c.bias[j]) * c.dropout.flat(at) : (real)0;
  }
}

constexpr int TOKENS = 16;  // tokens of a block, backward

// Shared memory: for each warp a row and two sums.
extern "C" __global__ void embedding_backward(const Many<Embedding> calls) {
  const Embedding& c = calls.at[blockIdx.z];
  const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int first = blockIdx.x * TOKENS, width = c.width;
  if (first >= c.rows) return;
  real* const normal = shared_memory() + warp * 3 * width;
  real *const dweight = normal + width, *const dbias = dweight + width;
  for (int j = lane; j < width; j += WARP) dweight[j] = dbias[j] = 0;
  for (int token = first + warp; token < min(first + TOKENS, c.rows); token += warps) {
    if (c.places[(size_t)token * 3] < 0) break;
    const real scale = normal_of(c, token, lane, normal);
    const real* const dy = c.dy + (size_t)token * width;
    real* const dsum = c.dsum + (size_t)token * width;
    // The gradient before the norm: scale * (g - mean(g) - n * mean(g * n)), g = weight * dy.
    real mean = 0, slope = 0;
    for (int j = lane; j < width; j += WARP) {
      const real kept = dy[j] * c.dropout.flat((size_t)token * width + j), g = kept * c.weight[j];
      mean += g;
      slope += g * normal[j];
      dweight[j] += kept * normal[j];
      dbias[j] += kept;
      dsum[j] = g;
    }
    mean = warp_sum(mean) / width;
    slope = warp_sum(slope) / width;
    for (int j = lane; j < width; j += WARP) dsum[j] = scale * (dsum[j] - mean - normal[j] * slope);
  }
  __syncthreads();
  const real* const sums = shared_memory() + width;  // of the first warp; the others' are 3 * width on each
  for (int j = threadIdx.x; j < 2 * width; j += blockDim.x) {
    real sum = 0;
    for (int w = 0; w < warps; ++w) sum += sums[w * 3 * width + j];
    c.sums[(size_t)blockIdx.x * 2 * width + j] = sum;
  }
}

// The gradient of a table.
struct Table {
  const real* dsum;   // (tokens, width)
  Gradient to;        // (rows of the table, width), added to
  const int* occur;   // the rows that occur, then -1
  const int* starts;  // where the tokens of each of these begin in `tokens`, and the end of the last
  const int* tokens;  // the tokens, sorted by row
  int most;           // the most rows that can occur
  int groups;         // groups of threads, which divide the tokens of a row among them
  int width;
};

constexpr int THREADS = 256;

// A block handles some columns of a row that occurs.
extern "C" __global__ void embedding_rows(const Many<Table> calls) {
  const Table& c = calls.at[blockIdx.z];
  __shared__ real sums[THREADS];
  const int columns = THREADS / c.groups, pieces = (c.width + columns - 1) / columns;
  const int i = blockIdx.x / pieces;
  if (i >= c.most || c.occur[i] < 0) return;
  const int group = threadIdx.x / columns, column = blockIdx.x % pieces * columns + threadIdx.x % columns;
  real sum = 0;
  if (column < c.width)
    for (int at = c.starts[i] + group; at < c.starts[i + 1]; at += c.groups)
      sum += c.dsum[(size_t)c.tokens[at] * c.width + column];
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (group > 0 || column >= c.width) return;
  for (int other = 1; other < c.groups; ++other) sum += sums[other * columns + threadIdx.x];
  c.to.put((size_t)c.occur[i] * c.width + column, sum);
}
