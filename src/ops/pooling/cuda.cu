// The mean over an utterance's true frames, or its first frame.
#include "ops.cuh"

struct Pool {
  const real* x;    // (rows, width)
  real* y;          // (batch, width)
  const real* dy;   // this and below: backward only
  Gradient dx;
  Layout layout;
  int width;
  int mean;

  // Number of frames of an utterance that are read.
  __device__ int count(int b) const { return mean ? layout.length(b) : 1; }
};

constexpr int WARPS = 8;

// A block handles WARP columns of an utterance; its warps divide the frames among them.
extern "C" __global__ void pool(const Many<Pool> calls) {
  const Pool& c = calls.at[blockIdx.z];
  __shared__ real sums[WARPS][WARP];
  const int warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int b = blockIdx.x, column = blockIdx.y * WARP + lane;
  if (b >= c.layout.batch || blockIdx.y * WARP >= c.width) return;
  const int count = c.count(b);
  const real* const x = c.x + (size_t)c.layout.first[b] * c.width + column;
  real sum = 0;
  if (column < c.width)
    for (int t = warp; t < count; t += WARPS) sum += x[(size_t)t * c.width];
  sums[warp][lane] = sum;
  __syncthreads();
  if (warp > 0 || column >= c.width) return;
  for (int other = 1; other < WARPS; ++other) sum += sums[other][lane];
  c.y[(size_t)b * c.width + column] = sum / count;
}

// A warp handles a row.
extern "C" __global__ void pool_backward(const Many<Pool> calls) {
  const Pool& c = calls.at[blockIdx.z];
  const int row = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (row >= c.layout.rows) return;
  const int b = c.layout.utterance[row], count = b < 0 ? 0 : c.count(b);
  const bool counts = b >= 0 && row - c.layout.first[b] < count;
  for (int j = threadIdx.x % WARP; j < c.width; j += WARP)
    c.dx.put((size_t)row * c.width + j, counts ? c.dy[(size_t)b * c.width + j] / count : (real)0);
}
