// Reductions over the middle of (outer, n, inner): sums, for Tensor.sum, Tensor.mean and the gradients of biases, and
// the largest or smallest element with its place, for Tensor.max and Tensor.min. Cut by shape alone into pieces of n
// and blocks of inner; what pieces give is reduced in their order. Where inner is 1, lanes run along a row; else each
// lane has a column, and rows are read as they lie in memory.
#include "denormals.h"
#include "shuffle.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

// A unit reduces `length` of n elements in `width` of inner columns. Of columns a piece has 64 rows or more: what is
// left of each piece is a row, which somebody has to read again.
struct Cut {
  int64_t outer, n, inner, width, length, blocks, pieces;
  FASTNN_INLINE explicit Cut(const Array& x)
      : outer(x.shape[0]), n(x.shape[1]), inner(x.shape[2]), width(most(1, least(inner, 2048))) {
    length = inner == 1 ? GRAIN : most(64, GRAIN / width);
    blocks = divide_up(inner, width);
    pieces = most(1, divide_up(n, length));
  }
  // body(number of the piece, its first element, elements, the first column, columns) for each unit. What a piece
  // gives belongs at piece * inner + column: (outer, pieces, inner).
  template <class F>
  FASTNN_INLINE void each(const F& body) const {
    const Cut c = *this;
    const int64_t together = most(1, GRAIN / most(1, least(n, length) * width));
    parallel_for(outer * pieces * blocks, together, [=](int64_t begin, int64_t end) {
      const KeepDenormals keep;
      for (int64_t u = begin; u < end; ++u) {
        const int64_t piece = u / c.blocks, column = u % c.blocks * c.width, k = piece % c.pieces * c.length;
        body(piece, (piece / c.pieces * c.n + k) * c.inner + column, least(c.length, c.n - k), column,
             least(c.width, c.inner - column));
      }
    });
  }
};

// to[0 .. width) = the sum of n rows, `step` apart, four at a time.
template <class T>
FASTNN_INLINE void sum_of_rows(const T* x, int64_t n, int64_t step, int64_t width, T* to) {
  if (n == 0) memset(to, 0, size_t(width) * sizeof(T));
  for (int64_t k = 0; k < n;) {
    const T* row = x + k * step;
    const int64_t rows = n - k < 4 ? 1 : 4;
    each_vector<T>(0, width, [=](int64_t i, int64_t lanes) {
      Vec<T> s = load(row + i, lanes);
      if (rows == 4)
        s = (s + load(row + step + i, lanes)) + (load(row + 2 * step + i, lanes) + load(row + 3 * step + i, lanes));
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
  const Cut cut(x);
  const T* px = in<T>(x);
  T* py = out<T>(y);
  const Scratch<T> scratch(cut.pieces > 1 ? cut.outer * cut.pieces * cut.inner : 0);
  T* const sums = cut.pieces > 1 ? scratch.get() : py;
  const int64_t inner = cut.inner;
  cut.each([=](int64_t piece, int64_t at, int64_t count, int64_t column, int64_t columns) {
    if (inner == 1)
      sums[piece] = sum_of_run(px + at, count);
    else
      sum_of_rows(px + at, count, inner, columns, sums + piece * inner + column);
  });
  if (cut.pieces == 1) return;
  const KeepDenormals keep;
  for (int64_t o = 0; o < cut.outer; ++o) {
    const T* own = sums + o * cut.pieces * inner;
    if (inner > 1) {
      sum_of_rows(own, cut.pieces, inner, inner, py + o * inner);
    } else {
      double total = 0;
      for (int64_t piece = 0; piece < cut.pieces; ++piece) total += double(own[piece]);
      py[o] = static_cast<T>(total);
    }
  }
}

// Places stand in arrays of T, as integers of that width: in the same masks and lanes as the elements.
template <class T>
using Place = decltype(Bits<T>{}[0] + Bits<T>{}[0]);
template <class T>
FASTNN_INLINE Place<T> place_at(const T* p) {
  Place<T> place;
  memcpy(&place, p, sizeof place);
  return place;
}

// Whether v is better than `best`: of equals the first stays, and of numbers and NaN the first NaN.
template <bool Lowest, class V>
FASTNN_INLINE auto better(V v, V best) {
  return ~(Lowest ? v >= best : v <= best) & (best == best);
}

template <bool Lowest, class V>
FASTNN_INLINE V extreme_of(V a, V b) {  // but for NaN
  return Lowest ? (b < a ? b : a) : (b > a ? b : a);
}
// The extreme of all lanes, in every lane; the least of integers (a place each).
template <class T, bool Lowest, int STEP = W<T> / 2>
FASTNN_INLINE Vec<T> extreme_lane(Vec<T> v) {
  const Vec<T> best = extreme_of<Lowest>(v, exchange<STEP, T>(v));
  if constexpr (STEP > 1) return extreme_lane<T, Lowest, STEP / 2>(best);
  return best;
}
template <class T, int STEP = W<T> / 2>
FASTNN_INLINE Bits<T> least_lane(Bits<T> v) {
  const Bits<T> least = extreme_of<true>(v, (Bits<T>)exchange<STEP, T>((Vec<T>)v));
  if constexpr (STEP > 1) return least_lane<T, STEP / 2>(least);
  return least;
}

// The extreme of x[0 .. n), n > 0, and where it stands. A NaN is only noticed, and looked for where there is one: to
// keep it in mind would double the way from one comparison to the next.
template <class T, bool Lowest>
FASTNN_INLINE void extreme_of_run(const T* x, int64_t n, T* value, T* place) {
  T best = x[0], nan = 0;
  Place<T> at = 0;
  if (n < 4 * W<T>) {
    for (int64_t i = 0; i < n; ++i) {
      nan = x[i] != x[i] ? x[i] : nan;
      if (Lowest ? x[i] < best : x[i] > best) {
        best = x[i];
        at = static_cast<Place<T>>(i);
      }
    }
  } else {
    Vec<T> v[4], nans{};
    Bits<T> i[4];
    for (int j = 0; j < 4; ++j) {
      v[j] = load(x + j * W<T>);
      nans = v[j] != v[j] ? v[j] : nans;
      for (int lane = 0; lane < W<T>; ++lane) i[j][lane] = j * W<T> + lane;
    }
    const Bits<T> lanes = i[0];
    const auto take = [&](int64_t from, int j) __attribute__((always_inline)) {
      const Vec<T> next = load(x + from);
      const Bits<T> wins = Lowest ? next < v[j] : next > v[j];
      v[j] = wins ? next : v[j];
      i[j] = wins ? lanes + static_cast<Place<T>>(from) : i[j];
      nans = next != next ? next : nans;
    };
    int64_t k = 4 * W<T>;
    for (; k + 4 * W<T> <= n; k += 4 * W<T>)
      for (int j = 0; j < 4; ++j) take(k + j * W<T>, j);
    for (; k + W<T> <= n; k += W<T>) take(k, 0);
    if (k < n) take(n - W<T>, 1);  // some of them for the second time: no harm
    nan = sum_lanes<T>(nans);
    // Of all lanes the best, then of those that hold it the first.
    const Vec<T> two = extreme_of<Lowest>(v[0], v[1]), others = extreme_of<Lowest>(v[2], v[3]);
    const Vec<T> top = extreme_lane<T, Lowest>(extreme_of<Lowest>(two, others));
    const Bits<T> never = Bits<T>{} + static_cast<Place<T>>(n);
    Bits<T> first = never;
    for (int j = 0; j < 4; ++j) first = extreme_of<true>(first, v[j] == top ? i[j] : never);
    best = top[0];
    at = least_lane<T>(first)[0];
  }
  if (nan != nan) {
    for (at = 0; x[at] == x[at];) ++at;
    best = x[at];
  }
  *value = best;
  memcpy(place, &at, sizeof at);
}

// The extremes of `width` columns of n > 0 rows, `step` apart, and in which row each stands.
template <class T, bool Lowest>
FASTNN_INLINE void extremes_of_rows(const T* x, int64_t n, int64_t step, int64_t width, T* values, T* places) {
  memcpy(values, x, size_t(width) * sizeof(T));
  memset(places, 0, size_t(width) * sizeof(T));
  for (int64_t k = 1; k < n;) {
    const T* row = x + k * step;
    const int64_t rows = n - k < 4 ? 1 : 4;
    each_vector<T>(0, width, [=](int64_t i, int64_t lanes) {
      Vec<T> best = load(values + i, lanes);
      Bits<T> place = (Bits<T>)load(places + i, lanes);
      for (int64_t r = 0; r < rows; ++r) {
        const Vec<T> v = load(row + r * step + i, lanes);
        const auto wins = better<Lowest>(v, best);
        best = wins ? v : best;
        place = wins ? Bits<T>{} + static_cast<Place<T>>(k + r) : place;
      }
      store(values + i, best, lanes);
      store(places + i, (Vec<T>)place, lanes);
    });
    k += rows;
  }
}

template <class T, bool Lowest>
FASTNN_INLINE void extremes(const Array& x, const Array& y, const Array& where) {
  const Cut cut(x);
  const T* px = in<T>(x);
  T* py = out<T>(y);
  const int64_t inner = cut.inner, pieces = cut.pieces;
  const Scratch<T> scratch(pieces > 1 ? cut.outer * pieces * inner : 0);
  const Scratch<T> found(cut.outer * pieces * inner), chosen(pieces > 1 ? inner : 0);
  T* const values = pieces > 1 ? scratch.get() : py;
  T* const places = found.get();
  cut.each([=](int64_t piece, int64_t at, int64_t count, int64_t column, int64_t columns) {
    const int64_t to = piece * inner + column;
    if (inner == 1)
      extreme_of_run<T, Lowest>(px + at, count, values + to, places + to);
    else
      extremes_of_rows<T, Lowest>(px + at, count, inner, columns, values + to, places + to);
  });
  const KeepDenormals keep;
  int64_t* const pw = where ? out<int64_t>(where) : nullptr;
  for (int64_t o = 0; o < cut.outer; ++o) {
    if (pieces > 1)
      extremes_of_rows<T, Lowest>(values + o * pieces * inner, pieces, inner, inner, py + o * inner, chosen.get());
    if (!pw) continue;
    for (int64_t i = 0; i < inner; ++i) {
      const int64_t piece = pieces > 1 ? int64_t(place_at(chosen.get() + i)) : 0;
      pw[o * inner + i] = piece * cut.length + place_at(places + (o * pieces + piece) * inner + i);
    }
  }
}

// y, where (outer, inner) = the largest element of x (outer, n, inner) over its middle, or the smallest, and where it
// stands: of equals the first, and a NaN before any number.
template <class T>
void extreme_middle(const Array& x, const Array& y, const Array& where, int64_t lowest) {
  FASTNN_CHECK(x.ndim == 3 && y.ndim == 2 && y.shape[0] == x.shape[0] && y.shape[1] == x.shape[2],
               "x must be (outer, n, inner), y (outer, inner)");
  FASTNN_CHECK(!where || where.size == y.size, "y and where differ in size");
  FASTNN_CHECK(x.shape[1] > 0 || y.size == 0, "no elements to choose from");
  if (y.size == 0) return;
  if (lowest)
    extremes<T, true>(x, y, where);
  else
    extremes<T, false>(x, y, where);
}

FASTNN_KERNELS(reduce, FASTNN_KERNEL(sum_middle, "x -> y"),
               FASTNN_KERNEL(extreme_middle, "x -> y, where:i64? | lowest"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
