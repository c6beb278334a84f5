// The hidden sequence of an LSTM, equations (1) and (2), and its gradients. A block scans one utterance (a few where
// it does not hold the weights), see recurrent.cuh. A row of `kept` or `dgates` has several parts of `width` numbers
// each.
#include "recurrent.cuh"

constexpr int GATES = 4;  // i, f, g, o
constexpr int KEPT = 7;   // i, f, g, o, the cell before, tanh of the cell after, and the state before

// How many steps ahead a scan with held weights reads its input. One is enough for wide layers, where a step takes
// long and registers are scarce.
template <int WIDTH>
constexpr int AHEAD = WIDTH <= 64 ? 2 : 1;

struct Scan {
  const real* input;   // (rows, 4 parts): W_ih x + b_ih
  const real* weight;  // W_hh, (4 width, width); its transpose where it is read at each step
  const real* bias;    // b_hh
  real* kept;          // (rows, KEPT parts), or null
  real* y;             // (rows, width)
  Layout layout;
  int width;
};

struct ScanBack {
  const real *kept, *weight;
  const real* dy;
  real* dgates;  // (rows, 4 parts)
  Layout layout;
  int width;
};

// One step of a unit.
struct Step {
  real i, f, g, o, cell, tanh_cell, state;

  __device__ Step(const real (&input)[GATES], const real (&bias)[GATES], const real (&own)[GATES],
                  real before) {
    i = logistic(input[0] + bias[0] + own[0]);
    f = logistic(input[1] + bias[1] + own[1]);
    g = tanh(input[2] + bias[2] + own[2]);
    o = logistic(input[3] + bias[3] + own[3]);
    cell = f * before + i * g;
    tanh_cell = tanh(cell);
    state = o * tanh_cell;
  }
};

// Gradients of i, f, g (their arguments) and of the cell before, for a gradient of 1 of the cell after; those of o and
// of the cell after, for a gradient of 1 of the state after.
struct Slopes {
  real i, f, g, before, o, cell;

  __device__ explicit Slopes(const real (&kept)[KEPT - 1]) {
    const real gate_i = kept[0], gate_f = kept[1], gate_g = kept[2], gate_o = kept[3], tanh_cell = kept[5];
    i = gate_g * gate_i * (1 - gate_i);
    f = kept[4] * gate_f * (1 - gate_f);
    g = gate_i * (1 - gate_g * gate_g);
    before = gate_f;
    o = tanh_cell * gate_o * (1 - gate_o);
    cell = gate_o * (1 - tanh_cell * tanh_cell);
  }
};

__device__ void clear_results(const Scan& c, int turn, int turns) {
  clear_beyond(c.layout, turn, turns, c.y, c.width, c.width);
  if (c.kept) clear_beyond(c.layout, turn, turns, c.kept, KEPT * c.width, KEPT * c.width);
}

template <int WIDTH>
__device__ void scan(const Many<Scan>& calls) {
  constexpr int COPIES = Block<WIDTH>::COPIES;
  const Place at = place();
  const Scan& c = calls.at[at.call];
  if (at.rank >= c.layout.batch) return;
  const int width = c.width, unit = threadIdx.x / COPIES, copy = threadIdx.x % COPIES;
  const bool counts = unit < width, keeps = counts && c.kept;
  clear_results(c, at.rank, c.layout.batch);

  using Weights = Held<WIDTH, 2, GATES, WIDTH>;
  Weights weights;
  weights.load([&](int j, int gate, int k) {
    return j < width && k < width ? c.weight[(gate * width + j) * width + k] : (real)0;
  });
  alignas(16) __shared__ real states[2 * WIDTH];
  for (int i = threadIdx.x; i < 2 * WIDTH; i += blockDim.x) states[i] = 0;
  const int b = c.layout.order[at.rank], length = c.layout.length(b), own_or_last = counts ? unit : width - 1;
  const size_t first = c.layout.first[b];
  Ahead inputs = {c.input + first * GATES * width + own_or_last, GATES * width, length};
  real *kept = c.kept + (first * KEPT + copy) * width + unit, *y = c.y + first * width + unit;
  real bias[GATES], even[GATES], odd[GATES], state = 0, cell = 0;
  auto& second = *(AHEAD<WIDTH> == 2 ? &odd : &even);
  inputs.read(even, width);
  if (AHEAD<WIDTH> == 2) inputs.read(odd, width);
  const auto read_bias = [&] {
#pragma unroll
    for (int gate = 0; gate < GATES; ++gate) bias[gate] = c.bias[gate * width + own_or_last];
  };
  read_bias();
  __syncthreads();
  typename Weights::Vector vector(states);
  const auto step = [&](real(&input)[GATES], real* next) {
    real own[GATES];
    weights.multiply(vector, own);
    if (AHEAD<WIDTH> == 1) read_bias();  // anew at each step, as registers are scarce
    const Step s(input, bias, own, cell);
    if (counts && copy == 0) next[unit] = s.state;
    __syncthreads();
    vector = typename Weights::Vector(next);
    // The lines below run while that is being read.
    put_in_turn<COPIES>(kept, width, {s.i, s.f, s.g, s.o, cell, s.tanh_cell, state}, copy, keeps);
    if (counts && copy == COPIES - 1) *y = s.state;
    kept += KEPT * width;
    y += width;
    state = s.state;
    cell = s.cell;
    inputs.read(input, width);
  };
  for (int t = 0;; t += 2) {
    step(even, states + WIDTH);
    if (t + 1 == length) break;
    step(second, states);
    if (t + 2 == length) break;
  }
}

// The scan of a few utterances, which reads the weights at each step. Shared memory: 3 rows a unit.
__device__ void scan_reading(const Many<Scan>& calls) {
  const Place at = place();
  const Scan& c = calls.at[at.call];
  if (at.rank * MEMBERS >= c.layout.batch) return;
  const int width = c.width;
  const Members members(c.layout, at.rank);
  clear_results(c, at.rank, members.groups);
  Row *states = reinterpret_cast<Row*>(shared_memory()), *cells = states + 2 * width;
  for (int j = threadIdx.x; j < width; j += blockDim.x) states[j] = cells[j] = {};
  __syncthreads();
  for (int t = 0; t < members.steps; ++t) {
    const Row* before = states + t % 2 * width;
    Row* after = states + (1 - t % 2) * width;
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
      real own[GATES][MEMBERS];
      multiply(c.weight + j, GATES * width, width, before, width, own);
      const real* bias = c.bias + j;
      Row state = before[j], cell = cells[j];
#pragma unroll
      for (int m = 0; m < MEMBERS; ++m) {
        if (t >= members.length[m]) continue;
        const size_t row = members.first[m] + t;
        const real* x = c.input + row * GATES * width + j;
        const Step s({x[0], x[width], x[2 * width], x[3 * width]},
                     {bias[0], bias[width], bias[2 * width], bias[3 * width]},
                     {own[0][m], own[1][m], own[2][m], own[3][m]}, cell.at[m]);
        put_in_turn<1>(c.kept + row * KEPT * width + j, width,
                       {s.i, s.f, s.g, s.o, cell.at[m], s.tanh_cell, state.at[m]}, 0, c.kept);
        c.y[row * width + j] = s.state;
        state.at[m] = s.state;
        cell.at[m] = s.cell;
      }
      after[j] = state;
      cells[j] = cell;
    }
    __syncthreads();
  }
}

template <int WIDTH>
__device__ void scan_back(const Many<ScanBack>& calls) {
  constexpr int COPIES = Block<WIDTH>::COPIES;
  const Place at = place();
  const ScanBack& c = calls.at[at.call];
  if (at.rank >= c.layout.batch) return;
  const int width = c.width, unit = threadIdx.x / COPIES, copy = threadIdx.x % COPIES;
  const bool counts = unit < width;
  clear_beyond(c.layout, at.rank, c.layout.batch, c.dgates, GATES * width, GATES * width);

  using Weights = Held<WIDTH, 4, 1, GATES * WIDTH>;
  Weights weights;
  weights.load([&](int j, int, int i) {
    const int gate = i / WIDTH, k = i % WIDTH;
    return j < width && k < width ? c.weight[(gate * width + k) * width + j] : (real)0;
  });
  alignas(16) __shared__ real rows[2 * GATES * WIDTH];
  for (int i = threadIdx.x; i < 2 * GATES * WIDTH; i += blockDim.x) rows[i] = 0;
  const int b = c.layout.order[at.rank], length = c.layout.length(b), own_or_last = counts ? unit : width - 1;
  const size_t last = c.layout.first[b] + length - 1;
  Ahead kept = {c.kept + last * KEPT * width + own_or_last, -KEPT * width, length};
  Ahead dy = {c.dy + last * width + own_or_last, -width, length};
  real* dgates = c.dgates + (last * GATES + copy) * width + unit;
  struct Inputs {
    real kept[KEPT - 1], dy[1];
  } even, odd;
  auto& second = *(AHEAD<WIDTH> == 2 ? &odd : &even);
  const auto read = [&](Inputs& to) {
    kept.read(to.kept, width);
    dy.read(to.dy, 0);
  };
  read(even);
  if (AHEAD<WIDTH> == 2) read(odd);
  real dstate = 0, dcell = 0;
  __syncthreads();
  const auto step = [&](Inputs& inputs, real* row) {
    const Slopes slopes(inputs.kept);
    const real dafter = dstate + inputs.dy[0];
    dcell += dafter * slopes.cell;
    const real d[GATES] = {dcell * slopes.i, dcell * slopes.f, dcell * slopes.g, dafter * slopes.o};
    put_in_turn<COPIES>(row + copy * WIDTH + unit, WIDTH, d, copy, counts);
    __syncthreads();
    const typename Weights::Vector vector(row);
    // The lines below run while that is being read.
    put_in_turn<COPIES>(dgates, width, d, copy, counts);
    dgates -= GATES * width;
    dcell *= slopes.before;
    read(inputs);
    real through[1];
    weights.multiply(vector, through);
    dstate = through[0];
  };
  for (int t = 0;; t += 2) {
    step(even, rows);
    if (t + 1 == length) break;
    step(second, rows + GATES * WIDTH);
    if (t + 2 == length) break;
  }
}

// The backward scan of a few utterances, which reads the weights at each step. Shared memory: 6 rows a unit.
__device__ void scan_back_reading(const Many<ScanBack>& calls) {
  const Place at = place();
  const ScanBack& c = calls.at[at.call];
  if (at.rank * MEMBERS >= c.layout.batch) return;
  const int width = c.width;
  const Members members(c.layout, at.rank);
  clear_beyond(c.layout, at.rank, members.groups, c.dgates, GATES * width, GATES * width);
  Row* rows = reinterpret_cast<Row*>(shared_memory());
  Row *dstates = rows + GATES * width, *dcells = dstates + width;
  for (int j = threadIdx.x; j < width; j += blockDim.x) dstates[j] = dcells[j] = {};
  for (int t = members.steps - 1; t >= 0; --t) {
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
      Row row[GATES] = {};
#pragma unroll
      for (int m = 0; m < MEMBERS; ++m) {
        if (t >= members.length[m]) continue;
        const size_t frame = members.first[m] + t;
        const real* kept = c.kept + frame * KEPT * width + j;
        const Slopes slopes({kept[0], kept[width], kept[2 * width], kept[3 * width], kept[4 * width],
                             kept[5 * width]});
        const real dafter = dstates[j].at[m] + c.dy[frame * width + j];
        const real dcell = dcells[j].at[m] + dafter * slopes.cell;
        const real d[GATES] = {dcell * slopes.i, dcell * slopes.f, dcell * slopes.g, dafter * slopes.o};
        dcells[j].at[m] = dcell * slopes.before;
        put_in_turn<1>(c.dgates + frame * GATES * width + j, width, d, 0, true);
#pragma unroll
        for (int gate = 0; gate < GATES; ++gate) row[gate].at[m] = d[gate];
      }
#pragma unroll
      for (int gate = 0; gate < GATES; ++gate) rows[gate * width + j] = row[gate];
    }
    __syncthreads();
    for (int j = threadIdx.x; j < width; j += blockDim.x) {
      real through[1][MEMBERS];
      multiply(c.weight + j, width, 0, rows, GATES * width, through);
#pragma unroll
      for (int m = 0; m < MEMBERS; ++m) dstates[j].at[m] = through[0][m];
    }
    __syncthreads();
  }
}

// The number in a name is the most units that the kernel takes; without a number it takes any.
extern "C" __global__ void __launch_bounds__(32) lstm_16(const Many<Scan> calls) { scan<16>(calls); }
extern "C" __global__ void __launch_bounds__(64) lstm_32(const Many<Scan> calls) { scan<32>(calls); }
extern "C" __global__ void __launch_bounds__(128) lstm_64(const Many<Scan> calls) { scan<64>(calls); }
extern "C" __global__ void __launch_bounds__(512) lstm_128(const Many<Scan> calls) {
  if constexpr (HOLDS_128) scan<128>(calls);
}
extern "C" __global__ void __launch_bounds__(512) lstm(const Many<Scan> calls) { scan_reading(calls); }

extern "C" __global__ void __launch_bounds__(32) lstm_16_backward(const Many<ScanBack> calls) {
  scan_back<16>(calls);
}
extern "C" __global__ void __launch_bounds__(64) lstm_32_backward(const Many<ScanBack> calls) {
  scan_back<32>(calls);
}
extern "C" __global__ void __launch_bounds__(128) lstm_64_backward(const Many<ScanBack> calls) {
  scan_back<64>(calls);
}
extern "C" __global__ void __launch_bounds__(512) lstm_128_backward(const Many<ScanBack> calls) {
  if constexpr (HOLDS_128) scan_back<128>(calls);
}
extern "C" __global__ void __launch_bounds__(512) lstm_backward(const Many<ScanBack> calls) {
  scan_back_reading(calls);
}
