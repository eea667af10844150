// Softmax and log-softmax along the middle of (outer, n, inner), and their gradients: a row stays in L1 for its passes.
// A row of -inf alone gives NaN, as in PyTorch. Next: rows.h for the walk, cross_entropy.cpp for the loss.
#include "rows.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE void check_shapes(const Array& a, const Array& b) {
  FASTNN_CHECK(
      a.ndim == 3 && b.ndim == 3 && a.shape[0] == b.shape[0] && a.shape[1] == b.shape[1] && a.shape[2] == b.shape[2],
      "arrays must all be (outer, n, inner)");
}

template <class T>
void softmax(const Array& x, const Array& y) {
  check_shapes(x, y);
  const T* px = in<T>(x);
  T* py = out<T>(y);
  each_unit<T>(x.shape[0], x.shape[1], x.shape[2], [=](auto row, int64_t offset, int64_t, int64_t) {
    const T* xs = px + offset;
    T* ys = py + offset;
    const Vec<T> top = row.top(xs);
    const Vec<T> sum = row.sum([&](int64_t i) {
      const Vec<T> e = exp_negative(row.get(xs, i) - top);
      row.put(ys, i, e);
      return e;
    });
    const Vec<T> factor = T(1) / sum;
    row.write(ys, [&](int64_t i) { return row.get(ys, i) * factor; });
  });
}

// dx = y (dy - sum(dy y))
template <class T>
void softmax_backward(const Array& dy, const Array& y, const Array& dx) {
  check_shapes(dy, y);
  check_shapes(dy, dx);
  const T *pd = in<T>(dy), *py = in<T>(y);
  T* px = out<T>(dx);
  each_unit<T>(dy.shape[0], dy.shape[1], dy.shape[2], [=](auto row, int64_t offset, int64_t, int64_t) {
    const T *ds = pd + offset, *ys = py + offset;
    const Vec<T> sum = row.sum([&](int64_t i) { return row.get(ds, i) * row.get(ys, i); });
    row.write(px + offset, [&](int64_t i) { return row.get(ys, i) * (row.get(ds, i) - sum); });
  });
}

template <class T>
void log_softmax(const Array& x, const Array& y) {
  check_shapes(x, y);
  const T* px = in<T>(x);
  T* py = out<T>(y);
  each_unit<T>(x.shape[0], x.shape[1], x.shape[2], [=](auto row, int64_t offset, int64_t, int64_t) {
    const T* xs = px + offset;
    const Vec<T> top = row.top(xs);
    const Vec<T> shift = log(row.sum([&](int64_t i) { return exp_negative(row.get(xs, i) - top); }));
    row.write(py + offset, [&](int64_t i) { return (row.get(xs, i) - top) - shift; });
  });
}

// dx = dy - exp(y) sum(dy)
template <class T>
void log_softmax_backward(const Array& dy, const Array& y, const Array& dx) {
  check_shapes(dy, y);
  check_shapes(dy, dx);
  const T *pd = in<T>(dy), *py = in<T>(y);
  T* px = out<T>(dx);
  each_unit<T>(dy.shape[0], dy.shape[1], dy.shape[2], [=](auto row, int64_t offset, int64_t, int64_t) {
    const T *ds = pd + offset, *ys = py + offset;
    const Vec<T> sum = row.sum([&](int64_t i) { return row.get(ds, i); });
    row.write(px + offset, [&](int64_t i) { return row.get(ds, i) - exp_negative(row.get(ys, i)) * sum; });
  });
}

FASTNN_KERNELS(softmax, FASTNN_KERNEL(softmax, "x -> y"), FASTNN_KERNEL(softmax_backward, "dy, y -> dx"),
               FASTNN_KERNEL(log_softmax, "x -> y"), FASTNN_KERNEL(log_softmax_backward, "dy, y -> dx"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
