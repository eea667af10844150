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

// Neighbours in y that are neighbours in x, elements of a row (to, inner): one copy. from -1: all of them the constant.
struct Run {
  int64_t to, from, count;
};
// The table as runs, in the order of y; how many there are.
static int64_t runs_of(const PadAxis& a, Run* runs) {
  int64_t count = 0;
  for (int64_t j = 0, n; j < a.to; j += n) {
    const int64_t from = a.index[j], step = from < 0 ? 0 : 1;
    for (n = 1; j + n < a.to && a.index[j + n] == from + n * step;) ++n;
    runs[count++] = {j * a.inner, from < 0 ? -1 : from * a.inner, n * a.inner};
  }
  return count;
}

// Calls body(begin, end) over the rows `outer`; rows are visited in the order of memory.
template <class F>
FASTNN_INLINE void for_each_outer(const PadAxis& a, const F& body) {
  parallel_for(a.outer, GRAIN / most((a.from + a.to) * a.inner, 1) + 1, body);
}

// A short run is written in whole vectors where what follows it is the chunk's own and comes later, and where what is
// read beyond it is x's.
template <class T>
void pad_axis(const Array& x, const Array& index, const Array& y, double value) {
  const Scratch<int64_t> table(index.size);
  const PadAxis a = pad_axis_of(x, index, y, table.get());
  const Scratch<Run> scratch(index.size);
  Run* const runs = scratch.get();
  const int64_t count = runs_of(a, runs), row = a.to * a.inner, source = a.from * a.inner;
  const T *px = in<T>(x), *x_end = px + x.size;
  T* py = out<T>(y);
  const Vec<T> constant = set(static_cast<T>(value));
  for_each_outer(a, [=](int64_t begin, int64_t end) {
    const T* const y_end = py + end * row;
    for (int64_t o = begin; o < end; ++o)
      for (int64_t r = 0; r < count; ++r) {
        const Run& run = runs[r];
        T* const to = py + o * row + run.to;
        const int64_t whole = divide_up(run.count, W<T>) * W<T>;
        const int64_t n = y_end - to >= whole ? whole : run.count;
        if (run.from < 0) {
          each_vector<T>(0, n, [=](int64_t i, int64_t lanes) { store(to + i, constant, lanes); });
        } else {
          const T* const from = px + o * source + run.from;
          if (run.count == 1)
            *to = *from;
          else if (run.count > 8 * W<T>)
            memcpy(to, from, size_t(run.count) * sizeof(T));
          else
            each_vector<T>(0, x_end - from >= whole ? n : run.count,
                           [=](int64_t i, int64_t lanes) { store(to + i, load(from + i, lanes), lanes); });
        }
      }
  });
}

// dx[o, k, i] = sum of dy[o, j, i] over the j with index[j] = k, in the order of j.
template <class T>
void pad_axis_backward(const Array& dy, const Array& index, const Array& dx) {
  const Scratch<int64_t> table(index.size);
  const PadAxis a = pad_axis_of(dx, index, dy, table.get());
  const Scratch<Run> scratch(index.size);
  Run* const runs = scratch.get();
  const int64_t count = runs_of(a, runs), row = a.to * a.inner, target = a.from * a.inner;
  const T* pdy = in<T>(dy);
  T* pdx = out<T>(dx);
  for_each_outer(a, [=](int64_t begin, int64_t end) {
    if (target > 0) memset(pdx + begin * target, 0, size_t((end - begin) * target) * sizeof(T));
    for (int64_t o = begin; o < end; ++o)
      for (int64_t r = 0; r < count; ++r) {
        if (runs[r].from < 0) continue;
        const T* const from = pdy + o * row + runs[r].to;
        T* const to = pdx + o * target + runs[r].from;
        each_vector<T>(0, runs[r].count,
                       [=](int64_t i, int64_t n) { store(to + i, load(to + i, n) + load(from + i, n), n); });
      }
  });
}

FASTNN_KERNELS(pad, FASTNN_KERNEL(pad_axis, "x, index:i64 -> y | value"),
               FASTNN_KERNEL(pad_axis_backward, "dy, index:i64 -> dx"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
