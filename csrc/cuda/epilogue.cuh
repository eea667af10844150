// What becomes of a product's sums: y = activation(alpha sum + beta y + bias), for GEMM and convolution. Main loops
// (gemm_simt.cuh, gemm_mma.cuh) hand over four neighbouring columns at a time. The numbers of the activations are those
// of ../cpu/activation.h.
#pragma once
#include "common.cuh"
#include "formulas.h"

enum Activation { NO_ACTIVATION, RELU, SIGMOID, TANH, SILU, GELU, GELU_TANH };

template <class T>
FASTNN_INLINE T activate(T x, int activation) {
  switch (activation) {
    case RELU: return relu_of(x);
    case SIGMOID: return sigmoid_of(x);
    case TANH: return tanh_of(x);
    case SILU: return silu_of(x);
    case GELU: return gelu_of(x);
    case GELU_TANH: return gelu_tanh_of(x);
    default: return x;
  }
}

// Rows m < M and columns n < N of a matrix y whose rows follow one another. beta = 0 overwrites: y may hold NaN.
//
// Sums live in registers, so their loop is unrolled, and six activations in it would be six times its code: it applies
// relu only. Another activation takes a second, rolled loop over what the thread itself has stored: `again`.
// WIDE: N is a multiple of 4 and the pointers are aligned to 16 bytes: rows are read and written in packs. A parameter,
// because both ways in one kernel would double the longest part of its text.
template <class T, bool WIDE>
struct Epilogue {
  T* y;
  const T *row_bias, *column_bias;  // (M), (N); null: none
  int64_t M, N;
  T alpha, beta;
  int activation;

  FASTNN_INLINE T value(T sum, T before, T row, T column) const {
    T v = sum * alpha;
    if (beta != T(0)) v += before * beta;
    v = v + row + column;
    return activation == RELU ? relu_of(v) : v;
  }
  // Columns n to n + 3 of row m; n is a multiple of 4.
  FASTNN_INLINE void store(int64_t m, int64_t n, const T (&sum)[4]) const {
    if (m >= M || n >= N) return;
    T* to = y + m * N + n;
    const T row = row_bias ? row_bias[m] : T(0);
    if constexpr (WIDE) {
      constexpr int LANES = 16 / sizeof(T);
#pragma unroll
      for (int j = 0; j < 4; j += LANES) {
        Pack<T, LANES> before{}, column{};
        if (beta != T(0)) before = load_pack<LANES>(to + j);
        if (column_bias) column = load_pack<LANES>(column_bias + n + j);
#pragma unroll
        for (int l = 0; l < LANES; ++l) before.v[l] = value(sum[j + l], before.v[l], row, column.v[l]);
        store_pack(to + j, before);
      }
    } else {
#pragma unroll
      for (int j = 0; j < 4; ++j)
        if (n + j < N) to[j] = value(sum[j], beta != T(0) ? to[j] : T(0), row, column_bias ? column_bias[n + j] : T(0));
    }
  }
  FASTNN_INLINE bool again() const { return activation > RELU; }
  FASTNN_INLINE void activate_again(int64_t m, int64_t n) const {
    if (m >= M) return;
    T* at = y + m * N + n;
#pragma unroll 1
    for (int j = 0; j < 4; ++j)
      if (n + j < N) at[j] = activate(at[j], activation);
  }
};

template <class T>
FASTNN_INLINE bool aligned_to_16(const T* p) {
  return reinterpret_cast<uint64_t>(p) % 16 == 0;
}
