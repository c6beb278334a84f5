// Code that kernels of several operations share: layouts, dropout, normalisation, activations.
//
// Kernels write zeros to the rows beyond the true frames of a packed tensor (`Layout::rows` may be larger than the true
// total), in results and gradients alike, so that products may run over all rows.
#pragma once
#include "common.cuh"

// Where each utterance lies in packed rows.
struct Layout {
  const int* first;      // (batch + 1): row of each utterance's first frame, then the number of true rows
  const int* order;      // (batch): the utterances, longest first
  const int* utterance;  // (rows): the utterance of each row, -1 beyond the true ones
  int batch;
  int rows;

  __device__ int length(int b) const { return first[b + 1] - first[b]; }
  __device__ int total() const { return first[batch]; }
};

// Philox 4x32-10 at a 128-bit counter, under a 64-bit key (Salmon et al., SC 2011); as src/rng.rs.
struct Words {
  uint32 at[4];

  // Word `i`, without an address, so that words stay in registers.
  __device__ uint32 of(uint32 i) const { return i < 2 ? (i < 1 ? at[0] : at[1]) : (i < 3 ? at[2] : at[3]); }
};

__device__ inline Words philox(uint64 key, uint32 c0, uint32 c1, uint32 c2, uint32 c3) {
  uint32 k0 = (uint32)key, k1 = (uint32)(key >> 32);
  for (int round = 0; round < 10; ++round) {
    uint64 a = 0xD2511F53ull * c0, b = 0xCD9E8D57ull * c2;
    c0 = (uint32)(b >> 32) ^ c1 ^ k0;
    c1 = (uint32)b;
    c2 = (uint32)(a >> 32) ^ c3 ^ k1;
    c3 = (uint32)a;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// Dropout of one operation in one step, drawn by address: the same masks as on the CPU.
struct Dropout {
  const uint64* key_at;  // address of the step's key, or null for `key`
  uint64 key;
  double kept;           // 1 / (1 - p)
  uint32 site;
  uint32 threshold;      // p * 2^16; 0 for no dropout

  __device__ bool off() const { return threshold == 0; }
  __device__ uint64 seed() const { return key_at ? *key_at : key; }
  __device__ real of(uint32 bits) const { return (bits & 0xFFFF) >= threshold ? (real)kept : (real)0; }

  // The factor of element `i` of a tensor.
  __device__ real flat(size_t i) const {
    if (off()) return 1;
    const uint32 in_tile = (uint32)(i % 128), word = in_tile % 64;
    const Words w = philox(seed(), (uint32)(i / 128) * 16 + word % 16, 0, 0, site);
    return of(w.of(word / 16) >> (in_tile / 64 * 16));
  }

  // Draws for the probabilities of the 8 keys from 8 * `keys` on and one query; `stream` is the utterance and head.
  // Key j has word j % 4 of the result, for j < 4 its low half; `among` returns its factor.
  __device__ Words eight(uint32 stream, uint32 keys, uint32 query) const {
    return philox(seed(), query, keys, stream, site);
  }
  __device__ real among(const Words& eight, int j) const { return of(eight.at[j % 4] >> (j / 4 * 16)); }
};

// `Dropout::flat` for a thread that asks for several elements. It keeps the generator's last words, which often hold
// the next element's bits, too, where a warp goes along a row.
struct DropoutAlong {
  const Dropout& dropout;
  uint64 seed;
  uint32 counter;
  Words words;

  __device__ explicit DropoutAlong(const Dropout& dropout)
      : dropout(dropout), seed(dropout.off() ? 0 : dropout.seed()), counter(ALL) {}

  __device__ real at(size_t i) {
    if (dropout.off()) return 1;
    const uint32 in_tile = (uint32)(i % 128), word = in_tile % 64, next = (uint32)(i / 128) * 16 + word % 16;
    if (next != counter) words = philox(seed, next, 0, 0, dropout.site);
    counter = next;
    return dropout.of(words.of(word / 16) >> (in_tile / 64 * 16));
  }
};

// Replaces a warp's row by (row - mean) / deviation, where deviation = sqrt(variance + eps), and returns 1 / deviation.
// `sum` is a lane's part of the sum of the row, over every WARP-th number.
__device__ inline real normalize(real* row, real sum, int width, double eps, int lane) {
  const real mean = warp_sum(sum) / width;
  real square = 0;
  for (int j = lane; j < width; j += WARP) {
    row[j] -= mean;
    square += row[j] * row[j];
  }
  const real scale = 1 / sqrt(warp_sum(square) / width + (real)eps);
  for (int j = lane; j < width; j += WARP) row[j] *= scale;
  return scale;
}

__device__ inline real sigmoid(real x) { return 1 / (1 + exp(-x)); }

// Activations after an affine map, numbered as `Activation` in linear/mod.rs.
enum { NONE, RELU, SIGMOID, GELU, GELU_TANH };

__device__ inline real activate(int activation, real x) {
  switch (activation) {
    case RELU: return x > 0 ? x : (real)0;
    case SIGMOID: return sigmoid(x);
    case GELU: return (real)0.5 * x * (1 + erf(x * (real)0.70710678118654752440));
    case GELU_TANH:
      return (real)0.5 * x * (1 + tanh((real)0.7978845608028654 * (x + (real)0.044715 * x * x * x)));
    default: return x;
  }
}
