// The gated residual and its normalisation, equations (11) and (22). A warp handles a row. Backward, a block handles
// some rows of one utterance, so that the gates' gradients are sums of few parts; without gates, some of all rows.
#include "ops.cuh"

struct GatedNorm {
  const real *r, *x, *weight, *bias;
  const real *compound, *retain;  // (batch, width), or null where every gate is 1
  real* y;                        // forward only; all below is backward only
  const real* dy;
  Gradient dr, dx;
  real* sums;       // (blocks, 2, width): each block's share of weight's and bias's gradient
  real* gate_sums;  // (parts, 2, batch, width): each part's share of the two gates' gradients, if any
  Layout layout;
  Dropout dropout;
  double eps;
  int width;
  int parts;  // parts of an utterance; without gates, parts of all rows
};

// Writes the normalised g_c * dropout(R) + g_r * X, before scale and shift, to a warp's memory, and dropout's factors to
// `keep`, unless that is null; returns 1 / deviation.
__device__ real normal_of(const GatedNorm& c, int row, int b, int lane, DropoutAlong& dropout, real* normal,
                          real* keep) {
  real sum = 0;
  for (int j = lane; j < c.width; j += WARP) {
    const size_t at = (size_t)row * c.width + j;
    const real kept = dropout.at(at);
    real r = c.r[at] * kept, x = c.x[at];
    if (c.compound) {
      r *= c.compound[b * c.width + j];
      x *= c.retain[b * c.width + j];
    }
    if (keep) keep[j] = kept;
    normal[j] = r + x;
    sum += r + x;
  }
  return normalize(normal, sum, c.width, c.eps, lane);
}

// Shared memory: a row for each warp.
extern "C" __global__ void gated_norm(const Many<GatedNorm> calls) {
  const GatedNorm& c = calls.at[blockIdx.z];
  const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int row = blockIdx.x * warps + warp;
  if (row >= c.layout.rows) return;
  const int b = c.layout.utterance[row];
  real* normal = shared_memory() + warp * c.width;
  DropoutAlong dropout(c.dropout);
  if (b >= 0) normal_of(c, row, b, lane, dropout, normal, nullptr);
  for (int j = lane; j < c.width; j += WARP)
    c.y[(size_t)row * c.width + j] = b >= 0 ? normal[j] * c.weight[j] + c.bias[j] : (real)0;
}

// Shared memory: for each warp two rows and the sums, which are two, or four with gates.
extern "C" __global__ void __launch_bounds__(128, 6) gated_norm_backward(const Many<GatedNorm> calls) {
  const GatedNorm& c = calls.at[blockIdx.z];
  const int warps = blockDim.x / WARP, warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
  const int width = c.width, batch = c.layout.batch, blocks = c.compound ? batch * c.parts : c.parts;
  if ((int)blockIdx.x >= blocks) return;
  const int b = blockIdx.x / c.parts, part = blockIdx.x % c.parts, total = c.layout.total();
  const int start = c.compound ? c.layout.first[b] : 0;
  const int length = (c.compound ? c.layout.first[b + 1] : total) - start;
  const int first = start + (int)((size_t)length * part / c.parts);
  const int last = start + (int)((size_t)length * (part + 1) / c.parts);

  const int kinds = c.compound ? 4 : 2, memory = (2 + kinds) * width;
  real *normal = shared_memory() + warp * memory, *keep = normal + width;
  real *dweight = keep + width, *dbias = dweight + width;
  real *dcompound = dbias + width, *dretain = dcompound + width;
  for (int j = lane; j < kinds * width; j += WARP) dweight[j] = 0;
  __syncwarp();
  DropoutAlong dropout(c.dropout);
  for (int row = first + warp; row < last; row += warps) {
    const real scale = normal_of(c, row, b, lane, dropout, normal, keep);
    // The gradient before the norm: scale * (g - mean(g) - n * mean(g * n)), g = weight * dy.
    real mean = 0, slope = 0;
    for (int j = lane; j < width; j += WARP) {
      const real dy = c.dy[(size_t)row * width + j], g = dy * c.weight[j];
      mean += g;
      slope += g * normal[j];
      dweight[j] += dy * normal[j];
      dbias[j] += dy;
    }
    mean = warp_sum(mean) / width;
    slope = warp_sum(slope) / width;
    for (int j = lane; j < width; j += WARP) {
      const size_t at = (size_t)row * width + j;
      real dx = scale * (c.dy[at] * c.weight[j] - mean - normal[j] * slope), dr = dx * keep[j];
      if (c.compound) {
        dcompound[j] += dr * c.r[at];
        dretain[j] += dx * c.x[at];
        dr *= c.compound[b * width + j];
        dx *= c.retain[b * width + j];
      }
      if (c.dr.to) c.dr.put(at, dr);
      if (c.dx.to) c.dx.put(at, dx);
    }
  }
  for (int row = total + blockIdx.x * warps + warp; row < c.layout.rows; row += blocks * warps)
    for (int j = lane; j < width; j += WARP) {
      if (c.dr.to) c.dr.put((size_t)row * width + j, 0);
      if (c.dx.to) c.dx.put((size_t)row * width + j, 0);
    }
  __syncthreads();
  const real* sums = shared_memory() + 2 * width;  // of the first warp
  for (int j = threadIdx.x; j < kinds * width; j += blockDim.x) {
    real sum = 0;
    for (int w = 0; w < warps; ++w) sum += sums[w * memory + j];
    if (j < 2 * width) c.sums[(size_t)blockIdx.x * 2 * width + j] = sum;
    else c.gate_sums[((size_t)(part * 2 + j / width - 2) * batch + b) * width + j % width] = sum;
  }
}
