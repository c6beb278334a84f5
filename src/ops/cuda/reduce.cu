// Adds up sums that were made in parts, in an order that depends on the number of parts alone.
#include "common.cuh"

struct AddParts {
  const real* parts;  // (count, size)
  Gradient to;        // (size)
  int count, size, stride;  // stride: from one part to the next
};

constexpr int CALLS = 64, SLICES = 8;

// A block adds up WARP numbers, each of its warps over a slice of the parts.
extern "C" __global__ void add_parts(const Many<AddParts, CALLS> calls) {
  const AddParts& c = calls.at[blockIdx.z];
  __shared__ real sums[SLICES][WARP];
  if ((int)blockIdx.x * WARP >= c.size) return;
  const int lane = threadIdx.x % WARP, slice = threadIdx.x / WARP, i = blockIdx.x * WARP + lane;
  real sum = 0;
  if (i < c.size) {
#pragma unroll 8
    for (int part = slice; part < c.count; part += SLICES) sum += c.parts[(size_t)part * c.stride + i];
  }
  sums[slice][lane] = sum;
  __syncthreads();
  if (slice > 0 || i >= c.size) return;
  for (int other = 1; other < SLICES; ++other) sum += sums[other][lane];
  c.to.put(i, sum);
}
