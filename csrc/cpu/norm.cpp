// Batch norm and layer norm, forward and backward. Arrays are (N, C, S) for batch norm, (rows, n) for layer norm.
// Means are taken of x minus the channel's (row's) first element, so that a large offset costs no digits; sums run in
// vector lanes within a plane, and over planes in double, in an order fixed by the shape. local_response.cpp is beside.
#include "math.h"
#include "norm_columns.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE int64_t units_a_chunk(int64_t size) { return divide_up(GRAIN, most(size, 1)); }

// The sum over [0, n) of f(i, lanes), the vector of values at i; of the last one's only the first `lanes` are added.
template <class T, class F>
FASTNN_INLINE double sum_of(int64_t n, const F& f) {
  Vec<T> s[4] = {};
  int64_t i = 0;
  for (; i + 4 * W<T> <= n; i += 4 * W<T>)
    for (int j = 0; j < 4; ++j) s[j] = s[j] + f(i + j * W<T>, int64_t(W<T>));
  for (; i + W<T> <= n; i += W<T>) s[0] = s[0] + f(i, int64_t(W<T>));
  double total = double(sum_lanes<T>((s[0] + s[1]) + (s[2] + s[3])));
  if (i < n) {
    T lanes[W<T>];
    store(lanes, f(i, n - i));
    for (int64_t j = 0; j < n - i; ++j) total += double(lanes[j]);
  }
  return total;
}

// The first n lanes of v, zero beyond.
template <class T>
FASTNN_INLINE Vec<T> only(Vec<T> v, int64_t n) {
  if (n == W<T>) return v;
  T lanes[W<T>];
  store(lanes, v);
  return load_n(lanes, n);
}

// Sums over `count` pieces of n elements each, `step` apart: add(at, lanes, a, b) adds the vector at offset `at` to the
// vectors a and b, whose totals go to *first and *second. Lanes are summed up every 64 vectors or so, not per piece: a
// piece may be as short as two vectors.
template <class T, class F>
FASTNN_INLINE void sums_of_pieces(int64_t count, int64_t step, int64_t n, double* first, double* second, const F& add) {
  *first = *second = 0;
  Vec<T> a[2] = {}, b[2] = {};
  for (int64_t p = 0, held = 0; p < count; ++p) {
    const int64_t at = p * step;
    int64_t i = 0;
    for (; i + 2 * W<T> <= n; i += 2 * W<T>) {
      add(at + i, int64_t(W<T>), a[0], b[0]);
      add(at + i + W<T>, int64_t(W<T>), a[1], b[1]);
    }
    each_vector<T>(i, n, [&](int64_t j, int64_t lanes) { add(at + j, lanes, a[0], b[0]); });
    held += n;
    if (held >= 64 * W<T> || p + 1 == count) {
      *first += double(sum_lanes<T>(a[0] + a[1]));
      *second += double(sum_lanes<T>(b[0] + b[1]));
      a[0] = a[1] = b[0] = b[1] = Vec<T>{};
      held = 0;
    }
  }
}

struct Moments {
  double mean, var;  // var over all elements, not unbiased
  // What y = (x - T(mean)) * scale lacks because T(mean) is rounded: at an offset of 1e4, the fourth digit.
  template <class T>
  FASTNN_INLINE double correction(double scale) const {
    return (double(static_cast<T>(mean)) - mean) * scale;
  }
};

// Of `count` pieces of n elements each, `step` apart.
template <class T>
FASTNN_INLINE Moments moments(const T* x, int64_t count, int64_t step, int64_t n) {
  const double number = double(count) * double(n);
  const Vec<T> first = set(x[0]);
  double sum, squares, none;
  sums_of_pieces<T>(count, step, n, &sum, &none,
                    [=](int64_t at, int64_t m, Vec<T>& a, Vec<T>&) { a = a + only<T>(load(x + at, m) - first, m); });
  const double mean = double(x[0]) + sum / number;
  const Vec<T> center = set(static_cast<T>(mean));
  sums_of_pieces<T>(count, step, n, &squares, &none, [=](int64_t at, int64_t m, Vec<T>& a, Vec<T>&) {
    const Vec<T> d = only<T>(load(x + at, m) - center, m);
    a = a + d * d;
  });
  const double rest = mean - double(static_cast<T>(mean)), var = squares / number - rest * rest;
  return {mean, var < 0 ? 0 : var};
}

// Of a channel's planes in one pass over memory, about a center near the mean: that of the first 64th of the planes.
// Were those outliers all, the squares would be 64 times what they are about the mean.
template <class T>
FASTNN_INLINE Moments moments_of_planes(const T* x, int64_t count, int64_t step, int64_t n) {
  const int64_t some = divide_up(count, 64);
  const Vec<T> first = set(x[0]);
  double sum, squares, none;
  sums_of_pieces<T>(some, step, n, &sum, &none,
                    [=](int64_t at, int64_t m, Vec<T>& a, Vec<T>&) { a = a + only<T>(load(x + at, m) - first, m); });
  const T middle = static_cast<T>(double(x[0]) + sum / (double(some) * double(n)));
  const Vec<T> center = set(middle);
  sums_of_pieces<T>(count, step, n, &sum, &squares, [=](int64_t at, int64_t m, Vec<T>& a, Vec<T>& b) {
    const Vec<T> d = only<T>(load(x + at, m) - center, m);
    a = a + d;
    b = b + d * d;
  });
  const double number = double(count) * double(n), rest = sum / number, var = squares / number - rest * rest;
  return {double(middle) + rest, var < 0 ? 0 : var};
}

template <class T>
FASTNN_INLINE T reciprocal_root(double var, double eps) {
  return static_cast<T>(1 / __builtin_sqrt(var + eps));
}

struct Planes {
  int64_t N, C, S;
};
static Planes planes(const Array& x) {
  FASTNN_CHECK(x.ndim == 3, "x must be (N, C, S)");
  return {x.shape[0], x.shape[1], x.shape[2]};
}
// Of all the arrays that are given.
template <class... A>
FASTNN_INLINE void check_sizes(int64_t size, const A&... arrays) {
  FASTNN_CHECK(((!arrays || arrays.size == size) && ...), "sizes do not fit");
}

// y = (x - mean) * scale + shift
template <class T>
FASTNN_INLINE void normalise(const T* x, T* y, int64_t n, bool past, T mean, T scale, T shift) {
  const Vec<T> center = set(mean), factor = set(scale), offset = set(shift);
  write_piece(y, n, past, [=](int64_t i, int64_t m) { return (load(x + i, m) - center) * factor + offset; });
}
// Whether planes of S elements go past the caches: of a large array, and aligned.
template <class T>
FASTNN_INLINE bool planes_stream(const T* y, int64_t size, int64_t S) {
  return streams(y, size) && S % W<T> == 0;
}

// Calls body(c, lanes) for each W channels of (N, C), where `d.S` is 1. See norm_columns.h.
template <class T, class F>
FASTNN_INLINE void each_columns(const Planes& d, const F& body) {
  parallel_for(divide_up(d.C, W<T>), units_a_chunk(d.N * W<T>), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin * W<T>; c < d.C && c < end * W<T>; c += W<T>) body(c, least(d.C - c, W<T>));
  });
}
template <class T>
FASTNN_INLINE Doubles<T> reciprocal_roots(const Doubles<T>& var, double eps) {
  Doubles<T> r;
  for (int i = 0; i < W<T>; ++i) r.at[i] = 1 / __builtin_sqrt(var.at[i] + eps);
  return r;
}
template <class T>
FASTNN_INLINE Doubles<T> product(const Doubles<T>& a, const Doubles<T>& b) {
  Doubles<T> p;
  for (int i = 0; i < W<T>; ++i) p.at[i] = a.at[i] * b.at[i];
  return p;
}
// p + c, where there is a p.
template <class T>
FASTNN_INLINE Doubles<T> channels(const T* p, int64_t c, int64_t lanes, double otherwise) {
  return doubles<T>(p ? p + c : nullptr, lanes, otherwise);
}

// With the batch's own mean and variance, which it returns. x (N, C, S), N * S > 0; weight, bias, mean, var (C,).
template <class T>
void batch_norm(const Array& x, const Array& weight, const Array& bias, const Array& y, const Array& mean,
                const Array& var, double eps) {
  const Planes d = planes(x);
  check_sizes(x.size, y);
  check_sizes(d.C, weight, bias, mean, var);
  FASTNN_CHECK(x.size > 0 || d.C == 0, "no elements to take a mean of");
  const T *px = in<T>(x), *pw = in<T>(weight), *pb = in<T>(bias);
  T *py = out<T>(y), *pm = out<T>(mean), *pv = out<T>(var);
  if (d.S == 1) {
    return each_columns<T>(d, [=](int64_t c, int64_t lanes) {
      Doubles<T> m, v;
      column_moments(px + c, d.N, d.C, lanes, &m, &v);
      store(pm + c, m.rounded(), lanes);
      store(pv + c, v.rounded(), lanes);
      normalise_columns(px + c, py + c, d.N, d.C, lanes, m,
                        product(reciprocal_roots(v, eps), channels(pw, c, lanes, 1)), channels(pb, c, lanes, 0));
    });
  }
  const bool past = planes_stream(py, y.size, d.S);
  parallel_for(d.C, units_a_chunk(d.N * d.S), [=](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const Moments m = moments_of_planes(px + c * d.S, d.N, d.C * d.S, d.S);
      pm[c] = static_cast<T>(m.mean);
      pv[c] = static_cast<T>(m.var);
      const T scale = reciprocal_root<T>(m.var, eps) * (pw ? pw[c] : T(1));
      const double shift = m.correction<T>(double(scale)) + (pb ? double(pb[c]) : 0);
      for (int64_t n = 0; n < d.N; ++n) {
        const int64_t at = (n * d.C + c) * d.S;
        normalise(px + at, py + at, d.S, past, static_cast<T>(m.mean), scale, static_cast<T>(shift));
      }
    }
  });
}

// With given mean and variance.
template <class T>
void batch_norm_apply(const Array& x, const Array& mean, const Array& var, const Array& weight, const Array& bias,
                      const Array& y, double eps) {
  const Planes d = planes(x);
  check_sizes(x.size, y);
  check_sizes(d.C, mean, var, weight, bias);
  const T *px = in<T>(x), *pm = in<T>(mean), *pv = in<T>(var), *pw = in<T>(weight), *pb = in<T>(bias);
  T* py = out<T>(y);
  if (d.S == 1) {
    return each_columns<T>(d, [=](int64_t c, int64_t lanes) {
      const Doubles<T> scale = product(reciprocal_roots(channels(pv, c, lanes, 1), eps), channels(pw, c, lanes, 1));
      normalise_columns(px + c, py + c, d.N, d.C, lanes, channels(pm, c, lanes, 0), scale, channels(pb, c, lanes, 0));
    });
  }
  const Scratch<T> scales(d.C);  // in the order of memory, plane after plane
  T* const scale = scales.get();
  for (int64_t c = 0; c < d.C; ++c) scale[c] = reciprocal_root<T>(double(pv[c]), eps) * (pw ? pw[c] : T(1));
  const bool past = planes_stream(py, y.size, d.S);
  parallel_for(d.N * d.C, units_a_chunk(d.S), [=](int64_t begin, int64_t end) {
    for (int64_t plane = begin; plane < end; ++plane) {
      const int64_t c = plane % d.C;
      normalise(px + plane * d.S, py + plane * d.S, d.S, past, pm[c], scale[c], pb ? pb[c] : T(0));
    }
  });
}

// dbias = sum dy, dweight = sum dy xhat, and with M = N S elements a channel
// dx = w r (dy - dbias / M - xhat dweight / M) where the batch's own moments were used (training), else dx = w r dy.
template <class T>
void batch_norm_backward(const Array& dy, const Array& x, const Array& mean, const Array& var, const Array& weight,
                         const Array& dx, const Array& dweight, const Array& dbias, double eps, int64_t training) {
  const Planes d = planes(x);
  check_sizes(x.size, dy, dx);
  check_sizes(d.C, mean, var, weight, dweight, dbias);
  const T *pdy = in<T>(dy), *px = in<T>(x), *pm = in<T>(mean), *pv = in<T>(var), *pw = in<T>(weight);
  T *pdx = out<T>(dx), *pdw = out<T>(dweight), *pdb = out<T>(dbias);
  if (d.S == 1) {
    return each_columns<T>(d, [=](int64_t c, int64_t lanes) {
      Doubles<T> dw, db;
      columns_backward(pdy + c, px + c, pdx + c, d.N, d.C, lanes, channels(pm, c, lanes, 0).rounded(),
                       reciprocal_roots(channels(pv, c, lanes, 1), eps), channels(pw, c, lanes, 1), training != 0, &dw,
                       &db);
      store(pdw + c, dw.rounded(), lanes);
      store(pdb + c, db.rounded(), lanes);
    });
  }
  const double number = double(d.N) * double(d.S);
  const bool past = planes_stream(pdx, dx.size, d.S);
  parallel_for(d.C, units_a_chunk(d.N * d.S), [=](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const T r = reciprocal_root<T>(double(pv[c]), eps);
      const Vec<T> center = set(pm[c]);
      double sum, product;
      const T *g = pdy + c * d.S, *xs = px + c * d.S;
      sums_of_pieces<T>(d.N, d.C * d.S, d.S, &sum, &product, [=](int64_t at, int64_t m, Vec<T>& a, Vec<T>& b) {
        const Vec<T> v = load(g + at, m);  // zero beyond m
        a = a + v;
        b = b + v * (load(xs + at, m) - center);
      });
      pdb[c] = static_cast<T>(sum);
      pdw[c] = static_cast<T>(product * double(r));
      const T scale = r * (pw ? pw[c] : T(1));
      const T from_mean = training ? static_cast<T>(sum / number) : T(0);
      const T from_var = training ? static_cast<T>(product / number * double(r) * double(r)) : T(0);
      for (int64_t n = 0; n < d.N; ++n) {
        const int64_t at = (n * d.C + c) * d.S;
        write_piece(pdx + at, d.S, past, [=](int64_t i, int64_t m) {
          const Vec<T> centered = load(px + at + i, m) - center;
          return (load(pdy + at + i, m) - set(from_mean) - centered * set(from_var)) * set(scale);
        });
      }
    }
  });
}

struct Rows {
  int64_t rows, n;
};
static Rows rows_of(const Array& x) {
  FASTNN_CHECK(x.ndim == 2, "x must be (rows, n)");
  FASTNN_CHECK(x.shape[1] > 0 || x.shape[0] == 0, "no elements to take a mean of");
  return {x.shape[0], x.shape[1]};
}

// x, y (rows, n); weight, bias (n,); mean, rstd (rows,), which the backward pass needs.
template <class T>
void layer_norm(const Array& x, const Array& weight, const Array& bias, const Array& y, const Array& mean,
                const Array& rstd, double eps) {
  const Rows d = rows_of(x);
  check_sizes(x.size, y);
  check_sizes(d.n, weight, bias);
  check_sizes(d.rows, mean, rstd);
  const T *px = in<T>(x), *pw = in<T>(weight), *pb = in<T>(bias);
  T *py = out<T>(y), *pm = out<T>(mean), *pr = out<T>(rstd);
  parallel_for(d.rows, units_a_chunk(d.n), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T* xs = px + row * d.n;
      T* ys = py + row * d.n;
      const Moments m = moments(xs, 1, 0, d.n);
      const T mean_here = static_cast<T>(m.mean), r = reciprocal_root<T>(m.var, eps);
      const T correction = static_cast<T>(m.correction<T>(double(r)));
      pm[row] = mean_here;
      pr[row] = r;
      each_vector<T>(0, d.n, [=](int64_t i, int64_t lanes) {
        Vec<T> v = (load(xs + i, lanes) - set(mean_here)) * set(r) + set(correction);
        if (pw) v = v * load(pw + i, lanes);
        if (pb) v = v + load(pb + i, lanes);
        store(ys + i, v, lanes);
      });
    }
  });
}

// With g = dy w: dx = r (g - mean of g - xhat mean of g xhat).
template <class T>
void layer_norm_backward(const Array& dy, const Array& x, const Array& mean, const Array& rstd, const Array& weight,
                         const Array& dx) {
  const Rows d = rows_of(x);
  check_sizes(x.size, dy, dx);
  check_sizes(d.rows, mean, rstd);
  check_sizes(d.n, weight);
  const T *pdy = in<T>(dy), *px = in<T>(x), *pm = in<T>(mean), *pr = in<T>(rstd), *pw = in<T>(weight);
  T* pdx = out<T>(dx);
  parallel_for(d.rows, units_a_chunk(d.n), [=](int64_t begin, int64_t end) {
    for (int64_t row = begin; row < end; ++row) {
      const T *dys = pdy + row * d.n, *xs = px + row * d.n;
      const Vec<T> center = set(pm[row]), r = set(pr[row]);
      const auto g = [=](int64_t i, int64_t m) { return pw ? load(dys + i, m) * load(pw + i, m) : load(dys + i, m); };
      const double sum = sum_of<T>(d.n, g);
      const double product =
          sum_of<T>(d.n, [=](int64_t i, int64_t m) { return g(i, m) * ((load(xs + i, m) - center) * r); });
      const Vec<T> from_mean = set(static_cast<T>(sum / double(d.n)));
      const Vec<T> from_var = set(static_cast<T>(product / double(d.n)));
      each_vector<T>(0, d.n, [=](int64_t i, int64_t m) {
        const Vec<T> xhat = (load(xs + i, m) - center) * r;
        store(pdx + row * d.n + i, (g(i, m) - from_mean - xhat * from_var) * r, m);
      });
    }
  });
}

// dweight = sum over rows of dy xhat, dbias = sum over rows of dy: pieces of rows, in the order of memory, each with
// sums of its own, which are then added up.
template <class T>
void layer_norm_backward_weight(const Array& dy, const Array& x, const Array& mean, const Array& rstd,
                                const Array& dweight, const Array& dbias) {
  const Rows d = rows_of(x);
  check_sizes(x.size, dy);
  check_sizes(d.rows, mean, rstd);
  check_sizes(d.n, dweight, dbias);
  const T *pdy = in<T>(dy), *px = in<T>(x), *pm = in<T>(mean), *pr = in<T>(rstd);
  const int64_t rows = most(units_a_chunk(d.n), divide_up(d.rows, 32)), pieces = divide_up(d.rows, rows);
  const Scratch<T> sums(2 * pieces * d.n);
  T* const partial = sums.get();  // (pieces, 2, n)
  parallel_for(d.rows, rows, [=](int64_t begin, int64_t end) {
    T *dw = partial + begin / rows * 2 * d.n, *db = dw + d.n;
    memset(dw, 0, size_t(2 * d.n) * sizeof(T));
    for (int64_t row = begin; row < end; ++row) {
      const T *g = pdy + row * d.n, *xs = px + row * d.n;
      const Vec<T> center = set(pm[row]), scale = set(pr[row]);
      each_vector<T>(0, d.n, [=](int64_t i, int64_t m) {
        const Vec<T> v = load(g + i, m);
        store(dw + i, load(dw + i, m) + v * ((load(xs + i, m) - center) * scale), m);
        store(db + i, load(db + i, m) + v, m);
      });
    }
  });
  T *pdw = out<T>(dweight), *pdb = out<T>(dbias);
  parallel_vectors<T>(d.n, [=](int64_t i, int64_t m) {
    Vec<T> dw{}, db{};
    for (int64_t piece = 0; piece < pieces; ++piece) {
      dw = dw + load(partial + 2 * piece * d.n + i, m);
      db = db + load(partial + (2 * piece + 1) * d.n + i, m);
    }
    store(pdw + i, dw, m);
    store(pdb + i, db, m);
  });
}

FASTNN_KERNELS(norm, FASTNN_KERNEL(batch_norm, "x, weight?, bias? -> y, mean, var | eps"),
               FASTNN_KERNEL(batch_norm_apply, "x, mean, var, weight?, bias? -> y | eps"),
               FASTNN_KERNEL(batch_norm_backward, "dy, x, mean, var, weight? -> dx, dweight, dbias | eps, training"),
               FASTNN_KERNEL(layer_norm, "x, weight?, bias? -> y, mean, rstd | eps"),
               FASTNN_KERNEL(layer_norm_backward, "dy, x, mean, rstd, weight? -> dx"),
               FASTNN_KERNEL(layer_norm_backward_weight, "dy, x, mean, rstd -> dweight, dbias"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
