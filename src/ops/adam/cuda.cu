// One optimiser step over flat storage, in one pass, with PyTorch's arithmetic.
#include "common.cuh"

struct Adam {
  real *weights, *grad, *first, *second;  // (count)
  unsigned short* copy;   // (count): bfloat16 of the new weights, or null
  const long long* t_at;  // address of the number of the step, or null for `t`
  long long t;
  const long long* unless;  // nothing is done unless this is null or points to zero
  double rate, decay, scale;
  const double* rates_at;  // address of rate and decay, or null for `rate` and `decay`
  long long count;
  int decoupled, clear;
};

// Constants for all elements of a slice.
struct Constants {
  real near1, near2, root, rate, eps, shrink, coupled, scale;
};

__device__ double power(double base, long long n) {
  double product = 1;
  for (; n > 0; n /= 2, base *= base)
    if (n % 2) product *= base;
  return product;
}

__device__ Constants constants(const Adam& c) {
  const double beta1 = 0.9, beta2 = 0.999;
  const long long t = c.t_at ? *c.t_at : c.t;
  const double rate = c.rates_at ? c.rates_at[0] : c.rate, decay = c.rates_at ? c.rates_at[1] : c.decay;
  Constants k;
  k.near1 = (real)(1 - beta1);
  k.near2 = (real)(1 - beta2);
  k.root = (real)(1 / sqrt(1 - power(beta2, t)));
  k.rate = (real)(rate / (1 - power(beta1, t)));
  k.eps = (real)1e-8;
  k.shrink = (real)(c.decoupled ? 1 - rate * decay : 1.0);
  k.coupled = (real)(c.decoupled ? 0.0 : decay);
  k.scale = (real)c.scale;
  return k;
}

__device__ void update(const Constants& k, real& w, real g, real& m, real& v) {
  const real grad = g * k.scale + w * k.coupled;
  m += k.near1 * (grad - m);
  v += k.near2 * (grad * grad - v);
  w = w * k.shrink - m / (sqrt(v) * k.root + k.eps) * k.rate;
}

// The nearest bfloat16, the even one of two.
__device__ unsigned short bfloat16(real x) {
  union {
    float number;
    uint32 bits;
  } as;
  as.number = (float)x;
  if (as.number != as.number) return 0x7FC0;
  return (unsigned short)((as.bits + 0x7FFF + (as.bits >> 16 & 1)) >> 16);
}

struct alignas(8) FourCopies {
  unsigned short at[4];
};

__device__ bool aligned(const void* p, int to) { return (size_t)p % to == 0; }

// Handles elements four at a time where the arrays' addresses allow it, those before and after one at a time.
extern "C" __global__ void adam(const Many<Adam> calls) {
  const Adam& c = calls.at[blockIdx.z];
  if (c.unless && *c.unless) return;
  __shared__ Constants shared;
  if (threadIdx.x == 0) shared = constants(c);
  __syncthreads();
  const Constants k = shared;
  const long long thread = (long long)blockIdx.x * blockDim.x + threadIdx.x;
  const long long stride = (long long)gridDim.x * blockDim.x;
  // Elements before the first weight at a multiple of 16.
  const int skew = (16 - (size_t)c.weights % 16) % 16 / sizeof(real);
  const bool wide = aligned(c.grad + skew, 16) && aligned(c.first + skew, 16) && aligned(c.second + skew, 16) &&
                    (!c.copy || aligned(c.copy + skew, 8));
  const long long before = wide ? min((long long)skew, c.count) : c.count, fours = (c.count - before) / 4;
  for (long long i = thread; i < fours; i += stride) {
    const long long at = before + 4 * i;
    Four w = *reinterpret_cast<Four*>(c.weights + at), g = *reinterpret_cast<Four*>(c.grad + at);
    Four m = *reinterpret_cast<Four*>(c.first + at), v = *reinterpret_cast<Four*>(c.second + at);
    FourCopies copies;
    for (int u = 0; u < 4; ++u) {
      update(k, w.at[u], g.at[u], m.at[u], v.at[u]);
      copies.at[u] = bfloat16(w.at[u]);
      g.at[u] = 0;
    }
    *reinterpret_cast<Four*>(c.weights + at) = w;
    *reinterpret_cast<Four*>(c.first + at) = m;
    *reinterpret_cast<Four*>(c.second + at) = v;
    if (c.clear) *reinterpret_cast<Four*>(c.grad + at) = g;
    if (c.copy) *reinterpret_cast<FourCopies*>(c.copy + at) = copies;
  }
  for (long long i = thread; i < c.count - 4 * fours; i += stride) {
    const long long at = i < before ? i : i + 4 * fours;
    real w = c.weights[at], m = c.first[at], v = c.second[at];
    update(k, w, c.grad[at], m, v);
    c.weights[at] = w;
    c.first[at] = m;
    c.second[at] = v;
    if (c.clear) c.grad[at] = 0;
    if (c.copy) c.copy[at] = bfloat16(w);
  }
}
