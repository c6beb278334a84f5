// task + alpha * sim + beta * diff, equation (36). A few numbers: one thread.
#include "common.cuh"

// task, sim, and diff over two pairs.
constexpr int INPUTS = 4;

struct TotalLoss {
  const real* x[INPUTS];
  double weight[INPUTS];
  int part[INPUTS];  // 0 for task, 1 for sim, 2 for diff
  real *total, *values;  // forward only: a scalar, and task, sim, diff, total
  const real* dy;        // backward only
  Gradient dx[INPUTS];
  int inputs;
};

extern "C" __global__ void total_loss(const Many<TotalLoss> calls) {
  const TotalLoss& c = calls.at[blockIdx.z];
  if (threadIdx.x > 0) return;
  real values[4] = {};
  for (int i = 0; i < c.inputs; ++i) {
    values[c.part[i]] += *c.x[i];
    if (c.weight[i] > 0) values[3] += *c.x[i] * (real)c.weight[i];
  }
  *c.total = values[3];
  for (int i = 0; i < 4; ++i) c.values[i] = values[i];
}

extern "C" __global__ void total_loss_backward(const Many<TotalLoss> calls) {
  const TotalLoss& c = calls.at[blockIdx.z];
  if (threadIdx.x > 0) return;
  for (int i = 0; i < c.inputs; ++i)
    if (c.dx[i].to) c.dx[i].put(0, *c.dy * (real)c.weight[i]);
}
