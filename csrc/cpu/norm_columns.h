// Batch norm of (N, C), without further dimensions: W neighbouring channels at a time, a lane each, row after row.
// Sums run in T over 64 rows, then in double. Used by norm.cpp, whose kernels walk (N, C, S) channel by channel.
#pragma once
#include "simd.h"

namespace fastnn {
namespace FASTNN_ISA {

// One double for each lane.
template <class T>
struct Doubles {
  double at[W<T>];
  FASTNN_INLINE Vec<T> rounded() const {
    T lanes[W<T>];
    for (int i = 0; i < W<T>; ++i) lanes[i] = static_cast<T>(at[i]);
    return load(lanes);
  }
};

// p[0 .. lanes), or `otherwise` where there is no p and beyond.
template <class T>
FASTNN_INLINE Doubles<T> doubles(const T* p, int64_t lanes, double otherwise) {
  Doubles<T> d;
  for (int i = 0; i < W<T>; ++i) d.at[i] = p && i < lanes ? static_cast<double>(p[i]) : otherwise;
  return d;
}

// The sum over rows of f(offset of the row).
template <class T, class F>
FASTNN_INLINE Doubles<T> sum_of_rows(int64_t rows, int64_t step, const F& f) {
  Doubles<T> total{};
  for (int64_t row = 0; row < rows;) {
    Vec<T> part{};
    const int64_t end = least(rows, row + 64);
    for (; row < end; ++row) part = part + f(row * step);
    for (int i = 0; i < W<T>; ++i) total.at[i] += static_cast<double>(part[i]);
  }
  return total;
}

// Of `rows` rows of `lanes` channels, `step` apart. The mean is of x minus the first row, as in norm.cpp.
template <class T>
FASTNN_INLINE void column_moments(const T* x, int64_t rows, int64_t step, int64_t lanes, Doubles<T>* mean,
                                  Doubles<T>* var) {
  const auto get = [=](int64_t at) { return load(x + at, lanes); };
  const Vec<T> first = get(0);
  *mean = sum_of_rows<T>(rows, step, [&](int64_t at) { return get(at) - first; });
  for (int i = 0; i < W<T>; ++i) mean->at[i] = static_cast<double>(first[i]) + mean->at[i] / static_cast<double>(rows);
  const Vec<T> center = mean->rounded();
  *var = sum_of_rows<T>(rows, step, [&](int64_t at) {
    const Vec<T> d = get(at) - center;
    return d * d;
  });
  for (int i = 0; i < W<T>; ++i) {
    const double rest = mean->at[i] - static_cast<double>(center[i]);
    const double v = var->at[i] / static_cast<double>(rows) - rest * rest;
    var->at[i] = v < 0 ? 0 : v;
  }
}

// y = (x - mean) * scale + shift; what rounding takes from the mean goes into the shift.
template <class T>
FASTNN_INLINE void normalise_columns(const T* x, T* y, int64_t rows, int64_t step, int64_t lanes,
                                     const Doubles<T>& mean, const Doubles<T>& scale, const Doubles<T>& shift) {
  const Vec<T> center = mean.rounded(), factor = scale.rounded();
  Doubles<T> rest;
  for (int i = 0; i < W<T>; ++i) rest.at[i] = shift.at[i] - (mean.at[i] - static_cast<double>(center[i])) * scale.at[i];
  const Vec<T> offset = rest.rounded();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * step;
    store(y + at, (load(x + at, lanes) - center) * factor + offset, lanes);
  }
}

// dbias and dweight as sums; dx = scale (dy - from_mean - (x - mean) from_var), as batch_norm_backward has it.
template <class T>
FASTNN_INLINE void columns_backward(const T* dy, const T* x, T* dx, int64_t rows, int64_t step, int64_t lanes,
                                    Vec<T> center, const Doubles<T>& r, const Doubles<T>& weight, bool training,
                                    Doubles<T>* dweight, Doubles<T>* dbias) {
  const auto get = [=](const T* p) { return load(p, lanes); };
  *dbias = sum_of_rows<T>(rows, step, [&](int64_t at) { return get(dy + at); });
  const Doubles<T> product =
      sum_of_rows<T>(rows, step, [&](int64_t at) { return get(dy + at) * (get(x + at) - center); });
  Doubles<T> scale, mean, slope;
  for (int i = 0; i < W<T>; ++i) {
    dweight->at[i] = product.at[i] * r.at[i];
    scale.at[i] = r.at[i] * weight.at[i];
    mean.at[i] = training ? dbias->at[i] / static_cast<double>(rows) : 0;
    slope.at[i] = training ? product.at[i] / static_cast<double>(rows) * r.at[i] * r.at[i] : 0;
  }
  const Vec<T> factor = scale.rounded(), from_mean = mean.rounded(), from_var = slope.rounded();
  for (int64_t row = 0; row < rows; ++row) {
    const int64_t at = row * step;
    const Vec<T> v = (get(dy + at) - from_mean - (get(x + at) - center) * from_var) * factor;
    store(dx + at, v, lanes);
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
