// GEMM over plain matrices: the micro-kernels, packers for the four transposes, the epilogue, and the rows of the
// table. Blocking and threads are gemm.h's business.
#include "gemm.h"

#include "activation.h"
#include "table.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

// R x V accumulators, V vectors of B and one broadcast element of A: all stay in registers (budget: gemm.h). The
// broadcast is explicit: folded into the FMAs it would load once per accumulator.
template <class T, int R, int V, bool IN_PLACE>
static void micro(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, bool add) {
  // C is fetched while the sums are made: the tile's end would otherwise wait for its lines from L3.
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int l = 0; l < V * W<T>; l += LINE<T>) __builtin_prefetch(c + r * ldc + l, 1);
  Vec<T> acc[R][V] = {};
  for (int64_t p = 0; p < k; ++p) {
    Vec<T> bv[V];
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) bv[v] = load(b + v * W<T>);
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
      const Vec<T> av = set(IN_PLACE ? a[r * lda] : a[r]);
#pragma GCC unroll 16
      for (int v = 0; v < V; ++v) acc[r][v] = av * bv[v] + acc[r][v];
    }
    a += IN_PLACE ? 1 : lda;
    b += ldb;
  }
#pragma GCC unroll 16
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 16
    for (int v = 0; v < V; ++v) {
      T* p = c + r * ldc + v * W<T>;
      store(p, add ? load(p) + acc[r][v] : acc[r][v]);
    }
}

template <class T, class I>
struct MicroList;
template <class T, int... I>
struct MicroList<T, Indices<I...>> {
  static constexpr Micro<T> at[] = {
      micro<T, I % TILE_ROWS + 1, I / TILE_ROWS % TILE_VECTORS + 1, (I >= TILE_ROWS * TILE_VECTORS)>...};
};
template <>
const Micro<float>* const Micros<float>::table = MicroList<float, Count<2 * TILE_VECTORS * TILE_ROWS>::type>::at;
template <>
const Micro<double>* const Micros<double>::table = MicroList<double, Count<2 * TILE_VECTORS * TILE_ROWS>::type>::at;

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

template <class T>
static void multiply(int64_t M, int64_t N, int64_t K, const T* a, bool trans_a, const T* b, bool trans_b,
                     const StoreMatrix<T>& store) {
  const int64_t lda = trans_a ? M : K, ldb = trans_b ? K : N;
  gemm_blocks<T>(M, N, K, PackA<T>{a, lda, trans_a}, PackB<T>{b, ldb, trans_b}, store, InPlace<T>{a, lda, trans_a},
                 trans_b ? InPlace<T>{} : InPlace<T>{b, ldb});
}

// y = act(alpha op(a) op(b) + beta y + bias); op(a): M x K, op(b): K x N, y: M x N; bias: (N,) or (1, N) for the
// columns, (M, 1) for the rows.
template <class T>
void gemm(const Array& a, const Array& b, const Array& bias, const Array& y, int64_t trans_a, int64_t trans_b,
          int64_t activation, double alpha, double beta) {
  FASTNN_CHECK(a.ndim == 2 && b.ndim == 2 && y.ndim == 2, "a, b and y must be matrices");
  const int64_t M = y.shape[0], N = y.shape[1], K = a.shape[trans_a ? 0 : 1];
  FASTNN_CHECK(a.shape[trans_a ? 1 : 0] == M && b.shape[trans_b ? 1 : 0] == K && b.shape[trans_b ? 0 : 1] == N,
               "a, b and y disagree in size");
  FASTNN_CHECK(y.size == 0 || (y.ptr != a.ptr && y.ptr != b.ptr), "y must not be a or b");
  const bool columns = bias && (bias.ndim == 1 || (bias.ndim == 2 && bias.shape[0] == 1)) && bias.size == N;
  FASTNN_CHECK(!bias || columns || (bias.ndim == 2 && bias.shape[1] == 1 && bias.size == M),
               "bias has the wrong shape");
  FASTNN_CHECK(activation >= 0 && activation < ACTIVATIONS, "unknown activation");
  const T* p = bias ? in<T>(bias) : nullptr;
  multiply<T>(M, N, K, in<T>(a), trans_a, in<T>(b), trans_b,
              {out<T>(y), N, T(alpha), T(beta), columns ? nullptr : p, columns ? p : nullptr, activation});
}

// y[i] = op(a[i]) op(b[i]) for every matrix of a batch; a batch of 1 serves all.
template <class T>
void gemm_batch(const Array& a, const Array& b, const Array& y, int64_t trans_a, int64_t trans_b) {
  FASTNN_CHECK(a.ndim == 3 && b.ndim == 3 && y.ndim == 3, "a, b and y must be batches of matrices");
  const int64_t M = y.shape[1], N = y.shape[2], K = a.shape[trans_a ? 1 : 2];
  FASTNN_CHECK(a.shape[trans_a ? 2 : 1] == M && b.shape[trans_b ? 2 : 1] == K && b.shape[trans_b ? 1 : 2] == N,
               "a, b and y disagree in size");
  const int64_t count = y.shape[0];
  FASTNN_CHECK((a.shape[0] == count || a.shape[0] == 1) && (b.shape[0] == count || b.shape[0] == 1),
               "a, b and y disagree in the size of the batch");
  const int64_t step_a = a.shape[0] == 1 ? 0 : M * K, step_b = b.shape[0] == 1 ? 0 : K * N;
  const auto one = [&](int64_t i) {
    multiply<T>(M, N, K, in<T>(a) + i * step_a, trans_a, in<T>(b) + i * step_b, trans_b,
                {out<T>(y) + i * M * N, N, T(1), T(0), nullptr, nullptr, 0});
  };
  // Large products are cut into chunks themselves; small ones are shared out whole.
  const double work = double(M) * double(N) * double(K) + 1;
  if (work > 64 * SERIAL_WORK || count == 1) {
    for (int64_t i = 0; i < count; ++i) one(i);
  } else {
    parallel_for(count, 1 + int64_t(SERIAL_WORK / work), [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) one(i);
    });
  }
}

FASTNN_KERNELS(gemm, FASTNN_KERNEL(gemm, "a, b, bias? -> y | trans_a, trans_b, activation, alpha, beta"),
               FASTNN_KERNEL(gemm_batch, "a, b -> y | trans_a, trans_b"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
