// The control vector of a stream, equations (7) and (16): scans of a GRU in both directions, and their backward. A
// block scans one utterance in one direction (a few utterances where it does not hold the weights), see
// recurrent.cuh. A row of `kept` or `dgates` has several parts of `width` numbers each.
#include "recurrent.cuh"

constexpr int GATES = 3;  // r, z, n
constexpr int KEPT = 5;   // r, z, n, W_hn h + b_hn, and the state before the frame

// Parts of a row of `dgates`: for each direction r, z, n of the input's side, then, from OWN on, for each direction
// r, z, n of the state's side. The three parts that a product reads, or six for that of dx, are side by side.
constexpr int PARTS = 4 * GATES, OWN = 2 * GATES;

struct Scan {
  const real* input[2];   // for each direction, (rows, 3 parts): W_ih x + b_ih
  const real* weight[2];  // W_hh, (3 width, width); its transpose where it is read at each step
  const real* bias[2];    // b_hh
  real* kept[2];          // (rows, KEPT parts), or null
  real* shares;           // (2, batch, width): each direction's summand of the control vector
  Layout layout;
  int width;
};

struct ScanBack {
  const real* kept[2];
  const real* weight[2];
  const real* weight_ih[2];
  const real* dy;  // (batch, width)
  real* dgates;    // (rows, PARTS parts)
  real* both_ih;   // W_ih of both directions, one after the other, or null
  Layout layout;
  int width, input_width;
};

struct Gates {
  real r, z, n, own_n;

  __device__ Gates(const real (&input)[GATES], const real (&bias)[GATES], const real (&own)[GATES]) {
    r = logistic(input[0] + bias[0] + own[0]);
    z = logistic(input[1] + bias[1] + own[1]);
    own_n = own[2] + bias[2];
    n = tanh(input[2] + r * own_n);
  }
  __device__ real after(real before) const { return n + z * (before - n); }
};

// Gradients of the gates' arguments, and of the state before by its direct path, for a gradient of 1 of the state
// after.
struct Slopes {
  real r, z, n, own_n, before;

  __device__ explicit Slopes(const real (&kept)[KEPT]) {
    const real gate_r = kept[0], gate_z = kept[1], gate_n = kept[2], own = kept[3], state = kept[4];
    n = (1 - gate_z) * (1 - gate_n * gate_n);
    r = n * own * gate_r * (1 - gate_r);
    z = (state - gate_n) * gate_z * (1 - gate_z);
    own_n = n * gate_r;
    before = gate_z;
  }
};

__device__ int frame(int length, int t, int direction) { return direction ? length - 1 - t : t; }

template <int WIDTH>
__device__ void scan(const Many<Scan>& calls) {
  constexpr int COPIES = Block<WIDTH>::COPIES;
  const Place at = place();
  const Scan& c = calls.at[at.call];
  if (at.rank >= c.layout.batch) return;
  const int width = c.width, unit = threadIdx.x / COPIES, copy = threadIdx.x % COPIES;
  const bool counts = unit < width;
  real* kept = c.kept[at.direction];
  const bool keeps = counts && kept;
  if (kept) clear_beyond(c.layout, at.rank, c.layout.batch, kept, KEPT * width, KEPT * width);

  using Weights = Held<WIDTH, 2, GATES, WIDTH>;
  Weights weights;
  const real* matrix = c.weight[at.direction];
  weights.load([&](int j, int gate, int k) {
    return j < width && k < width ? matrix[(gate * width + j) * width + k] : (real)0;
  });
  alignas(16) __shared__ real states[2 * WIDTH];
  for (int i = threadIdx.x; i < 2 * WIDTH; i += blockDim.x) states[i] = 0;
  const int b = c.layout.order[at.rank], length = c.layout.length(b);
  const int apart = at.direction ? -width : width, own_or_last = counts ? unit : width - 1;
  const size_t start = c.layout.first[b] + frame(length, 0, at.direction);
  Ahead inputs = {c.input[at.direction] + start * GATES * width + own_or_last, GATES * apart, length};
  kept += (start * KEPT + copy) * width + unit;
  real bias[GATES], even[GATES], odd[GATES], state = 0, sum = 0;
  inputs.read(even, width);
  inputs.read(odd, width);
#pragma unroll
  for (int gate = 0; gate < GATES; ++gate) bias[gate] = c.bias[at.direction][gate * width + own_or_last];
  __syncthreads();
  typename Weights::Vector vector(states);
  const auto step = [&](real(&input)[GATES], real* next) {
    real own[GATES];
    weights.multiply(vector, own);
    const Gates gates(input, bias, own);
    const real before = state;
    state = gates.after(before);
    if (counts && copy == 0) next[unit] = state;
    __syncthreads();
    vector = typename Weights::Vector(next);
    // The lines below run while that is being read.
    put_in_turn<COPIES>(kept, width, {gates.r, gates.z, gates.n, gates.own_n, before}, copy, keeps);
    kept += KEPT * apart;
    inputs.read(input, width);
    sum += state;
  };
  for (int t = 0;; t += 2) {
    step(even, states + WIDTH);
    if (t + 1 == length) break;
    step(odd, states);
    if (t + 2 == length) break;
  }
  if (counts && copy == 0)
    c.shares[((size_t)at.direction * c.layout.batch + b) * width + unit] = sum * ((real)0.5 / length);
}

// The scan of a few utterances, which reads the weights at each step. Shared memory: 3 rows a unit.
__device__ void scan_reading(const Many<Scan>& calls) {
  const Place at = place();
  const Scan& c = calls.at[at.call];
  if (at.rank * MEMBERS >= c.layout.batch) return;
  const int width = c.width;
  const Members members(c.layout, at.rank);
  const real *matrix = c.weight[at.direction], *bias = c.bias[at.direction], *input = c.input[at.direction];
  real* kept = c.kept[at.direction];
  if (kept) clear_beyond(c.layout, at.rank, members.groups, kept, KEPT * width, KEPT * width);
  Row *states = reinterpret_cast<Row*>(shared_memory()), *sums = states + 2 * width;
  for (int j = threadIdx.x; j < width; j += blockDim.x) states[j] = sums[j] = {};
  __syncthreads();
  for (int t = 0; t < members.steps; ++t) {
    const Row* before = states + t % 2 * width;
    Row* after = states + (1 - t % 2) * width;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
      real own[GATES][MEMBERS];
      multiply(matrix + j, GATES * width, width, before, width, own);
      Row state = before[j], sum = sums[j];
#pragma unroll
      for (int m = 0; m < MEMBERS; ++m) {
        if (t >= members.length[m]) continue;
        const size_t row = members.first[m] + frame(members.length[m], t, at.direction);
        const real* x = input + row * GATES * width + j;
        const Gates gates({x[0], x[width], x[2 * width]}, {bias[j], bias[width + j], bias[2 * width + j]},
                          {own[0][m], own[1][m], own[2][m]});
        if (kept)
          put_in_turn<1>(kept + row * KEPT * width + j, width,
                         {gates.r, gates.z, gates.n, gates.own_n, state.at[m]}, 0, true);
        state.at[m] = gates.after(state.at[m]);
        sum.at[m] += state.at[m];
      }
      after[j] = state;
      sums[j] = sum;
    }
    __syncthreads();
  }
  for (int j = threadIdx.x; j < width; j += blockDim.x)
#pragma unroll
    for (int m = 0; m < MEMBERS; ++m)
      if (m < members.count)
        c.shares[((size_t)at.direction * c.layout.batch + members.utterance[m]) * width + j] =
            sums[j].at[m] * ((real)0.5 / members.length[m]);
}

// Writes one unit's numbers in a row of `dgates`.
template <int COPIES>
__device__ void put_gates(real* row, int width, real r, real z, real n, real own_n, int copy, bool write) {
  put_in_turn<COPIES>(row, width, {r, z, n}, copy, write);
  put_in_turn<COPIES>(row + OWN * width, width, {r, z, own_n}, copy, write);
}

// Prepares what products read besides the frames' gradients: zeros in further rows, W_ih of both directions together.
__device__ void prepare(const ScanBack& c, const Place& at, int turns) {
  const int parts = GATES * c.width, size = parts * c.input_width;
  real* dgates = c.dgates + at.direction * parts;
  clear_beyond(c.layout, at.rank, turns, dgates, PARTS * c.width, parts);
  clear_beyond(c.layout, at.rank, turns, dgates + OWN * c.width, PARTS * c.width, parts);
  if (!c.both_ih) return;
  for (int i = at.rank * blockDim.x + threadIdx.x; i < size; i += turns * blockDim.x)
    c.both_ih[at.direction * size + i] = c.weight_ih[at.direction][i];
}

template <int WIDTH>
__device__ void scan_back(const Many<ScanBack>& calls) {
  constexpr int COPIES = Block<WIDTH>::COPIES;
  const Place at = place();
  const ScanBack& c = calls.at[at.call];
  if (at.rank >= c.layout.batch) return;
  const int width = c.width, unit = threadIdx.x / COPIES, copy = threadIdx.x % COPIES;
  const bool counts = unit < width;
  prepare(c, at, c.layout.batch);

  using Weights = Held<WIDTH, 4, 1, GATES * WIDTH>;
  Weights weights;
  const real* matrix = c.weight[at.direction];
  weights.load([&](int j, int, int i) {
    const int gate = i / WIDTH, k = i % WIDTH;
    return j < width && k < width ? matrix[(gate * width + k) * width + j] : (real)0;
  });
  alignas(16) __shared__ real rows[2 * GATES * WIDTH];
  for (int i = threadIdx.x; i < 2 * GATES * WIDTH; i += blockDim.x) rows[i] = 0;
  const int b = c.layout.order[at.rank], length = c.layout.length(b);
  const int apart = at.direction ? -width : width, own_or_last = counts ? unit : width - 1;
  const size_t start = c.layout.first[b] + frame(length, length - 1, at.direction);
  const size_t own = (size_t)(at.direction * GATES + copy) * width + unit;
  Ahead kept = {c.kept[at.direction] + start * KEPT * width + own_or_last, -KEPT * apart, length};
  real* dgates = c.dgates + start * PARTS * width + own;
  const real share = c.dy[(size_t)b * width + own_or_last] * ((real)0.5 / length);
  real even[KEPT], odd[KEPT], dstate = 0;
  kept.read(even, width);
  kept.read(odd, width);
  __syncthreads();
  const auto step = [&](real(&numbers)[KEPT], real* row) {
    const Slopes slopes(numbers);
    const real dafter = dstate + share;
    const real r = dafter * slopes.r, z = dafter * slopes.z, n = dafter * slopes.n;
    const real own_n = dafter * slopes.own_n;
    put_in_turn<COPIES>(row + copy * WIDTH + unit, WIDTH, {r, z, own_n}, copy, counts);
    __syncthreads();
    const typename Weights::Vector vector(row);
    // The lines below run while that is being read.
    put_gates<COPIES>(dgates, width, r, z, n, own_n, copy, counts);
    dgates -= PARTS * apart;
    dstate = dafter * slopes.before;
    kept.read(numbers, width);
    real through[1];
    weights.multiply(vector, through);
    dstate += through[0];
  };
  for (int t = 0;; t += 2) {
    step(even, rows);
    if (t + 1 == length) break;
    step(odd, rows + GATES * WIDTH);
    if (t + 2 == length) break;
  }
}

// The backward scan of a few utterances, which reads the weights at each step. Shared memory: 4 rows a unit.
__device__ void scan_back_reading(const Many<ScanBack>& calls) {
  const Place at = place();
  const ScanBack& c = calls.at[at.call];
  if (at.rank * MEMBERS >= c.layout.batch) return;
  const int width = c.width;
  const Members members(c.layout, at.rank);
  prepare(c, at, members.groups);
  Row *rows = reinterpret_cast<Row*>(shared_memory()), *dstates = rows + GATES * width;
  const size_t own = (size_t)at.direction * GATES * width;
  for (int j = threadIdx.x; j < width; j += blockDim.x) dstates[j] = {};
  for (int t = members.steps - 1; t >= 0; --t) {
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
      Row dstate = dstates[j], r = {}, z = {}, own_n = {};
#pragma unroll
      for (int m = 0; m < MEMBERS; ++m) {
        if (t >= members.length[m]) continue;
        const size_t row = members.first[m] + frame(members.length[m], t, at.direction);
        const real* kept = c.kept[at.direction] + row * KEPT * width + j;
        const Slopes slopes({kept[0], kept[width], kept[2 * width], kept[3 * width], kept[4 * width]});
        const real share = c.dy[(size_t)members.utterance[m] * width + j] * ((real)0.5 / members.length[m]);
        const real dafter = dstate.at[m] + share, n = dafter * slopes.n;
        r.at[m] = dafter * slopes.r;
        z.at[m] = dafter * slopes.z;
        own_n.at[m] = dafter * slopes.own_n;
        dstate.at[m] = dafter * slopes.before;
        real* dgates = c.dgates + row * PARTS * width + own + j;
        put_gates<1>(dgates, width, r.at[m], z.at[m], n, own_n.at[m], 0, true);
      }
      rows[j] = r;
      rows[width + j] = z;
      rows[2 * width + j] = own_n;
      dstates[j] = dstate;
    }
    __syncthreads();
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
      real through[1][MEMBERS];
      multiply(c.weight[at.direction] + j, width, 0, rows, GATES * width, through);
#pragma unroll
      for (int m = 0; m < MEMBERS; ++m) dstates[j].at[m] += through[0][m];
    }
    __syncthreads();
  }
}

// The number in a name is the most units that the kernel takes; without a number it takes any.
extern "C" __global__ void __launch_bounds__(32) bigru_16(const Many<Scan> calls) { scan<16>(calls); }
extern "C" __global__ void __launch_bounds__(64) bigru_32(const Many<Scan> calls) { scan<32>(calls); }
extern "C" __global__ void __launch_bounds__(128) bigru_64(const Many<Scan> calls) { scan<64>(calls); }
extern "C" __global__ void __launch_bounds__(512) bigru_128(const Many<Scan> calls) {
  if constexpr (HOLDS_128) scan<128>(calls);
}
extern "C" __global__ void __launch_bounds__(512) bigru(const Many<Scan> calls) { scan_reading(calls); }

extern "C" __global__ void __launch_bounds__(32) bigru_16_backward(const Many<ScanBack> calls) {
  scan_back<16>(calls);
}
extern "C" __global__ void __launch_bounds__(64) bigru_32_backward(const Many<ScanBack> calls) {
  scan_back<32>(calls);
}
extern "C" __global__ void __launch_bounds__(128) bigru_64_backward(const Many<ScanBack> calls) {
  scan_back<64>(calls);
}
extern "C" __global__ void __launch_bounds__(512) bigru_128_backward(const Many<ScanBack> calls) {
  if constexpr (HOLDS_128) scan_back<128>(calls);
}
extern "C" __global__ void __launch_bounds__(512) bigru_backward(const Many<ScanBack> calls) {
  scan_back_reading(calls);
}
