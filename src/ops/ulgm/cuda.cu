// Unimodal label generation, equations (29) to (34): labels, features and class sums of the training samples.
#include "common.cuh"

// Current pseudo-labels of a batch; for a sample that training has not seen, the true label.
struct Current {
  const int* index;             // (batch)
  const unsigned char* stored;  // (N)
  const real *labels, *y_m;     // (N), (batch)
  real* y;
  int batch;
};

extern "C" __global__ void ulgm_current(const Many<Current> calls) {
  const Current& c = calls.at[blockIdx.z];
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i >= c.batch) return;
  const int row = c.index[i];
  c.y[i] = c.stored[row] ? c.labels[row] : c.y_m[i];
}

// alpha of a sample (31), returned in every lane.
__device__ real polarity(const real* x, const real* positive, const real* negative, int dim, int lane) {
  real squares[2] = {};
  for (int j = lane; j < dim; j += WARP) {
    const real p = x[j] - positive[j], n = x[j] - negative[j];
    squares[0] += p * p;
    squares[1] += n * n;
  }
  const real root = (real)sqrt((double)dim);
  const real to_positive = sqrt(warp_sum(squares[0])) / root;       // D^p = ||F - C^p||_2 / sqrt(dim): (29)
  const real to_negative = sqrt(warp_sum(squares[1])) / root;       // D^n = ||F - C^n||_2 / sqrt(dim): (30)
  return (to_negative - to_positive) / (to_positive + (real)1e-8);  // (D^n - D^p) / (D^p + eps): (31)
}

// The label that replaces an old one in epoch n.
__device__ real relabel(real old, real y_m, real alpha_s, real alpha_m, long long n, real bound) {
  const real by_ratio = y_m * alpha_s / (alpha_m + (real)1e-8);  // y_m alpha_s / alpha_m: (32)
  const real by_difference = y_m + alpha_s - alpha_m;            // (33)
  real label = by_ratio / 2 + by_difference / 2;                 // (34)
  label = label > bound ? bound : label < -bound ? -bound : label;
  return old * (real)((double)(n - 1) / (double)(n + 1)) + label * (real)(2.0 / (double)(n + 1));
}

// Features (batch, dim) and two centres, (dim) each.
struct Centred {
  const real *features, *positive, *negative;
  int dim;

  __device__ real alpha(int i, int lane) const {
    return polarity(features + (size_t)i * dim, positive, negative, dim, lane);
  }
};

struct Labels {
  const real *old, *y_m;  // (batch)
  Centred own, multimodal;
  real* labels;  // (batch)
  long long epoch;
  double bound;
  int batch;
};

// New labels of samples from given centres, a warp for each sample.
extern "C" __global__ void ulgm_labels(const Many<Labels> calls) {
  const Labels& c = calls.at[blockIdx.z];
  const int lane = threadIdx.x % WARP, i = blockIdx.x * (blockDim.x / WARP) + threadIdx.x / WARP;
  if (i >= c.batch) return;
  const real alpha_s = c.own.alpha(i, lane), alpha_m = c.multimodal.alpha(i, lane);
  if (lane == 0) c.labels[i] = relabel(c.old[i], c.y_m[i], alpha_s, alpha_m, c.epoch, (real)c.bound);
}

constexpr int SPACES = 3;

// State of one of m, a, v over N samples, and the batch's features.
struct Space {
  real* labels;          // (N)
  real* kept;            // (N, dim): features
  double* sums;          // (2, dim): sums of the features of the positive and of the negative class
  double* counts;        // (2)
  const real* features;  // (batch, dim)
  int dim;
};

struct Step {
  Space spaces[SPACES];   // `count` of them, the first that of m
  unsigned char* stored;  // (N)
  const int* rows;        // (batch): the sample of each place, or -1
  const real* y_m;        // (batch)
  real* centres;          // working memory: (2, width), where width is the sum of all dims
  real* labels;           // (count, batch)
  int* moves;             // (count, batch)
  const long long *epoch, *unless;  // nothing is done unless the latter is null or points to zero
  double bound;
  int batch, count, width, exclude_zero;
};

// Classes. A move is the class before plus four times the class after.
enum { POSITIVE, NEGATIVE, NEITHER };

__device__ int class_of(real label, int exclude_zero) {
  return label < 0 ? NEGATIVE : label > 0 || !exclude_zero ? POSITIVE : NEITHER;
}

// Updates the sum of a class, which a sample may leave and enter.
__device__ void update(double& sum, int own, int move, real before, real after) {
  if (move % 4 == own) sum -= (double)before;
  if (move / 4 == own) sum += (double)after;
}

// Runs as one block. First it computes the centres before the step, then the labels, a warp for each sample, then the
// sums, a thread for each column, over the batch in its order.
extern "C" __global__ void ulgm_step(const Many<Step> calls) {
  const Step& c = calls.at[blockIdx.z];
  if (c.unless && *c.unless) return;
  const int lane = threadIdx.x % WARP;
  const long long epoch = *c.epoch;

  for (int s = 0, first = 0; s < c.count; first += c.spaces[s++].dim) {
    const Space& space = c.spaces[s];
    for (int j = threadIdx.x; j < 2 * space.dim; j += blockDim.x) {
      const int which = j / space.dim;
      c.centres[which * c.width + first + j % space.dim] = (real)(space.sums[j] / space.counts[which]);
    }
  }
  __syncthreads();

  const auto has_centres = [&](int s) { return c.spaces[s].counts[0] > 0 && c.spaces[s].counts[1] > 0; };
  const auto alpha = [&](int s, int first, int i) {
    const Space& space = c.spaces[s];
    const real* positive = c.centres + first;
    return polarity(space.features + (size_t)i * space.dim, positive, positive + c.width, space.dim, lane);
  };
  // Labels do not change in the first epoch, nor while a class has no sample yet.
  const bool moving = epoch >= 2 && has_centres(0);
  for (int i = threadIdx.x / WARP; i < c.batch; i += blockDim.x / WARP) {
    const int row = c.rows[i];
    if (row < 0) continue;
    const bool stored = c.stored[row];
    const real y_m = c.y_m[i], alpha_m = moving ? alpha(0, 0, i) : (real)0;
    for (int s = 0, first = 0; s < c.count; first += c.spaces[s++].dim) {
      const real old = stored ? c.spaces[s].labels[row] : y_m;
      real label = s == 0 ? y_m : old;
      if (s > 0 && moving && has_centres(s)) label = relabel(old, y_m, alpha(s, first, i), alpha_m, epoch, (real)c.bound);
      if (lane > 0) continue;
      const int before = stored ? class_of(old, c.exclude_zero) : NEITHER;
      c.labels[s * c.batch + i] = label;
      c.moves[s * c.batch + i] = before + 4 * class_of(label, c.exclude_zero);
    }
  }
  __syncthreads();

  constexpr int AHEAD = 8;  // samples that are read before any is written
  for (int column = threadIdx.x; column < c.width; column += blockDim.x) {
    int s = 0, j = column;
    for (; j >= c.spaces[s].dim; ++s) j -= c.spaces[s].dim;
    const Space& space = c.spaces[s];
    double positive = space.sums[j], negative = space.sums[space.dim + j];
    double counts[2] = {};
    for (int k = 0; k < 2 && j == 0; ++k) counts[k] = space.counts[k];
    for (int first = 0; first < c.batch; first += AHEAD) {
      int rows[AHEAD], moves[AHEAD];
      real before[AHEAD], after[AHEAD];
#pragma unroll
      for (int k = 0; k < AHEAD; ++k) {
        const int i = first + k;
        rows[k] = i < c.batch ? c.rows[i] : -1;
        if (rows[k] < 0) continue;
        moves[k] = c.moves[s * c.batch + i];
        before[k] = space.kept[(size_t)rows[k] * space.dim + j];
        after[k] = space.features[(size_t)i * space.dim + j];
      }
#pragma unroll
      for (int k = 0; k < AHEAD; ++k) {
        if (rows[k] < 0) continue;
        update(positive, POSITIVE, moves[k], before[k], after[k]);
        update(negative, NEGATIVE, moves[k], before[k], after[k]);
        update(counts[0], POSITIVE, moves[k], 1, 1);
        update(counts[1], NEGATIVE, moves[k], 1, 1);
        space.kept[(size_t)rows[k] * space.dim + j] = after[k];
      }
    }
    space.sums[j] = positive;
    space.sums[space.dim + j] = negative;
    for (int k = 0; k < 2 && j == 0; ++k) space.counts[k] = counts[k];
  }
  for (int at = threadIdx.x; at < c.count * c.batch; at += blockDim.x) {
    const int row = c.rows[at % c.batch];
    if (row < 0) continue;
    c.spaces[at / c.batch].labels[row] = c.labels[at];
    if (at < c.batch) c.stored[row] = 1;
  }
}
