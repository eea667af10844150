// Batch norm and layer norm, forward and backward. Arrays are (N, C, S) for batch norm, (rows, n) for layer norm.
// Means are taken of x minus the channel's (row's) first element, so that a large offset costs no digits; sums run in
// vector lanes within a plane, and over planes in double, in an order fixed by the shape. local_response.cpp is beside.
#include "math.h"
#include "norm_columns.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int64_t NORM_GRAIN = 32768;  // elements a chunk

FASTNN_INLINE int64_t units_a_chunk(int64_t size) { return size > 0 ? (NORM_GRAIN + size - 1) / size : NORM_GRAIN; }

// Calls f(i, lanes) for vectors that cover [0, n).
template <class T, class F>
FASTNN_INLINE void each_vector(int64_t n, const F& f) {
  int64_t i = 0;
  for (; i + W<T> <= n; i += W<T>) f(i, int64_t(W<T>));
  if (i < n) f(i, n - i);
}
template <class T>
FASTNN_INLINE Vec<T> get(const T* p, int64_t lanes) {
  return lanes == W<T> ? load(p) : load_n(p, lanes);
}
template <class T>
FASTNN_INLINE void put(T* p, Vec<T> v, int64_t lanes) {
  if (lanes == W<T>) return store(p, v);
  store_n(p, v, lanes);
}

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
  double sum = 0, squares = 0;
  for (int64_t p = 0; p < count; ++p)
    sum += sum_of<T>(n, [=](int64_t i, int64_t m) { return get(x + p * step + i, m) - first; });
  const double mean = double(x[0]) + sum / number;
  const Vec<T> center = set(static_cast<T>(mean));
  for (int64_t p = 0; p < count; ++p)
    squares += sum_of<T>(n, [=](int64_t i, int64_t m) {
      const Vec<T> d = get(x + p * step + i, m) - center;
      return d * d;
    });
  const double rest = mean - double(static_cast<T>(mean)), var = squares / number - rest * rest;
  return {mean, var < 0 ? 0 : var};
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

// y = (x - mean) * scale + shift for channel c.
template <class T>
FASTNN_INLINE void normalise_channel(const Planes& d, int64_t c, const T* x, T* y, T mean, T scale, T shift) {
  for (int64_t n = 0; n < d.N; ++n) {
    const int64_t at = (n * d.C + c) * d.S;
    each_vector<T>(d.S, [=](int64_t i, int64_t m) {
      put(y + at + i, (get(x + at + i, m) - set(mean)) * set(scale) + set(shift), m);
    });
  }
}

// Calls body(c, lanes) for each W channels of (N, C), where `d.S` is 1. See norm_columns.h.
template <class T, class F>
FASTNN_INLINE void each_columns(const Planes& d, const F& body) {
  parallel_for((d.C + W<T> - 1) / W<T>, units_a_chunk(d.N * W<T>), [&](int64_t begin, int64_t end) {
    for (int64_t c = begin * W<T>; c < d.C && c < end * W<T>; c += W<T>) body(c, d.C - c < W<T> ? d.C - c : W<T>);
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
      put(pm + c, m.rounded(), lanes);
      put(pv + c, v.rounded(), lanes);
      normalise_columns(px + c, py + c, d.N, d.C, lanes, m,
                        product(reciprocal_roots(v, eps), channels(pw, c, lanes, 1)), channels(pb, c, lanes, 0));
    });
  }
  parallel_for(d.C, units_a_chunk(d.N * d.S), [=](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const Moments m = moments(px + c * d.S, d.N, d.C * d.S, d.S);
      pm[c] = static_cast<T>(m.mean);
      pv[c] = static_cast<T>(m.var);
      const T scale = reciprocal_root<T>(m.var, eps) * (pw ? pw[c] : T(1));
      const double shift = m.correction<T>(double(scale)) + (pb ? double(pb[c]) : 0);
      normalise_channel(d, c, px, py, pm[c], scale, static_cast<T>(shift));
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
  parallel_for(d.C, units_a_chunk(d.N * d.S), [=](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const T scale = reciprocal_root<T>(double(pv[c]), eps) * (pw ? pw[c] : T(1));
      normalise_channel(d, c, px, py, pm[c], scale, pb ? pb[c] : T(0));
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
      put(pdw + c, dw.rounded(), lanes);
      put(pdb + c, db.rounded(), lanes);
    });
  }
  const double number = double(d.N) * double(d.S);
  parallel_for(d.C, units_a_chunk(d.N * d.S), [=](int64_t begin, int64_t end) {
    for (int64_t c = begin; c < end; ++c) {
      const T r = reciprocal_root<T>(double(pv[c]), eps);
      const Vec<T> center = set(pm[c]);
      double sum = 0, product = 0;
      for (int64_t n = 0; n < d.N; ++n) {
        const int64_t at = (n * d.C + c) * d.S;
        sum += sum_of<T>(d.S, [=](int64_t i, int64_t m) { return get(pdy + at + i, m); });
        product +=
            sum_of<T>(d.S, [=](int64_t i, int64_t m) { return get(pdy + at + i, m) * (get(px + at + i, m) - center); });
      }
      pdb[c] = static_cast<T>(sum);
      pdw[c] = static_cast<T>(product * double(r));
      const T scale = r * (pw ? pw[c] : T(1));
      const T from_mean = training ? static_cast<T>(sum / number) : T(0);
      const T from_var = training ? static_cast<T>(product / number * double(r) * double(r)) : T(0);
      for (int64_t n = 0; n < d.N; ++n) {
        const int64_t at = (n * d.C + c) * d.S;
        each_vector<T>(d.S, [=](int64_t i, int64_t m) {
          const Vec<T> centered = get(px + at + i, m) - center;
          put(pdx + at + i, (get(pdy + at + i, m) - set(from_mean) - centered * set(from_var)) * set(scale), m);
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
      each_vector<T>(d.n, [=](int64_t i, int64_t lanes) {
        Vec<T> v = (get(xs + i, lanes) - set(mean_here)) * set(r) + set(correction);
        if (pw) v = v * get(pw + i, lanes);
        if (pb) v = v + get(pb + i, lanes);
        put(ys + i, v, lanes);
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
      const auto g = [=](int64_t i, int64_t m) { return pw ? get(dys + i, m) * get(pw + i, m) : get(dys + i, m); };
      const double sum = sum_of<T>(d.n, g);
      const double product =
          sum_of<T>(d.n, [=](int64_t i, int64_t m) { return g(i, m) * ((get(xs + i, m) - center) * r); });
      const Vec<T> from_mean = set(static_cast<T>(sum / double(d.n)));
      const Vec<T> from_var = set(static_cast<T>(product / double(d.n)));
      each_vector<T>(d.n, [=](int64_t i, int64_t m) {
        const Vec<T> xhat = (get(xs + i, m) - center) * r;
        put(pdx + row * d.n + i, (g(i, m) - from_mean - xhat * from_var) * r, m);
      });
    }
  });
}

// dweight = sum over rows of dy xhat, dbias = sum over rows of dy: cut by columns, rows in order.
template <class T>
void layer_norm_backward_weight(const Array& dy, const Array& x, const Array& mean, const Array& rstd,
                                const Array& dweight, const Array& dbias) {
  const Rows d = rows_of(x);
  check_sizes(x.size, dy);
  check_sizes(d.rows, mean, rstd);
  check_sizes(d.n, dweight, dbias);
  const T *pdy = in<T>(dy), *px = in<T>(x), *pm = in<T>(mean), *pr = in<T>(rstd);
  T *pdw = out<T>(dweight), *pdb = out<T>(dbias);
  parallel_for((d.n + W<T> - 1) / W<T>, units_a_chunk(d.rows * W<T>), [=](int64_t begin, int64_t end) {
    for (int64_t v = begin; v < end; ++v) {
      const int64_t i = v * W<T>, m = d.n - i < W<T> ? d.n - i : W<T>;
      Vec<T> dw{}, db{};
      for (int64_t row = 0; row < d.rows; ++row) {
        const Vec<T> g = get(pdy + row * d.n + i, m);
        dw = dw + g * ((get(px + row * d.n + i, m) - set(pm[row])) * set(pr[row]));
        db = db + g;
      }
      put(pdw + i, dw, m);
      put(pdb + i, db, m);
    }
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
