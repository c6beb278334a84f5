// The task loss, equation (35).
#include "common.cuh"

constexpr int TERMS = 8;

// The errors of one score, (batch) each.
struct Term {
  const real *score, *target;
  real* slopes;  // of each error by its score, kept for backward, or null
};

struct TaskLoss {
  Term terms[TERMS];
  const real* label;  // (batch): the multimodal one
  Gradient y;
  int batch, count;
  int squared;  // terms in front that are squared errors; the others are weighted by tanh|target - label|
};

// One block.
extern "C" __global__ void task_loss(const Many<TaskLoss> calls) {
  const TaskLoss& c = calls.at[blockIdx.z];
  real sum = 0;
  for (int i = threadIdx.x; i < c.batch; i += blockDim.x) {
    for (int n = 0; n < c.count; ++n) {
      const Term& term = c.terms[n];
      const real target = term.target[i], off = term.score[i] - target;
      real slope = 2 * off;
      if (n < c.squared) {
        sum += off * off;
      } else {
        const real weight = (real)tanh(fabs((double)(target - c.label[i])));
        sum += weight * fabs(off);
        slope = off > 0 ? weight : off < 0 ? -weight : (real)0;
      }
      if (term.slopes) term.slopes[i] = slope;
    }
  }
  sum = block_sum(sum, shared_memory());
  if (threadIdx.x == 0) c.y.put(0, sum / c.batch);
}

struct Back {
  const real *slopes, *dy;
  Gradient dx;
  int batch;
};

// A call for each score.
extern "C" __global__ void task_loss_backward(const Many<Back> calls) {
  const Back& c = calls.at[blockIdx.z];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < c.batch) c.dx.put(i, c.slopes[i] * (*c.dy / c.batch));
}
