// Scaled dot-product attention between ragged sequences, equations (10), (15) and (21), without probabilities
// in memory: forward keeps running sums (online softmax), backward computes the probabilities again from the
// logarithms of their sums.
//
// A block handles a tile of queries of one head of one utterance (for the gradients of keys and values, a tile of
// keys). A row of the tile belongs to one lane, or, where heads are wide, to several lanes with some columns each.
// The block's warps all work on the same tile. They divide the rows of the other side among them, TURN at a time,
// each in its own part of the shared memory, and add up their sums at the end.
#include "ops.cuh"

struct Attention {
  const real *q, *k, *v;  // the first head's columns; rows are `q_stride` and `kv_stride` apart
  real* y;                // (query rows, heads * depth)
  real* log_sums;         // (heads, query rows): log of the sum of exp(score) over a query's keys; null if not kept
  const real* dy;         // this and below: backward only
  Gradient dq, dk, dv;    // as q, k, v
  Layout queries, keys;
  Dropout dropout;
  int q_stride, kv_stride;
  int heads, depth;
  int log_lanes;    // lanes of a row: 2 ^ log_lanes
  int warp_shared;  // numbers in a warp's part of the shared memory
  int blocks;       // along y, which divide the tiles of a head among them
};

constexpr int NARROW = 12, BROAD = 16;  // columns of a lane: of heads up to NARROW, and of others
constexpr int TURN = 8;                 // keys for which one call of the generator draws
constexpr real LOWEST = -1e30;          // below every score

// Returns x, hidden from the compiler, which so does not compute what depends on it before a loop and hold that in
// registers.
__device__ inline int opaque(int x) {
  asm volatile("" : "+r"(x));
  return x;
}

// Stride of a lane's columns in shared memory: 16 bytes are read at a time, by several lanes from different banks.
template <int COLUMNS>
constexpr int PITCH = COLUMNS == NARROW ? NARROW : COLUMNS + 4;

struct __align__(16) Pack {
  real at[16 / sizeof(real)];
};

template <int COLUMNS>
struct Columns {
  static constexpr int PACK = 16 / sizeof(real);
  Pack packs[COLUMNS / PACK];

  __device__ real operator[](int j) const { return packs[j / PACK].at[j % PACK]; }
  __device__ real& operator[](int j) { return packs[j / PACK].at[j % PACK]; }

  // this += factor * row
  __device__ void add(real factor, const Columns& row) {
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) (*this)[j] += factor * row[j];
  }
  __device__ Columns times(real factor) const {
    Columns product = {};
    product.add(factor, *this);
    return product;
  }
};

template <int COLUMNS>
__device__ Columns<COLUMNS> columns_at(const real* shared) {
  Columns<COLUMNS> columns;
#pragma unroll
  for (int i = 0; i < COLUMNS / Columns<COLUMNS>::PACK; ++i)
    columns.packs[i] = reinterpret_cast<const Pack*>(shared)[i];
  return columns;
}

// One head's columns of an utterance.
struct Matrix {
  const real* at;
  int stride;  // from one row to the next
};

// One head of one utterance, and this thread's place in a tile of it.
template <int COLUMNS>
struct Head {
  const Attention& c;
  Dropout dropout;  // with the key as a value
  uint32 stream;
  int queries, keys;               // lengths
  Matrix q, k, v, y, dy;
  real* log_sums;                  // of the queries; null if not kept
  int log_lanes;                   // as above; known to the compiler where heads are narrow
  int rows;                        // of a tile: one for each lane or group of lanes
  int warp, warps, lane;
  int row, first_column;           // of this thread
  real scale;
  real* own;                       // this warp's shared memory

  __device__ Head(const Attention& call, const Layout& along) : c(call), dropout(call.dropout) {
    dropout.key = dropout.seed();
    dropout.key_at = nullptr;
    const int b = along.order[blockIdx.x / c.heads], head = blockIdx.x % c.heads;
    stream = b * c.heads + head;
    queries = c.queries.length(b);
    keys = c.keys.length(b);
    q = {c.q + q_at(0), c.q_stride};
    k = {c.k + kv_at(0), c.kv_stride};
    v = {c.v + kv_at(0), c.kv_stride};
    y = {c.y + y_at(0), width()};
    dy = {c.dy + y_at(0), width()};
    log_sums = c.log_sums ? c.log_sums + (size_t)head * c.queries.rows + c.queries.first[b] : nullptr;
    log_lanes = COLUMNS == NARROW ? 0 : c.log_lanes;
    rows = WARP >> log_lanes;
    warp = threadIdx.x / WARP;
    warps = blockDim.x / WARP;
    lane = threadIdx.x % WARP;
    row = lane >> log_lanes;
    first_column = (lane - (row << log_lanes)) * COLUMNS;
    scale = 1 / sqrt((real)c.depth);
    own = shared_memory() + warp * c.warp_shared;
  }

  // Offset of the head's columns of a query or key in the whole tensor.
  __device__ size_t q_at(int i) const { return at(c.queries, i, c.q_stride); }
  __device__ size_t kv_at(int i) const { return at(c.keys, i, c.kv_stride); }
  __device__ size_t y_at(int i) const { return at(c.queries, i, width()); }
  __device__ size_t at(const Layout& layout, int i, int stride) const {
    return (size_t)(layout.first[stream / c.heads] + i) * stride + stream % c.heads * c.depth;
  }
  __device__ int width() const { return c.heads * c.depth; }
  __device__ int wide() const { return COLUMNS << log_lanes; }  // the depth, rounded up to whole lanes

  // Number of warps that get any of `count` rows.
  __device__ int busy(int count) const { return min(warps, (count + TURN - 1) / TURN); }

  // Reads `count` rows from `first` on of several matrices into shared memory, one matrix after the other, by the
  // threads of a warp or of the block; zeros beyond the depth and from row `end` on.
  template <int N>
  __device__ void read(const Matrix (&from)[N], int first, int end, int count, real* to, int thread,
                       int threads) const {
    constexpr int BATCH = 3;  // loads under way at a time
    const int all = (count * COLUMNS) << log_lanes;
    for (int start = opaque(thread); start < all; start += BATCH * threads) {
      real x[N][BATCH];
#pragma unroll
      for (int u = 0; u < BATCH; ++u) {
        const int i = start + u * threads, row = first + (i / COLUMNS >> log_lanes);
        const int column = i - ((row - first) << log_lanes) * COLUMNS;
#pragma unroll
        for (int n = 0; n < N; ++n)
          x[n][u] = row < end && column < c.depth && i < all
                        ? __ldg(from[n].at + (uint32)(row * from[n].stride + column))
                        : (real)0;
      }
#pragma unroll
      for (int u = 0; u < BATCH; ++u) {
        const int i = start + u * threads;
        if (i >= all) break;
#pragma unroll
        for (int n = 0; n < N; ++n)
          to[n * size(count) + i / COLUMNS * PITCH<COLUMNS> + i % COLUMNS] = x[n][u];
      }
    }
  }
  template <int N>
  __device__ void read_turn(const Matrix (&from)[N], int first, int end) const {
    read(from, first, end, TURN, own, lane, WARP);
  }
  template <int N>
  __device__ void read_tile(const Matrix (&from)[N], int first, int end, int count) const {
    read(from, first, end, count, shared_memory(), threadIdx.x, blockDim.x);
  }

  // How many numbers of shared memory `count` rows take.
  __device__ int size(int count) const { return (count * PITCH<COLUMNS>) << log_lanes; }

  // This thread's columns of a row in shared memory.
  __device__ Columns<COLUMNS> columns(const real* rows, int i) const {
    return columns_at<COLUMNS>(rows + ((i << log_lanes) + first_column / COLUMNS) * PITCH<COLUMNS>);
  }

  // One bit for each of the 8 keys from `key` on, a multiple of 8: whether dropout keeps it for a query.
  __device__ uint32 kept(int key, int query) const {
    if (dropout.off()) return 0xFF;
    const Words words = dropout.eight(stream, key / 8, opaque(query));
    uint32 bits = 0;
#pragma unroll
    for (int j = 0; j < 8; ++j)
      bits |= (uint32)((words.at[j % 4] >> (j / 4 * 16) & 0xFFFF) >= dropout.threshold) << j;
    return bits;
  }

  // The sum over the lanes of a row.
  __device__ real lane_sum(real x) const {
    for (int k = 0; k < log_lanes; ++k) x += __shfl_xor_sync(ALL, x, 1 << k);
    return x;
  }

  __device__ real dot(const Columns<COLUMNS>& a, const Columns<COLUMNS>& b) const {
    real sum = 0;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) sum += a[j] * b[j];
    return lane_sum(sum);
  }
};

// Computes the results of the queries from `first` on, SLOTS for each row of the tile.
template <int COLUMNS, int SLOTS>
__device__ void attend(const Head<COLUMNS>& h, int first) {
  const Attention& c = h.c;
  const real* const q_tile = shared_memory();
  h.read_tile({h.q}, first, h.queries, SLOTS * h.rows);
  __syncthreads();
  Columns<COLUMNS> q[SLOTS], sum[SLOTS];
  real top[SLOTS], total[SLOTS];
#pragma unroll
  for (int s = 0; s < SLOTS; ++s) {
    q[s] = h.columns(q_tile, s * h.rows + h.row).times(h.scale);
    sum[s] = {};
    top[s] = LOWEST;
    total[s] = 0;
  }
  __syncthreads();
  const real* const k_turn = h.own;
  const real* const v_turn = k_turn + h.size(TURN);
  for (int key = h.warp * TURN; key < h.keys; key += h.warps * TURN) {
    __syncwarp();
    h.read_turn({h.k, h.v}, key, h.keys);
    __syncwarp();
    const int left = h.keys - key;  // keys
    real score[SLOTS][TURN];
#pragma unroll
    for (int i = 0; i < TURN; ++i) {
      const Columns<COLUMNS> k = h.columns(k_turn, i);
#pragma unroll
      for (int s = 0; s < SLOTS; ++s) score[s][i] = h.dot(q[s], k);
    }
#pragma unroll
    for (int s = 0; s < SLOTS; ++s) {
      real high = top[s];
#pragma unroll
      for (int i = 0; i < TURN; ++i) {
        if (i >= left) score[s][i] = LOWEST;
        high = score[s][i] > high ? score[s][i] : high;
      }
      const real fade = exp(top[s] - high);
      top[s] = high;
      real all = 0;
#pragma unroll
      for (int i = 0; i < TURN; ++i) {
        const real share = exp(score[s][i] - high);
        all += share;
        score[s][i] = share;
      }
      total[s] = total[s] * fade + all;
      sum[s] = sum[s].times(fade);
      const uint32 kept = h.kept(key, first + s * h.rows + h.row);
#pragma unroll
      for (int i = 0; i < TURN; ++i) score[s][i] = kept >> i & 1 ? score[s][i] : (real)0;
    }
#pragma unroll
    for (int i = 0; i < TURN; ++i) {
      const Columns<COLUMNS> v = h.columns(v_turn, i);
#pragma unroll
      for (int s = 0; s < SLOTS; ++s) sum[s].add(score[s][i], v);
    }
  }
  // Stores each warp's sums, relative to its own highest score, then that score and the sum of exp(score).
  const int wide = h.wide(), pitch = wide + 3, busy = h.busy(h.keys);
  __syncwarp();
  if (h.warp < busy) {
#pragma unroll
    for (int s = 0; s < SLOTS; ++s) {
      real* const to = h.own + (s * h.rows + h.row) * pitch;
#pragma unroll
      for (int j = 0; j < COLUMNS; ++j) to[h.first_column + j] = sum[s][j];
      if (h.first_column == 0) {
        to[wide] = top[s];
        to[wide + 1] = total[s];
      }
    }
  }
  __syncthreads();
  real* const y = c.y + h.y_at(first);
  for (int i = threadIdx.x; i < min(SLOTS * h.rows, h.queries - first) * wide; i += blockDim.x) {
    const int row = i / COLUMNS >> h.log_lanes, column = i - row * wide;
    if (column >= c.depth) continue;
    const real* const from = shared_memory() + row * pitch;
    real high = LOWEST, all = 0, mixed = 0;
    for (int w = 0; w < busy; ++w) {
      const real other = from[w * c.warp_shared + wide];
      high = other > high ? other : high;
    }
    for (int w = 0; w < busy; ++w) {
      const real* const sums = from + w * c.warp_shared;
      const real fade = exp(sums[wide] - high);
      all += fade * sums[wide + 1];
      mixed += fade * sums[column];
    }
    y[row * h.width() + column] = mixed * ((real)c.dropout.kept / all);
    if (column == 0 && h.log_sums) h.log_sums[first + row] = high + log(all);
  }
  __syncthreads();
}

// Puts `factor` times the sums over the warps. Each warp's rows of sums are `pitch` apart in its part of the shared
// memory, from `shared` on; the rows of `to` are `stride` apart, from `at` on.
template <int COLUMNS>
__device__ void put_sums(const Head<COLUMNS>& h, const real* shared, int pitch, int busy, int rows,
                         real factor, const Gradient& to, size_t at, int stride) {
  const int wide = h.wide();
  for (int i = threadIdx.x; i < rows * wide; i += blockDim.x) {
    const int row = i / COLUMNS >> h.log_lanes, column = i - row * wide;
    if (column >= h.c.depth) continue;
    real sum = 0;
    for (int w = 0; w < busy; ++w) sum += shared[w * h.c.warp_shared + row * pitch + column];
    to.put(at + row * stride + column, factor * sum);
  }
}

// dQ = scale * dS K for the queries from `first` on, dS = P * (dropout(dY V) - slope).
template <int COLUMNS, int SLOTS>
__device__ void query_gradients(const Head<COLUMNS>& h, int first) {
  const Attention& c = h.c;
  const int tile = SLOTS * h.rows;
  const real* const q_tile = shared_memory();
  const real* const dy_tile = q_tile + h.size(tile);
  const real* const y_tile = dy_tile + h.size(tile);
  h.read_tile({h.q, h.dy, h.y}, first, h.queries, tile);
  __syncthreads();
  Columns<COLUMNS> q[SLOTS], dy[SLOTS], dq[SLOTS];
  real log_sum[SLOTS], slope[SLOTS];
#pragma unroll
  for (int s = 0; s < SLOTS; ++s) {
    const int row = s * h.rows + h.row;
    q[s] = h.columns(q_tile, row).times(h.scale);
    dy[s] = h.columns(dy_tile, row);
    dq[s] = {};
    log_sum[s] = first + row < h.queries ? h.log_sums[first + row] : (real)0;
    // Computed in the same way as dY V, so that their difference is exactly 0 where a query has one key.
    slope[s] = h.dot(dy[s], h.columns(y_tile, row));
  }
  __syncthreads();
  const real* const k_turn = h.own;
  const real* const v_turn = k_turn + h.size(TURN);
  const real factor = c.dropout.kept;
  for (int key = h.warp * TURN; key < h.keys; key += h.warps * TURN) {
    __syncwarp();
    h.read_turn({h.k, h.v}, key, h.keys);
    __syncwarp();
    uint32 kept[SLOTS];
#pragma unroll
    for (int s = 0; s < SLOTS; ++s) kept[s] = h.kept(key, first + s * h.rows + h.row);
#pragma unroll(COLUMNS == NARROW && SLOTS == 1 ? 2 : 1)
    for (int i = 0; i < TURN; ++i) {
      const Columns<COLUMNS> k = h.columns(k_turn, i), v = h.columns(v_turn, i);
#pragma unroll
      for (int s = 0; s < SLOTS; ++s) {
        const real score = h.dot(q[s], k), share = exp(key + i < h.keys ? score - log_sum[s] : LOWEST);
        const real dshare = h.dot(dy[s], v) * (kept[s] >> i & 1 ? factor : (real)0);
        dq[s].add(share * (dshare - slope[s]), k);
      }
    }
  }
  const int pitch = h.wide() + 1, busy = h.busy(h.keys);
  __syncwarp();
#pragma unroll
  for (int s = 0; s < SLOTS; ++s)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) h.own[(s * h.rows + h.row) * pitch + h.first_column + j] = dq[s][j];
  __syncthreads();
  const int rows = min(tile, h.queries - first);
  put_sums(h, shared_memory(), pitch, busy, rows, h.scale, c.dq, h.q_at(first), c.q_stride);
  __syncthreads();
}

// dK = scale * dS^T Q and dV = dropout(P)^T dY for the keys from `first` on.
template <int COLUMNS, int SLOTS>
__device__ void key_gradients(const Head<COLUMNS>& h, int first) {
  const Attention& c = h.c;
  const int tile = SLOTS * h.rows;
  const real* const k_tile = shared_memory();
  const real* const v_tile = k_tile + h.size(tile);
  h.read_tile({h.k, h.v}, first, h.keys, tile);
  __syncthreads();
  Columns<COLUMNS> k[SLOTS], v[SLOTS], dk[SLOTS], dv[SLOTS];
#pragma unroll
  for (int s = 0; s < SLOTS; ++s) {
    k[s] = h.columns(k_tile, s * h.rows + h.row).times(h.scale);
    v[s] = h.columns(v_tile, s * h.rows + h.row);
    dk[s] = dv[s] = {};
  }
  __syncthreads();
  const real* const q_turn = h.own;
  const real* const dy_turn = q_turn + h.size(TURN);
  const real* const y_turn = dy_turn + h.size(TURN);
  real* const log_sums = h.own + 3 * h.size(TURN);                // (TURN)
  real* const slopes = log_sums + TURN;                           // (TURN)
  uint32* const kept = reinterpret_cast<uint32*>(slopes + TURN);  // (TURN, groups of 8 keys)
  const int groups = (tile + 7) / 8;
  const real factor = c.dropout.kept;
  for (int query = h.warp * TURN; query < h.queries; query += h.warps * TURN) {
    __syncwarp();
    h.read_turn({h.q, h.dy, h.y}, query, h.queries);
    for (int i = h.lane; i < TURN * groups; i += WARP)
      kept[i] = h.kept(first + i % groups * 8, query + i / groups);
    __syncwarp();
    for (int i = h.row; i < max(TURN, h.rows); i += h.rows) {
      const int row = min(i, TURN - 1);
      const real slope = h.dot(h.columns(dy_turn, row), h.columns(y_turn, row));
      if (i >= TURN || h.first_column > 0) continue;
      slopes[i] = slope;
      log_sums[i] = query + i < h.queries ? h.log_sums[query + i] : (real)0;
    }
    __syncwarp();
#pragma unroll(COLUMNS == NARROW && SLOTS == 1 ? 2 : 1)
    for (int i = 0; i < TURN; ++i) {
      const Columns<COLUMNS> q = h.columns(q_turn, i), dy = h.columns(dy_turn, i);
      const real log_sum = log_sums[i], slope = slopes[i];
#pragma unroll
      for (int s = 0; s < SLOTS; ++s) {
        const int row = s * h.rows + h.row;
        const real share = exp(h.dot(k[s], q) - log_sum);
        const real keep = kept[i * groups + row / 8] >> (first + row) % 8 & 1 ? factor : (real)0;
        dv[s].add(share * keep, dy);
        dk[s].add(share * (h.dot(v[s], dy) * keep - slope), q);
      }
    }
  }
  const int wide = h.wide(), pitch = 2 * wide + 1, busy = h.busy(h.queries);
  __syncwarp();
#pragma unroll
  for (int s = 0; s < SLOTS; ++s) {
    real* const to = h.own + (s * h.rows + h.row) * pitch + h.first_column;
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      to[j] = dk[s][j];
      to[wide + j] = dv[s][j];
    }
  }
  __syncthreads();
  const int rows = min(tile, h.keys - first);
  const size_t at = h.kv_at(first);
  if (c.dk.to) put_sums(h, shared_memory(), pitch, busy, rows, h.scale, c.dk, at, c.kv_stride);
  if (c.dv.to) put_sums(h, shared_memory() + wide, pitch, busy, rows, 1, c.dv, at, c.kv_stride);
  __syncthreads();
}

// Writes zeros to the rows beyond the true ones, by several blocks.
__device__ void clear(const Layout& layout, const Gradient& to, int stride, int width, int block,
                      int blocks) {
  const int first = layout.total(), count = (layout.rows - first) * width;
  for (int i = block * blockDim.x + threadIdx.x; i < count; i += blocks * blockDim.x)
    to.put((size_t)(first + i / width) * stride + i % width, 0);
}

// Blocks along x are the heads of all utterances, and one more for the rows beyond the true ones.
template <int COLUMNS, int SLOTS>
__device__ void forward(const Attention& c) {
  const int heads = c.queries.batch * c.heads, width = c.heads * c.depth;
  if (blockIdx.x > heads || blockIdx.y >= c.blocks) return;
  if (blockIdx.x == heads) return clear(c.queries, {c.y, 0}, width, width, blockIdx.y, c.blocks);
  const Head<COLUMNS> h(c, c.queries);
  const int tile = SLOTS * h.rows;
  for (int first = blockIdx.y * tile; first < h.queries; first += c.blocks * tile)
    attend<COLUMNS, SLOTS>(h, first);
}

// As forward, with blocks for queries and for keys alternating along y.
template <int COLUMNS, int SLOTS>
__device__ void backward(const Attention& c) {
  const int heads = c.queries.batch * c.heads, width = c.heads * c.depth;
  const int block = blockIdx.y / 2, blocks = c.blocks / 2;
  const bool of_queries = blockIdx.y % 2 == 0;
  if (blockIdx.x > heads || block >= blocks || (of_queries ? !c.dq.to : !c.dk.to && !c.dv.to)) return;
  if (blockIdx.x == heads) {
    if (of_queries) return clear(c.queries, c.dq, c.q_stride, width, block, blocks);
    if (c.dk.to) clear(c.keys, c.dk, c.kv_stride, width, block, blocks);
    if (c.dv.to) clear(c.keys, c.dv, c.kv_stride, width, block, blocks);
    return;
  }
  const Head<COLUMNS> h(c, of_queries ? c.queries : c.keys);
  const int tile = SLOTS * h.rows;
  for (int first = block * tile; first < (of_queries ? h.queries : h.keys); first += blocks * tile)
    of_queries ? query_gradients<COLUMNS, SLOTS>(h, first) : key_gradients<COLUMNS, SLOTS>(h, first);
}

// Narrow heads have kernels for short utterances, where the number of blocks matters, and for long ones, where a
// lane has two rows, so that it reads only once what both need. Launch bounds: the threads of a block, and as many
// blocks on a multiprocessor as leave each thread enough registers.
constexpr int THREADS = 128, DOUBLE = sizeof(real) / 4;

extern "C" __global__ void __launch_bounds__(THREADS, 5 / DOUBLE)
attention_short(const Many<Attention> calls) {
  forward<NARROW, 1>(calls.at[blockIdx.z]);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4 / DOUBLE)
attention_long(const Many<Attention> calls) {
  forward<NARROW, 2>(calls.at[blockIdx.z]);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4 / DOUBLE)
attention_broad(const Many<Attention> calls) {
  forward<BROAD, 1>(calls.at[blockIdx.z]);
}

extern "C" __global__ void __launch_bounds__(THREADS, 4 / DOUBLE)
attention_short_backward(const Many<Attention> calls) {
  backward<NARROW, 1>(calls.at[blockIdx.z]);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3 / DOUBLE)
attention_long_backward(const Many<Attention> calls) {
  backward<NARROW, 2>(calls.at[blockIdx.z]);
}

extern "C" __global__ void __launch_bounds__(THREADS, 3 / DOUBLE)
attention_broad_backward(const Many<Attention> calls) {
  backward<BROAD, 1>(calls.at[blockIdx.z]);
}
