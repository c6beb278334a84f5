// Dropout by itself, forward and backward.
#include "ops.cuh"

struct Call {
  const real* x;
  Gradient y;
  Dropout dropout;
  long long count;
};

// A thread takes the 8 elements of a tile of 128 that one call of the generator draws for, 16 apart.
extern "C" __global__ void dropout(const Many<Call> calls) {
  const Call& c = calls.at[blockIdx.z];
  const uint32 thread = blockIdx.x * blockDim.x + threadIdx.x;
  const long long first = (long long)(thread / 16) * 128 + thread % 16;
  if (first >= c.count) return;
  const Words words = c.dropout.eight(0, 0, thread);
  for (int j = 0; j < 8; ++j) {
    const long long i = first + 16 * j;
    if (i < c.count) c.y.put(i, c.dropout.among(words, j) * c.x[i]);
  }
}
