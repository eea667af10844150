// Padding of one axis by a table of indices: y[o, j, i] = x[o, index[j], i], or the constant where index[j] is -1.
// Every mode (constant, reflect, replicate, circular, cropping) is a table, and several axes are padded one by one; the
// tables are made in python/fastnn/kernels/pad.py.
#include "simd.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

struct PadAxis {
  int64_t outer, from, to, inner;  // x (outer, from, inner), y (outer, to, inner)
  const int64_t* index;
};

// The table is checked and used as a copy: the caller's may change meanwhile in another thread.
static PadAxis pad_axis_of(const Array& x, const Array& index, const Array& y, int64_t* table) {
  FASTNN_CHECK(x.ndim == 3 && y.ndim == 3 && index.ndim == 1, "x and y must be (outer, axis, inner), index 1-d");
  FASTNN_CHECK(x.shape[0] == y.shape[0] && x.shape[2] == y.shape[2] && index.size == y.shape[1],
               "x, index and y do not fit together");
  if (index.size > 0) memcpy(table, index.ptr, size_t(index.size) * sizeof(int64_t));
  for (int64_t j = 0; j < index.size; ++j) FASTNN_CHECK(table[j] >= -1 && table[j] < x.shape[1], "index out of range");
  return {x.shape[0], x.shape[1], y.shape[1], x.shape[2], table};
}

// How many entries from j on continue index[j], index[j] + 1, ...: they are one copy.
static int64_t run_length(const PadAxis& a, int64_t j) {
  int64_t n = 1;
  if (a.index[j] >= 0)
    while (j + n < a.to && a.index[j + n] == a.index[j] + n) ++n;
  return n;
}

template <class F>
FASTNN_INLINE void for_each_outer(const PadAxis& a, const F& body) {
  const int64_t size = a.to * a.inner;
  parallel_for(a.outer, GRAIN / most(size, 1) + 1, [=](int64_t begin, int64_t end) {
    for (int64_t o = begin; o < end; ++o) body(o);
  });
}

template <class T>
void pad_axis(const Array& x, const Array& index, const Array& y, double value) {
  const Scratch<int64_t> table(index.size);
  const PadAxis a = pad_axis_of(x, index, y, table.get());
  const T* px = in<T>(x);
  T* py = out<T>(y);
  const T constant = static_cast<T>(value);
  for_each_outer(a, [=](int64_t o) {
    T* row = py + o * a.to * a.inner;
    for (int64_t j = 0, n; j < a.to; j += n) {
      n = run_length(a, j);
      if (a.index[j] < 0)
        for (int64_t i = 0; i < a.inner; ++i) row[j * a.inner + i] = constant;
      else
        memcpy(row + j * a.inner, px + (o * a.from + a.index[j]) * a.inner, size_t(n * a.inner) * sizeof(T));
    }
  });
}

// dx[o, k, i] = sum of dy[o, j, i] over the j with index[j] = k, in the order of j.
template <class T>
void pad_axis_backward(const Array& dy, const Array& index, const Array& dx) {
  const Scratch<int64_t> table(index.size);
  const PadAxis a = pad_axis_of(dx, index, dy, table.get());
  const T* pdy = in<T>(dy);
  T* pdx = out<T>(dx);
  for_each_outer(a, [=](int64_t o) {
    T* row = pdx + o * a.from * a.inner;
    memset(row, 0, size_t(a.from * a.inner) * sizeof(T));
    for (int64_t j = 0, n; j < a.to; j += n) {
      n = run_length(a, j);
      if (a.index[j] < 0) continue;
      const T* from = pdy + (o * a.to + j) * a.inner;
      T* to = row + a.index[j] * a.inner;
      for (int64_t i = 0; i < n * a.inner; ++i) to[i] += from[i];
    }
  });
}

FASTNN_KERNELS(pad, FASTNN_KERNEL(pad_axis, "x, index:i64 -> y | value"),
               FASTNN_KERNEL(pad_axis_backward, "dy, index:i64 -> dx"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
