// Batch norm and layer norm, forward and backward; arguments as in csrc/cpu/norm.cpp. Arrays are (N, C, S) for batch
// norm, (rows, n) for layer norm. Moments are taken of x minus the channel's (row's) first element, so that a large
// offset costs no digits; what the mean loses in being rounded to T is kept as `rest` and taken off x too.
// V elements are moved at once: 16 bytes, or 1 element where S (n) or an address does not allow it.
#include "norm_sums.cuh"

template <class T>
FASTNN_INLINE T reciprocal_root(T var, double eps) {
  return T(1) / sqrt(var + static_cast<T>(eps));
}
template <class T>
FASTNN_INLINE T value_or(const T* p, int64_t i, T otherwise) {
  return p ? p[i] : otherwise;
}
template <int V, class T>
FASTNN_INLINE Pack<T, V> pack_or(const T* p, int64_t i, T otherwise) {
  if (p) return load_pack<V>(p + i);
  Pack<T, V> all;
#pragma unroll
  for (int j = 0; j < V; ++j) all.v[j] = otherwise;
  return all;
}

// From the sums of d and d^2, d = x - first, over `number` elements.
template <class T>
struct Moments {
  T mean, rest, var;  // var over all elements, not unbiased
  FASTNN_INLINE Moments(T first, const Pair& sums, double number) {
    const double shift = sums.a / number, exact = static_cast<double>(first) + shift;
    const double spread = sums.b / number - shift * shift;
    mean = static_cast<T>(exact);
    rest = static_cast<T>(exact - static_cast<double>(mean));
    var = static_cast<T>(spread < 0 ? 0 : spread);
  }
};
template <int V, class T>
FASTNN_INLINE void add_moments(const T* x, T first, Pair& sums) {
  const Pack<T, V> v = load_pack<V>(x);
#pragma unroll
  for (int j = 0; j < V; ++j) {
    const double d = static_cast<double>(v.v[j] - first);
    sums.add(d, d * d);
  }
}

// -- batch norm: the moments of each channel --------------------------------------------------------------------------
// Grid (C, pieces). One piece: the results; several: `sums` (pieces, C, 2) for batch_norm_moments.
template <class T, int V>
__global__ void batch_norm_sums(const T* x, double* sums, T* mean, T* var, T* rest, Planes p, int64_t length) {
  const int64_t c = blockIdx.x;
  const T first = x[c * p.S];
  const Pair total = plane_sums<V>(p, length, [=](int64_t at, Pair& s) { add_moments<V>(x + at, first, s); });
  if (threadIdx.x > 0) return;
  if (gridDim.y > 1) {
    sums[2 * (blockIdx.y * p.C + c)] = total.a;
    sums[2 * (blockIdx.y * p.C + c) + 1] = total.b;
    return;
  }
  const Moments<T> m(first, total, static_cast<double>(p.N) * static_cast<double>(p.S));
  mean[c] = m.mean;
  var[c] = m.var;
  rest[c] = m.rest;
}
// The same where S is small: the array as (N, C * S), sums (pieces, C, S, 2).
template <class T>
__global__ void batch_norm_column_sums(const T* x, double* sums, Planes p, int64_t length) {
  const int64_t columns = p.C * p.S;
  column_sums(sums, p.N, columns, length, [=](int64_t row, int64_t column, Pair& s) {
    const double d = static_cast<double>(x[row * columns + column] - x[divide(int(column), p.by_s) * p.S]);
    s.add(d, d * d);
  });
}
// A warp a channel. `each`: sums per channel and piece.
template <class T>
__global__ void batch_norm_moments(const T* x, const double* sums, T* mean, T* var, T* rest, Planes p, int64_t pieces,
                                   int64_t each) {
  const int64_t c = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
  if (c >= p.C) return;
  const Pair total = total_sums(sums, pieces, p.C, each, c);
  if (threadIdx.x % WARP > 0) return;
  const Moments<T> m(x[c * p.S], total, static_cast<double>(p.N) * static_cast<double>(p.S));
  mean[c] = m.mean;
  var[c] = m.var;
  rest[c] = m.rest;
}

// -- batch norm: the result -------------------------------------------------------------------------------------------
// y = (x - mean) / sqrt(var + eps) * weight + bias; weight, bias and rest may be missing. `by_s` divides by S / V, the
// packs of a plane; a thread has one.
template <class T, int V>
__global__ void batch_norm_apply(const T* x, const T* mean, const T* var, const T* rest, const T* weight, const T* bias,
                                 T* y, int packs, int C, int64_t by_s, int64_t by_c, double eps) {
  const int i = own_number();
  if (!below(i, packs)) return;
  const int plane = divide(i, by_s), c = plane - divide(plane, by_c) * C;
  Pack<T, V> v = load_pack<V>(x + int64_t(i) * V);
  const T center = mean[c], less = value_or(rest, c, T(0)), shift = value_or(bias, c, T(0));
  const T scale = reciprocal_root(var[c], eps) * value_or(weight, c, T(1));
#pragma unroll
  for (int j = 0; j < V; ++j) v.v[j] = (v.v[j] - center - less) * scale + shift;
  store_pack(y + int64_t(i) * V, v);
}

// -- batch norm: the gradient -----------------------------------------------------------------------------------------
// dbias = sum dy, dweight = sum dy xhat, from the sums of dy and dy (x - mean). Grid and sums as in batch_norm_sums.
template <class T, int V>
__global__ void batch_norm_backward_sums(const T* dy, const T* x, const T* mean, const T* var, double* sums, T* dweight,
                                         T* dbias, Planes p, int64_t length, double eps) {
  const int64_t c = blockIdx.x;
  const T center = mean[c];
  const Pair total = plane_sums<V>(p, length, [=](int64_t at, Pair& s) {
    const Pack<T, V> g = load_pack<V>(dy + at), v = load_pack<V>(x + at);
#pragma unroll
    for (int j = 0; j < V; ++j)
      s.add(static_cast<double>(g.v[j]), static_cast<double>(g.v[j]) * static_cast<double>(v.v[j] - center));
  });
  if (threadIdx.x > 0) return;
  if (gridDim.y > 1) {
    sums[2 * (blockIdx.y * p.C + c)] = total.a;
    sums[2 * (blockIdx.y * p.C + c) + 1] = total.b;
    return;
  }
  dweight[c] = static_cast<T>(total.b) * reciprocal_root(var[c], eps);
  dbias[c] = static_cast<T>(total.a);
}
template <class T>
__global__ void batch_norm_backward_column_sums(const T* dy, const T* x, const T* mean, double* sums, Planes p,
                                                int64_t length) {
  const int64_t columns = p.C * p.S;
  column_sums(sums, p.N, columns, length, [=](int64_t row, int64_t column, Pair& s) {
    const double g = static_cast<double>(dy[row * columns + column]);
    s.add(g, g * static_cast<double>(x[row * columns + column] - mean[divide(int(column), p.by_s)]));
  });
}
template <class T>
__global__ void batch_norm_backward_weight(const double* sums, const T* var, T* dweight, T* dbias, Planes p,
                                           int64_t pieces, int64_t each, double eps) {
  const int64_t c = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
  if (c >= p.C) return;
  const Pair total = total_sums(sums, pieces, p.C, each, c);
  if (threadIdx.x % WARP > 0) return;
  dweight[c] = static_cast<T>(total.b) * reciprocal_root(var[c], eps);
  dbias[c] = static_cast<T>(total.a);
}

// With M = N S elements a channel, dx = weight r (dy - dbias / M - xhat dweight / M) where the batch's own moments were
// used (training), else dx = weight r dy. Launched as batch_norm_apply.
template <class T, int V>
__global__ void batch_norm_backward(const T* dy, const T* x, const T* mean, const T* var, const T* weight,
                                    const T* dweight, const T* dbias, T* dx, int packs, int C, int64_t by_s,
                                    int64_t by_c, double number, double eps, int training) {
  const int i = own_number();
  if (!below(i, packs)) return;
  const int plane = divide(i, by_s), c = plane - divide(plane, by_c) * C;
  const Pack<T, V> g = load_pack<V>(dy + int64_t(i) * V);
  Pack<T, V> v = load_pack<V>(x + int64_t(i) * V);
  const T center = mean[c], r = reciprocal_root(var[c], eps), scale = r * value_or(weight, c, T(1));
  const T from_mean = training ? dbias[c] / static_cast<T>(number) : T(0);
  const T from_var = training ? dweight[c] / static_cast<T>(number) * r : T(0);
#pragma unroll
  for (int j = 0; j < V; ++j) v.v[j] = (g.v[j] - from_mean - (v.v[j] - center) * from_var) * scale;
  store_pack(dx + int64_t(i) * V, v);
}

// -- layer norm -------------------------------------------------------------------------------------------------------
// A row by LANES threads: a warp, or a block where rows are long. Every thread walks over its packs of the row.
template <int LANES>
FASTNN_INLINE int64_t own_row() {
  return LANES == WARP ? (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP : int64_t(blockIdx.x);
}
template <int LANES>
FASTNN_INLINE double row_sum(double value) {
  if constexpr (LANES == WARP) return warp_reduce(value, Sum{});
  return block_reduce(value, Sum{}, 0.0);
}
template <int LANES, int V, class F>
FASTNN_INLINE void walk_row(int n, const F& body) {
  walk(int(threadIdx.x % LANES) * V, n, LANES * V, body);
}

// x, y (rows, n); weight, bias (n,), which may be missing; mean, rstd (rows,).
template <class T, int V, int LANES>
__global__ void layer_norm(const T* x, const T* weight, const T* bias, T* y, T* mean, T* rstd, int64_t rows, int n,
                           double eps) {
  const int64_t row = own_row<LANES>();
  if (row >= rows) return;
  const T *xs = x + row * n, first = xs[0];
  T* ys = y + row * n;
  Pair sums{};
  walk_row<LANES, V>(n, [&](int i) { add_moments<V>(xs + i, first, sums); });
  sums = {row_sum<LANES>(sums.a), row_sum<LANES>(sums.b)};
  const Moments<T> m(first, sums, static_cast<double>(n));
  const T r = reciprocal_root(m.var, eps);
  if (threadIdx.x % LANES == 0) {
    mean[row] = m.mean;
    rstd[row] = r;
  }
  walk_row<LANES, V>(n, [&](int i) {
    Pack<T, V> v = load_pack<V>(xs + i);
    const Pack<T, V> w = pack_or<V>(weight, i, T(1)), b = pack_or<V>(bias, i, T(0));
#pragma unroll
    for (int j = 0; j < V; ++j) v.v[j] = (v.v[j] - m.mean - m.rest) * r * w.v[j] + b.v[j];
    store_pack(ys + i, v);
  });
}

// With g = dy w: dx = r (g - mean of g - xhat mean of g xhat).
template <class T, int V, int LANES>
__global__ void layer_norm_backward(const T* dy, const T* x, const T* mean, const T* rstd, const T* weight, T* dx,
                                    int64_t rows, int n) {
  const int64_t row = own_row<LANES>();
  if (row >= rows) return;
  const T *dys = dy + row * n, *xs = x + row * n, center = mean[row], r = rstd[row];
  Pair sums{};
  walk_row<LANES, V>(n, [&](int i) {
    const Pack<T, V> g = load_pack<V>(dys + i), v = load_pack<V>(xs + i), w = pack_or<V>(weight, i, T(1));
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const double weighted = static_cast<double>(g.v[j] * w.v[j]);
      sums.add(weighted, weighted * static_cast<double>((v.v[j] - center) * r));
    }
  });
  const T from_mean = static_cast<T>(row_sum<LANES>(sums.a) / static_cast<double>(n));
  const T from_var = static_cast<T>(row_sum<LANES>(sums.b) / static_cast<double>(n));
  walk_row<LANES, V>(n, [&](int i) {
    const Pack<T, V> g = load_pack<V>(dys + i), w = pack_or<V>(weight, i, T(1));
    Pack<T, V> v = load_pack<V>(xs + i);
#pragma unroll
    for (int j = 0; j < V; ++j) {
      const T weighted = g.v[j] * w.v[j];
      v.v[j] = (weighted - from_mean - (v.v[j] - center) * r * from_var) * r;
    }
    store_pack(dx + row * n + i, v);
  });
}

// dweight = sum over rows of dy xhat, dbias = sum over rows of dy; then the pieces' sums, a warp a column.
template <class T>
__global__ void layer_norm_column_sums(const T* dy, const T* x, const T* mean, const T* rstd, double* sums,
                                       int64_t rows, int64_t n, int64_t length) {
  column_sums(sums, rows, n, length, [=](int64_t row, int64_t column, Pair& s) {
    const double g = static_cast<double>(dy[row * n + column]);
    s.add(g, g * static_cast<double>((x[row * n + column] - mean[row]) * rstd[row]));
  });
}
template <class T>
__global__ void layer_norm_backward_weight(const double* sums, T* dweight, T* dbias, int64_t n, int64_t pieces) {
  const int64_t column = (int64_t(blockIdx.x) * blockDim.x + threadIdx.x) / WARP;
  if (column >= n) return;
  const Pair total = total_sums(sums, pieces, n, 1, column);
  if (threadIdx.x % WARP > 0) return;
  dweight[column] = static_cast<T>(total.b);
  dbias[column] = static_cast<T>(total.a);
}
