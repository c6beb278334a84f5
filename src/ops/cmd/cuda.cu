// Central moment discrepancy, equations (24) and (25).
#include "common.cuh"

constexpr int ORDERS = 5;
// For each side the mean and the central moments 2 to 4, which backward reads.
constexpr int KEPT = ORDERS - 1;

struct Cmd {
  const real* x[2];  // P and Q, (rows, width)
  real* y;
  real* moments;     // (2, KEPT, width)
  real* toward;      // (ORDERS, width): the moments' difference over its length, times the order's weight
  const real* dy;    // backward only
  Gradient dx[2];
  int rows, width;
};

// Runs as one block. Both sides are computed by the same instructions, so that equal sides differ by exactly 0.
// Shared memory: 2 * KEPT numbers a thread.
extern "C" __global__ void cmd(const Many<Cmd> calls) {
  const Cmd& c = calls.at[blockIdx.z];
  const int width = c.width;
  const real share = (real)(1.0 / c.rows);
  real* shared = shared_memory();
  const auto moment = [&](int side, int which, int j) -> real& {
    return c.moments[(size_t)(side * KEPT + which) * width + j];
  };
  sum_columns<2>(
      c.rows, width, shared,
      [&](int row, int j, real* sums) {
        for (int side = 0; side < 2; ++side) sums[side] += c.x[side][(size_t)row * width + j];
      },
      [&](int j, const real* sums) {
        for (int side = 0; side < 2; ++side) moment(side, 0, j) = sums[side] * share;
      });
  real squares[ORDERS] = {};
  sum_columns<2 * KEPT>(
      c.rows, width, shared,
      [&](int row, int j, real* sums) {
        for (int side = 0; side < 2; ++side) {
          const real from_mean = c.x[side][(size_t)row * width + j] - moment(side, 0, j);
          real power = from_mean;
          for (int k = 0; k < KEPT; ++k) {
            power *= from_mean;
            sums[side * KEPT + k] += power;
          }
        }
      },
      [&](int j, const real* sums) {
        for (int k = 0; k < ORDERS; ++k) {
          const real p = k == 0 ? moment(0, 0, j) : sums[k - 1] * share;
          const real q = k == 0 ? moment(1, 0, j) : sums[KEPT + k - 1] * share;
          if (k < KEPT) moment(0, k, j) = p;
          if (k < KEPT) moment(1, k, j) = q;
          c.toward[(size_t)k * width + j] = p - q;
          squares[k] += (p - q) * (p - q);
        }
      });
  real y = 0, weight = 1;
  for (int k = 0; k < ORDERS; ++k) {
    weight /= 2;  // 1 / |b - a|^k
    const real length = sqrt(block_sum(squares[k], shared));
    y += length * weight;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
      real& toward = c.toward[(size_t)k * width + j];
      toward = length > 0 ? toward / length * weight : (real)0;
    }
  }
  if (threadIdx.x == 0) *c.y = y;
}

// One thread for each element; blockIdx.y is the side.
extern "C" __global__ void cmd_backward(const Many<Cmd> calls) {
  const Cmd& c = calls.at[blockIdx.z];
  const int side = blockIdx.y, width = c.width;
  const size_t i = (size_t)blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= (size_t)c.rows * width || !c.dx[side].to) return;
  const int j = (int)(i % width);
  const real* moments = c.moments + (size_t)side * KEPT * width + j;
  const real from_mean = c.x[side][i] - moments[0];
  // d(moment k) / dx = k (x - mean)^(k - 1), minus its mean, since the mean depends on x, too.
  real sum = 0, power = 1;
  for (int k = 1; k <= ORDERS; ++k) {
    const real mean_power = k > 2 ? moments[(size_t)(k - 2) * width] : (real)0;
    sum += k * (power - mean_power) * c.toward[(size_t)(k - 1) * width + j];
    power *= from_mean;
  }
  const real slope = *c.dy / c.rows;
  c.dx[side].put(i, sum * (side == 0 ? slope : -slope));
}
