// Sums over the middle of (outer, n, inner), for Tensor.sum, Tensor.mean and the gradients of biases. Cut into pieces
// of n by shape alone; pieces are added up in order.
#include "simd.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

// to[0 .. inner) = the sum of n rows of that size, row after row as they lie in memory, four at a time.
template <class T>
FASTNN_INLINE void sum_of_rows(const T* x, int64_t n, int64_t inner, T* to) {
  if (n == 0) memset(to, 0, size_t(inner) * sizeof(T));
  for (int64_t k = 0; k < n;) {
    const T* row = x + k * inner;
    const int64_t rows = n - k < 4 ? 1 : 4;
    each_vector<T>(0, inner, [=](int64_t i, int64_t lanes) {
      Vec<T> s = load(row + i, lanes);
      if (rows == 4)
        s = (s + load(row + inner + i, lanes)) + (load(row + 2 * inner + i, lanes) + load(row + 3 * inner + i, lanes));
      store(to + i, k > 0 ? load(to + i, lanes) + s : s, lanes);
    });
    k += rows;
  }
}

// y (outer, inner) = the sum of x (outer, n, inner) over its middle.
template <class T>
void sum_middle(const Array& x, const Array& y) {
  FASTNN_CHECK(x.ndim == 3 && y.ndim == 2 && y.shape[0] == x.shape[0] && y.shape[1] == x.shape[2],
               "x must be (outer, n, inner), y (outer, inner)");
  if (y.size == 0) return;
  const int64_t outer = x.shape[0], n = x.shape[1], inner = x.shape[2];
  const T* px = in<T>(x);
  T* py = out<T>(y);
  const int64_t length = most(1, GRAIN / inner), pieces = most(1, divide_up(n, length));
  const Scratch<T> scratch(pieces > 1 ? outer * pieces * inner : 0);
  T* const sums = pieces > 1 ? scratch.get() : py;
  const int64_t together = most(1, GRAIN / most(1, least(n, length) * inner));
  parallel_for(outer * pieces, together, [=](int64_t begin, int64_t end) {
    for (int64_t u = begin; u < end; ++u) {
      const int64_t k = u % pieces * length, count = least(length, n - k);
      const T* from = px + (u / pieces * n + k) * inner;
      if (inner == 1)
        sums[u] = sum_of_run(from, count);
      else
        sum_of_rows(from, count, inner, sums + u * inner);
    }
  });
  if (pieces == 1) return;
  for (int64_t o = 0; o < outer; ++o) {
    const T* own = sums + o * pieces * inner;
    if (inner > 1) {
      sum_of_rows(own, pieces, inner, py + o * inner);
    } else {
      double total = 0;
      for (int64_t piece = 0; piece < pieces; ++piece) total += double(own[piece]);
      py[o] = static_cast<T>(total);
    }
  }
}

FASTNN_KERNELS(reduce, FASTNN_KERNEL(sum_middle, "x -> y"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
