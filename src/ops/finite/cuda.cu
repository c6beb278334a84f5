// Notes the first step that is not finite.
#include "common.cuh"

struct Numbers {
  const real* at;    // (count)
  long long* clock;  // laid out as `note` in cuda.rs says
  long long count;
};

// Places of the clock.
enum { OPTIMIZER_STEP = 2, STEP, FAULT_STEP, FAULT_OPTIMIZER_STEP };

// All threads that find a number that is not finite write the same values.
extern "C" __global__ void note_not_finite(const Many<Numbers> calls) {
  const Numbers& c = calls.at[blockIdx.z];
  const long long first = (long long)blockIdx.x * blockDim.x + threadIdx.x, stride = (long long)gridDim.x * blockDim.x;
  real sum = 0;  // NaN once a number is infinite or NaN
#pragma unroll 4
  for (long long i = first; i < c.count; i += stride) sum += c.at[i] - c.at[i];
  // Several launches may check one step: what an earlier one noted stays.
  if (sum == 0 || c.clock[FAULT_STEP] != 0) return;
  c.clock[FAULT_OPTIMIZER_STEP] = c.clock[OPTIMIZER_STEP];
  c.clock[FAULT_STEP] = c.clock[STEP];
}
