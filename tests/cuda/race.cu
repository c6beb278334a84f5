// A kernel that lacks a barrier, to prove that the checks find that.
#include "common.cuh"

struct Reverse {
  real* x;
  int barrier;
};

// Reverses 64 numbers by way of shared memory.
extern "C" __global__ void reverse(const Reverse c) {
  __shared__ real own[64];
  own[threadIdx.x] = c.x[threadIdx.x];
  if (c.barrier) __syncthreads();
  c.x[threadIdx.x] = own[63 - threadIdx.x];
}
