// The elementwise part of the source gate's backward, (17) and (18).
#include "ops.cuh"

struct SourceGate {
  const real *a, *gate;
  const real *dsource, *dgate;  // null where the loss does not depend on one
  real* dbefore;                // gradient of the sigmoid's argument
  Gradient da;                  // gradient by way of S = g_s * A alone
  size_t count;
};

extern "C" __global__ void source_gate_backward(const Many<SourceGate> calls) {
  const SourceGate& c = calls.at[blockIdx.z];
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= c.count) return;
  const real dsource = c.dsource ? c.dsource[i] : (real)0, dgate = c.dgate ? c.dgate[i] : (real)0;
  const real gate = c.gate[i];
  c.dbefore[i] = (dsource * c.a[i] + dgate) * gate * (1 - gate);
  if (c.da.to) c.da.put(i, dsource * gate);
}
