// GEMM over plain matrices: packers for the four transposes, the epilogue, and the choice between the engine (gemm.h)
// and streaming past few rows. Used by gemm.cpp and by convolutions that are matrix products as they stand.
#pragma once
#include "activation.h"
#include "gemm.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

// Both packers store whole vectors (masked stores are slow on AMD): what exceeds a panel's width is overwritten by the
// next k, and where the width takes several vectors, by those to the left, which come later. Behind the panel is room.

// panel[p * width + l] = source[l * ld + p] for l < lanes, 0 up to width: a matrix that runs along k.
template <class T>
FASTNN_INLINE void pack_transposed(T* panel, int64_t width, const T* source, int64_t ld, int64_t lanes, int64_t depth) {
  for (int64_t l0 = (width - 1) / W<T> * W<T>; l0 >= 0; l0 -= W<T>) {
    const T* row[W<T>];  // beyond the last one it is read again; what it gives is overwritten, or made 0
    Bits<T> valid{};
    for (int l = 0; l < W<T>; ++l) {
      row[l] = source + least(l0 + l, lanes - 1) * ld;
      valid[l] = l0 + l < lanes || lanes == width ? -1 : 0;
    }
    const auto step = [&](int64_t p, int64_t count) __attribute__((always_inline)) {
      Vec<T> v[W<T>];
#pragma GCC unroll 16
      for (int l = 0; l < W<T>; ++l) v[l] = load(row[l] + p, count);
      transpose<T>(v);
      T* to = panel + p * width + l0;
#pragma GCC unroll 16
      for (int s = 0; s < W<T>; ++s)
        if (s < count) store(to + s * width, (Vec<T>)((Bits<T>)v[s] & valid));
    };
    int64_t p = 0;
    for (; p + W<T> <= depth; p += W<T>) step(p, W<T>);
    if (p < depth) step(p, depth - p);
  }
}

// panel[p * width + l] = source[p * ld + l] for l < lanes, 0 up to width: a matrix that runs along the panel.
template <class T>
FASTNN_INLINE void pack_straight(T* panel, int64_t width, const T* source, int64_t ld, int64_t lanes, int64_t depth) {
  if (width == NR<T> && lanes == NR<T>) {
    for (int64_t p = 0; p < depth; ++p)
#pragma GCC unroll 4
      for (int v = 0; v < TILE_VECTORS; ++v) store(panel + p * NR<T> + v * W<T>, load(source + p * ld + v * W<T>));
    return;
  }
  for (int64_t l = (width - 1) / W<T> * W<T>; l >= 0; l -= W<T>) {
    const int64_t count = most(0, least(W<T>, lanes - l));
    if (count == W<T>)
      for (int64_t p = 0; p < depth; ++p) store(panel + p * width + l, load(source + p * ld + l));
    else
      for (int64_t p = 0; p < depth; ++p) store(panel + p * width + l, load_n(source + p * ld + l, count));
  }
}

// A[i][k], or A[k][i] if transposed.
template <class T>
struct PackA {
  const T* a;
  int64_t ld;
  bool transposed;
  FASTNN_INLINE void operator()(T* panel, int64_t i, int64_t rows, int64_t k, int64_t depth) const {
    if (transposed)
      pack_straight(panel, rows, a + k * ld + i, ld, rows, depth);
    else
      pack_transposed(panel, rows, a + i * ld + k, ld, rows, depth);
  }
};
// B[k][j], or B[j][k] if transposed.
template <class T>
struct PackB {
  const T* b;
  int64_t ld;
  bool transposed;
  FASTNN_INLINE void operator()(T* panel, int64_t k, int64_t depth, int64_t j, int64_t cols) const {
    if (transposed)
      pack_transposed<T>(panel, NR<T>, b + j * ld + k, ld, cols, depth);
    else
      pack_straight<T>(panel, NR<T>, b + k * ld + j, ld, cols, depth);
  }
};

// A share of the packing of several panels. Rows along n are read across all panels, in order, the lines of the next
// share called ahead: a panel by itself would take a line from each row, and rows 4 KB apart share one place in L1.
template <class T>
FASTNN_INLINE void pack_share(const PackB<T>& b, T* to, int64_t k, int64_t depth, int64_t j0, int64_t j1, int64_t part,
                              int64_t parts) {
  const int64_t columns = divide_up(j1 - j0, NR<T>);
  if (b.transposed) {
    for (int64_t c = columns * part / parts; c < columns * (part + 1) / parts; ++c)
      b(to + c * depth * NR<T>, k, depth, j0 + c * NR<T>, least(NR<T>, j1 - j0 - c * NR<T>));
    return;
  }
  const int64_t begin = depth * part / parts, end = depth * (part + 1) / parts, next = depth * (part + 2) / parts;
  for (int64_t c = 0; c < columns; ++c)
    b(to + c * depth * NR<T> + begin * NR<T>, k + begin, end - begin, j0 + c * NR<T>,
      least(NR<T>, j1 - j0 - c * NR<T>));
  for (int64_t p = k + end; p < k + least(next, depth); ++p)
    for (int64_t l = j0; l < j1 + LINE<T> - 1; l += LINE<T>)
      __builtin_prefetch(b.b + p * b.ld + least(l, j1 - 1), 0, 2);
}

// C = act(alpha A B + beta C + bias). beta = 0 overwrites: C may hold NaN.
template <class T>
struct StoreMatrix {
  T* c;
  int64_t ldc;
  T alpha, beta;
  const T *row_bias, *column_bias;
  int64_t activation;

  FASTNN_INLINE Target<T> target(int64_t i, int64_t j, int64_t, int64_t, bool first, bool last) const {
    if (alpha != T(1) || (first && beta != T(0) && beta != T(1))) return {};
    if (last && (row_bias || column_bias || activation != 0)) return {};
    return {c + i * ldc + j, ldc, !first || beta == T(1)};
  }
  template <class F>
  FASTNN_INLINE void each(const T* tile, int64_t i, int64_t j, int64_t rows, int64_t cols, T scale, bool last,
                          F f) const {
    for (int64_t r = 0; r < rows; ++r)
      for (int64_t l = 0; l < cols; l += W<T>) {
        const int64_t count = least(W<T>, cols - l);
        T* to = c + (i + r) * ldc + j + l;
        Vec<T> v = load(tile + r * NR<T> + l) * alpha;
        if (scale != T(0)) v = v + (count == W<T> ? load(to) : load_n(to, count)) * scale;
        if (last && row_bias) v = v + row_bias[i + r];
        if (last && column_bias)
          v = v + (count == W<T> ? load(column_bias + j + l) : load_n(column_bias + j + l, count));
        v = f(v);
        if (count == W<T>)
          store(to, v);
        else
          store_n(to, v, count);
      }
  }
  void operator()(const T* tile, int64_t i, int64_t j, int64_t rows, int64_t cols, bool first, bool last) const {
    const T scale = first ? beta : T(1);
    activated(last ? activation : 0,
              [&](auto f) __attribute__((always_inline)) { each(tile, i, j, rows, cols, scale, last, f); });
  }
};

// C = A B for few rows: B streams past once, in the order of memory, a block of K and if those are few some columns to
// a chunk. The sums of a block wait in L1 and L2 as [panel of columns][row][NR]; they are made and added in the same
// order as everywhere else.
constexpr int64_t STREAMED_ROWS = 4;
constexpr int64_t STREAMED = 1 << 20;  // bytes of B from which on it pays
template <class T>
void stream_past(int64_t M, int64_t N, int64_t K, const T* a, int64_t step_m, int64_t step_k, const T* b, int64_t ldb,
                 const StoreMatrix<T>& store_tile) {
  constexpr int64_t TOGETHER = 8;  // rows of B: as many streams of memory, a line of each called ahead
  constexpr int64_t AHEAD = 512 / int64_t(sizeof(T));
  const Split depths(K, divide_up(K, KC<T>));
  const int64_t panels = divide_up(N, NR<T>), block = panels * M * NR<T>;
  const Split columns(panels, least(divide_up(16, depths.parts), divide_up(N, 2048)));
  Scratch<T> sums(depths.parts * block);
  parallel_for(depths.parts * columns.parts, 1, [&](int64_t chunk, int64_t) {
    const int64_t kb = chunk / columns.parts, c = chunk % columns.parts;
    const int64_t j0 = columns.begin(c) * NR<T>, j1 = least(columns.begin(c + 1) * NR<T>, N);
    T* const to = sums.get() + kb * block;
    memset(to + j0 * M, 0, size_t(columns.count(c) * M * NR<T>) * sizeof(T));
    for (int64_t k = depths.begin(kb); k < depths.begin(kb + 1); k += TOGETHER) {
      const int64_t rows = least(TOGETHER, depths.begin(kb + 1) - k);
      const T* from = b + k * ldb;
      for (int64_t m = 0; m < M; ++m) {
        Vec<T> left[TOGETHER];
        for (int64_t r = 0; r < rows; ++r) left[r] = set<T>(a[m * step_m + (k + r) * step_k]);
        for (int64_t j = j0; j < j1; j += W<T>) {
          const int64_t n = least(W<T>, j1 - j);
          T* const at = to + (j / NR<T> * M + m) * NR<T> + j % NR<T>;
          Vec<T> sum = load(at);
          if (rows == TOGETHER && n == W<T>)
#pragma GCC unroll 8
            for (int r = 0; r < TOGETHER; ++r) {
              __builtin_prefetch(from + r * ldb + least(j + AHEAD, j1 - 1));
              sum = left[r] * load(from + r * ldb + j) + sum;
            }
          else
            for (int64_t r = 0; r < rows; ++r) sum = left[r] * load(from + r * ldb + j, n) + sum;
          store(at, sum);
        }
      }
    }
  });
  parallel_for(panels, divide_up(GRAIN, depths.parts * M * NR<T>), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      for (int64_t kb = 0; kb < depths.parts; ++kb)
        store_tile(sums.get() + kb * block + p * M * NR<T>, 0, p * NR<T>, M, least(NR<T>, N - p * NR<T>), kb == 0,
                   kb + 1 == depths.parts);
  });
}

template <class T>
void multiply_matrices(int64_t M, int64_t N, int64_t K, const T* a, bool trans_a, const T* b, bool trans_b,
                       const StoreMatrix<T>& store) {
  const int64_t lda = trans_a ? M : K, ldb = trans_b ? K : N;
  if (M > 0 && M <= STREAMED_ROWS && !trans_b && N * K * int64_t(sizeof(T)) >= STREAMED)
    return stream_past<T>(M, N, K, a, trans_a ? 1 : lda, trans_a ? lda : 1, b, ldb, store);
  gemm_blocks<T>(M, N, K, PackA<T>{a, lda, trans_a}, PackB<T>{b, ldb, trans_b}, store, InPlace<T>{a, lda, trans_a},
                 trans_b ? InPlace<T>{} : InPlace<T>{b, ldb});
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
