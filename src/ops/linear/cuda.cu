// The activation after an affine map, element by element.
#include "ops.cuh"

struct Activate {
  real* y;       // becomes act(y)
  real* before;  // receives y before that, or null
  size_t count;
  int activation;
};

extern "C" __global__ void activate_elements(const Many<Activate> calls) {
  const Activate& c = calls.at[blockIdx.z];
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= c.count) return;
  const real y = c.y[i];
  if (c.before) c.before[i] = y;
  c.y[i] = activate(c.activation, y);
}

struct ActivateBackward {
  const real *dy, *y;
  const real* before;  // the argument of a GELU
  real* dbefore;
  size_t count;
  int activation;
};

__device__ real slope(const ActivateBackward& c, size_t i) {
  switch (c.activation) {
    case RELU: return c.y[i] > 0 ? 1 : 0;
    case SIGMOID: return c.y[i] * (1 - c.y[i]);
    case GELU: {
      const real x = c.before[i], density = (real)0.39894228040143267794 * exp((real)-0.5 * x * x);
      return (real)0.5 * (1 + erf(x * (real)0.70710678118654752440)) + x * density;
    }
    case GELU_TANH: {
      const real x = c.before[i], a = (real)0.7978845608028654, b = (real)0.044715;
      const real t = tanh(a * (x + b * x * x * x));
      return (real)0.5 * (1 + t + x * (1 - t * t) * a * (1 + 3 * b * x * x));
    }
    default: return 1;
  }
}

extern "C" __global__ void activate_backward(const Many<ActivateBackward> calls) {
  const ActivateBackward& c = calls.at[blockIdx.z];
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i < c.count) c.dbefore[i] = c.dy[i] * slope(c, i);
}
