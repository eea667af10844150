// GEMM: the micro-kernels and the rows of the table. Packers and the epilogue: gemm_matrix.h; blocking and threads:
// gemm.h.
#include "gemm_matrix.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

// R x V accumulators, V vectors of B and one broadcast element of A: all stay in registers (budget: gemm.h). The
// broadcast is explicit: folded into the FMAs it would load once per accumulator.
template <class T, int R, int V, bool IN_PLACE>
static void micro(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, bool add) {
  // C is fetched while the sums are made, a row a step: the tile's end would otherwise wait for its lines from L3, and
  // all of them at once would hold up those of B.
  const T* ahead = c;
  Vec<T> acc[R][V] = {};
  for (int64_t p = 0; p < k; ++p) {
#pragma GCC unroll 4
    for (int l = 0; l < V * W<T>; l += LINE<T>) __builtin_prefetch(ahead + l, 1);
    ahead += p < R - 1 ? ldc : 0;
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
  multiply_matrices<T>(M, N, K, in<T>(a), trans_a, in<T>(b), trans_b,
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
    multiply_matrices<T>(M, N, K, in<T>(a) + i * step_a, trans_a, in<T>(b) + i * step_b, trans_b,
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
