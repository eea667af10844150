// Arithmetic of Tensors: y = f(a, b) with NumPy's broadcasting, y = f(x). Every bit is what NumPy gives, denormals too,
// which all other kernels flush: what is not contiguous, or no float, is left to it (kernels/arithmetic.py).
// Operands that are repeated along y are read where they lie: y is walked in runs, along which an operand either
// advances with y or stands still. On a GPU: ../cuda/arithmetic.cu.
#include "denormals.h"
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t REPEATED = 4096;  // rows of fewer elements are laid out several times

// How y is walked: `rows` runs of n elements. Neighbouring dimensions along which both operands do the same are one.
struct Walk {
  int64_t n = 1, rows = 1;
  bool a_advances = false, b_advances = false;                 // along a run
  int outer = 0;                                               // dimensions around the runs, the innermost first
  int64_t size[MAX_DIMS], a_step[MAX_DIMS], b_step[MAX_DIMS];  // in elements
};

static Walk walk(const Array& a, const Array& b, const Array& y) {
  FASTNN_CHECK(a.ndim <= y.ndim && b.ndim <= y.ndim, "y has fewer dimensions than an operand");
  Walk w;
  int64_t a_size = 1, b_size = 1;  // of the dimensions inside
  bool first = true, a_before = false, b_before = false;
  for (int d = 1; d <= y.ndim; ++d) {
    const int64_t n = y.shape[y.ndim - d];
    const int64_t na = d <= a.ndim ? a.shape[a.ndim - d] : 1, nb = d <= b.ndim ? b.shape[b.ndim - d] : 1;
    FASTNN_CHECK((na == n && nb == n) || (na == n && nb == 1) || (na == 1 && nb == n),
                 "the operands do not broadcast to y");
    if (n == 1) continue;
    const bool a_here = na == n, b_here = nb == n;
    if (first) {
      w.n = n;
      w.a_advances = a_here;
      w.b_advances = b_here;
    } else if (a_here == a_before && b_here == b_before) {
      (w.outer > 0 ? w.size[w.outer - 1] : w.n) *= n;
    } else {
      w.size[w.outer] = n;
      w.a_step[w.outer] = a_here ? a_size : 0;
      w.b_step[w.outer] = b_here ? b_size : 0;
      w.outer += 1;
    }
    if (!first && w.outer > 0) w.rows *= n;
    first = false;
    a_before = a_here;
    b_before = b_here;
    if (a_here) a_size *= n;
    if (b_here) b_size *= n;
  }
  return w;
}

struct Offsets {
  int64_t a, b;
};
FASTNN_INLINE Offsets offsets(const Walk& w, int64_t row) {
  Offsets at{0, 0};
  for (int d = 0; d < w.outer; ++d) {
    const int64_t above = d + 1 < w.outer ? row / w.size[d] : 0, place = row - above * w.size[d];
    at.a += place * w.a_step[d];
    at.b += place * w.b_step[d];
    row = above;
  }
  return at;
}

// y = f(a, b) with b the same in each row of n: rows of no whole number of cache lines would be written across lines,
// and short ones by halves of vectors. So b is laid out several times in a row, and y written as if it had no rows.
template <class T, class F>
FASTNN_INLINE void repeat_row(const T* a, const T* b, T* y, int64_t rows, int64_t n, const F& f) {
  const int64_t repeats = least(rows, divide_up(512, n) + 1), size = rows * n;
  const Scratch<T> scratch(repeats * n);
  T* const tile = scratch.get();
  for (int64_t r = 0; r < repeats; ++r) memcpy(tile + r * n, b, size_t(n) * sizeof(T));
  const bool past = streams(y, size);
  parallel_for(size, even_grain(size), [=](int64_t begin, int64_t end) {
    const KeepDenormals keep;
    for (int64_t i = begin; i < end;) {
      const int64_t at = i % n, there = repeats * n - at, count = least(end - i, most(1, there / LINE<T>) * LINE<T>);
      const T *as = a + i, *bs = tile + at;
      write_piece(y + i, count, past, [=](int64_t j, int64_t m) { return f(load(as + j, m), load(bs + j, m)); });
      i += count;
    }
  });
}

template <class T, class F>
FASTNN_INLINE void binary(const Array& a, const Array& b, const Array& y, F f) {
  const Walk w = walk(a, b, y);
  if (y.size == 0) return;
  const T *pa = in<T>(a), *pb = in<T>(b);
  T* py = out<T>(y);
  if (w.a_advances && w.b_advances && w.outer == 1 && w.n < REPEATED) {
    if (w.b_step[0] == 0) return repeat_row(pa, pb, py, w.rows, w.n, f);
    return repeat_row(pb, pa, py, w.rows, w.n, [=](Vec<T> u, Vec<T> v) { return f(v, u); });
  }
  const int64_t length = least(w.n, even_grain(w.n)), pieces = divide_up(w.n, length);
  const bool past = streams(py, y.size) && w.n % W<T> == 0;
  parallel_for(w.rows * pieces, most(1, GRAIN / length), [=](int64_t begin, int64_t end) {
    const KeepDenormals keep;
    for (int64_t u = begin; u < end; ++u) {
      const int64_t row = pieces == 1 ? u : u / pieces, i = (u - row * pieces) * length, n = least(length, w.n - i);
      const Offsets at = offsets(w, row);
      const T *as = pa + at.a + (w.a_advances ? i : 0), *bs = pb + at.b + (w.b_advances ? i : 0);
      T* ys = py + row * w.n + i;
      const Vec<T> a_number = set(*as), b_number = set(*bs);
      if (w.a_advances && w.b_advances)
        write_piece(ys, n, past, [=](int64_t j, int64_t m) { return f(load(as + j, m), load(bs + j, m)); });
      else if (w.a_advances)
        write_piece(ys, n, past, [=](int64_t j, int64_t m) { return f(load(as + j, m), b_number); });
      else
        write_piece(ys, n, past, [=](int64_t j, int64_t m) { return f(a_number, load(bs + j, m)); });
    }
  });
}

template <class T, class F>
FASTNN_INLINE void unary(const Array& x, const Array& y, F f) {
  FASTNN_CHECK(x.size == y.size, "x and y differ in size");
  const T* px = in<T>(x);
  T* py = out<T>(y);
  const bool past = streams(py, y.size);
  parallel_for(y.size, even_grain(y.size), [=](int64_t begin, int64_t end) {
    const KeepDenormals keep;
    write_piece(py + begin, end - begin, past, [=](int64_t i, int64_t n) { return f(load(px + begin + i, n)); });
  });
}

// Named as NumPy's functions.
#define BINARY(name, expression)                                       \
  template <class T>                                                   \
  void name(const Array& a, const Array& b, const Array& y) {          \
    binary<T>(a, b, y, [](Vec<T> a, Vec<T> b) { return expression; }); \
  }
#define UNARY(name, expression)                          \
  template <class T>                                     \
  void name(const Array& x, const Array& y) {            \
    unary<T>(x, y, [](Vec<T> x) { return expression; }); \
  }
BINARY(add, a + b)
BINARY(subtract, a - b)
BINARY(multiply, a* b)
BINARY(divide, a / b)
UNARY(negative, -x)
UNARY(absolute, magnitude(x))
UNARY(square_root, FASTNN_ISA::sqrt(x))

FASTNN_KERNELS(arithmetic, FASTNN_KERNEL(add, "a, b -> y"), FASTNN_KERNEL(subtract, "a, b -> y"),
               FASTNN_KERNEL(multiply, "a, b -> y"), FASTNN_KERNEL(divide, "a, b -> y"),
               FASTNN_KERNEL(negative, "x -> y=x"), FASTNN_KERNEL(absolute, "x -> y=x"),
               FASTNN_KERNEL(square_root, "x -> y=x"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
