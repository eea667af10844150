// Softmax and log-softmax along the middle of (outer, n, inner), and their gradients. A row that fits into its team's
// registers (TEAM * ITEMS elements) is read once and written once; a longer one is read again, from the cache. A row of
// -inf alone gives NaN, as in PyTorch. Next: rows.cuh for the teams, cross_entropy.cu for the loss.
#include "rows.cuh"

template <class T, int TEAM, int ITEMS>
__global__ void softmax(const T* x, T* y, int64_t outer, int64_t n, int64_t inner) {
  const Row<TEAM> row(outer, n, inner);
  Share<T, TEAM, ITEMS> xs(x, row);
  const T top = xs.top();
  T sum = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) {
    const T e = exp_negative(xs(i, k) - top);
    sum += e;
    if constexpr (ITEMS > 0) xs.held[k] = e;
  });
  const T factor = T(1) / row.sum(sum);
  each_own<ITEMS>(
      row, [&](int64_t i, int k) { y[row.at(i)] = (ITEMS > 0 ? xs(i, k) : exp_negative(xs(i, k) - top)) * factor; });
}

// dx = y (dy - sum(dy y))
template <class T, int TEAM, int ITEMS>
__global__ void softmax_backward(const T* dy, const T* y, T* dx, int64_t outer, int64_t n, int64_t inner) {
  const Row<TEAM> row(outer, n, inner);
  const Share<T, TEAM, ITEMS> ds(dy, row), ys(y, row);
  T sum = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) { sum += ds(i, k) * ys(i, k); });
  sum = row.sum(sum);
  each_own<ITEMS>(row, [&](int64_t i, int k) { dx[row.at(i)] = ys(i, k) * (ds(i, k) - sum); });
}

template <class T, int TEAM, int ITEMS>
__global__ void log_softmax(const T* x, T* y, int64_t outer, int64_t n, int64_t inner) {
  const Row<TEAM> row(outer, n, inner);
  const Share<T, TEAM, ITEMS> xs(x, row);
  const T top = xs.top();
  T sum = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) { sum += exp_negative(xs(i, k) - top); });
  const T shift = log(row.sum(sum));
  each_own<ITEMS>(row, [&](int64_t i, int k) { y[row.at(i)] = (xs(i, k) - top) - shift; });
}

// dx = dy - exp(y) sum(dy)
template <class T, int TEAM, int ITEMS>
__global__ void log_softmax_backward(const T* dy, const T* y, T* dx, int64_t outer, int64_t n, int64_t inner) {
  const Row<TEAM> row(outer, n, inner);
  const Share<T, TEAM, ITEMS> ds(dy, row), ys(y, row);
  T sum = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) { sum += ds(i, k); });
  sum = row.sum(sum);
  each_own<ITEMS>(row, [&](int64_t i, int k) { dx[row.at(i)] = ds(i, k) - exp_negative(ys(i, k)) * sum; });
}
