// Cross-entropy of logits (N, C, S) fused with softmax, for class labels and for class probabilities, and nll_loss.
// Forward keeps, for each of the N * S rows, its largest logit and the sum of exp(x - largest): all that the gradient
// needs besides x. Losses are summed in double, in fixed pieces. Labels are checked before anything is read by them.
#include <stdio.h>

#include "rows.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

// Checks a copy, which alone is used from here on: the caller's array may change meanwhile in another thread.
FASTNN_INLINE const int64_t* check_labels(const Array& target, int64_t classes, int64_t ignore_index, int64_t* t) {
  if (target.size > 0) memcpy(t, target.ptr, size_t(target.size) * sizeof(int64_t));
  int64_t bad = 0;
  for (int64_t i = 0; i < target.size; ++i)
    bad |= (static_cast<uint64_t>(t[i]) >= static_cast<uint64_t>(classes)) & (t[i] != ignore_index);
  if (!bad) return t;
  int64_t i = 0;
  while (static_cast<uint64_t>(t[i]) < static_cast<uint64_t>(classes) || t[i] == ignore_index) ++i;
  char position[MAX_DIMS * 22 + 3] = "";
  int64_t rest = i, size = target.size;
  int used = 0;
  for (int d = 0; d < target.ndim; ++d) {
    size /= target.shape[d];
    used += snprintf(position + used, sizeof position - size_t(used), d ? ", %lld" : "%lld", (long long)(rest / size));
    rest %= size;
  }
  fail(
      "label %lld at position (%s) is out of range: there are %lld classes, so labels are 0..%lld, or ignore_index "
      "%lld",
      (long long)t[i], position, (long long)classes, (long long)classes - 1, (long long)ignore_index);
}

// x is (N, C, S), `rows` arrays hold N * S, weight C.
FASTNN_INLINE void check_sizes(const Array& x, int64_t rows, const Array& weight) {
  FASTNN_CHECK(x.ndim == 3, "logits must be (N, C, S)");
  FASTNN_CHECK(rows == x.shape[0] * x.shape[2], "one label and one loss per row are needed");
  FASTNN_CHECK(!weight || weight.size == x.shape[1], "weight must have one number per class");
}

FASTNN_INLINE double number_in(const Array& divisor) {
  FASTNN_CHECK(divisor.size == 1, "divisor must hold one number");
  return *in<double>(divisor);
}

// y = sum of the losses, divided by the sum of each row's weight if `mean`; the divisor goes to `divisor`.
template <class T, class F>
FASTNN_INLINE void reduce(const Array& loss, const Array& y, const Array& divisor, int64_t mean, const F& weight_of) {
  FASTNN_CHECK(divisor.size == 1, "divisor must hold one number");
  double total = 0, weights = 0;
  if (y) {
    FASTNN_CHECK(y.size == 1, "y must hold one number");
    const int64_t grain = 16384, n = loss.size, chunks = (n + grain - 1) / grain;
    const T* p = in<T>(loss);
    const Scratch<double> partial(2 * chunks);
    double* sums = partial.get();
    parallel_for(n, grain, [=, &weight_of](int64_t begin, int64_t end) {
      double s = 0, w = 0;
      for (int64_t i = begin; i < end; ++i) {
        s += static_cast<double>(p[i]);
        w += static_cast<double>(weight_of(i));
      }
      sums[2 * (begin / grain)] = s;
      sums[2 * (begin / grain) + 1] = w;
    });
    for (int64_t i = 0; i < chunks; ++i) {
      total += sums[2 * i];
      weights += sums[2 * i + 1];
    }
    *out<T>(y) = static_cast<T>(mean ? total / weights : total);
  }
  *out<double>(divisor) = y && mean ? weights : 1.0;
}

// loss = (1 - e) w_t (-log p_t) + e / C sum_c w_c (-log p_c), e = label_smoothing, p = softmax(x), t the label.
template <class T>
void cross_entropy(const Array& x, const Array& target, const Array& weight, const Array& loss, const Array& stats,
                   const Array& y, const Array& divisor, int64_t mean, int64_t ignore_index, double label_smoothing) {
  check_sizes(x, target.size, weight);
  FASTNN_CHECK(loss.size == target.size && stats.size == 2 * target.size, "loss or stats have the wrong size");
  const int64_t C = x.shape[1], S = x.shape[2], rows = target.size;
  const Scratch<int64_t> labels(target.size);
  const int64_t* t = check_labels(target, C, ignore_index, labels.get());
  const T *px = in<T>(x), *w = weight ? in<T>(weight) : nullptr;
  T *pl = out<T>(loss), *tops = out<T>(stats), *sums = tops + rows;
  const T keep = static_cast<T>(1 - label_smoothing), share = static_cast<T>(label_smoothing / double(C));
  const bool smooth = label_smoothing > 0;
  each_unit<T>(x.shape[0], C, S, [=](auto row, int64_t offset, int64_t first, int64_t count) {
    const T* xs = px + offset;
    const Vec<T> top = row.top(xs);
    const Vec<T> sum = row.sum([&](int64_t i) { return exp_negative(row.get(xs, i) - top); });
    const Vec<T> shift = log(sum);
    Vec<T> spread{};
    if (smooth)
      spread = row.sum([&](int64_t i) {
        const Vec<T> nll = shift - (row.get(xs, i) - top);
        return w ? row.common(w, i) * nll : nll;
      });
    for (int64_t j = 0; j < count; ++j) {
      const int64_t label = t[first + j];
      tops[first + j] = top[j];
      sums[first + j] = sum[j];
      if (label == ignore_index) {
        pl[first + j] = 0;
      } else {
        const T nll = shift[j] - (xs[label * S + j] - top[j]), weighted = w ? w[label] * nll : nll;
        pl[first + j] = smooth ? keep * weighted + share * spread[j] : weighted;
      }
    }
  });
  reduce<T>(loss, y, divisor, mean, [=](int64_t i) { return t[i] == ignore_index ? T(0) : w ? w[t[i]] : T(1); });
}

// dx_c = g (p_c (k w_t + h sum(w)) - h w_c - k w_t [c = t]), g = dy / divisor, k = 1 - e, h = e / C; 0 where ignored.
template <class T>
void cross_entropy_backward(const Array& dy, const Array& x, const Array& target, const Array& weight,
                            const Array& stats, const Array& divisor, const Array& dx, int64_t ignore_index,
                            double label_smoothing) {
  check_sizes(x, target.size, weight);
  FASTNN_CHECK(dx.size == x.size && stats.size == 2 * target.size, "dx or stats have the wrong size");
  FASTNN_CHECK(dy.size == 1 || dy.size == target.size, "dy must hold one number, or one per row");
  const int64_t C = x.shape[1], S = x.shape[2], rows = target.size, each = dy.size == 1 ? 0 : 1;
  const Scratch<int64_t> labels(target.size);
  const int64_t* t = check_labels(target, C, ignore_index, labels.get());
  const T *px = in<T>(x), *pd = in<T>(dy), *w = weight ? in<T>(weight) : nullptr;
  const T *tops = in<T>(stats), *sums = tops + rows;
  T* pdx = out<T>(dx);
  double weights = double(C);
  if (w) {
    weights = 0;
    for (int64_t c = 0; c < C; ++c) weights += double(w[c]);
  }
  const double number = number_in(divisor);
  const T keep = static_cast<T>(1 - label_smoothing), share = static_cast<T>(label_smoothing / double(C));
  const T common = static_cast<T>(label_smoothing / double(C) * weights);
  const bool smooth = label_smoothing > 0;
  each_unit<T>(x.shape[0], C, S, [=](auto row, int64_t offset, int64_t first, int64_t count) {
    const T* xs = px + offset;
    T* ds = pdx + offset;
    T top[W<T>] = {}, factor[W<T>] = {}, even[W<T>] = {}, hit[W<T>] = {};  // dx = factor exp(x - top) - even w - hit
    for (int64_t j = 0; j < count; ++j) {
      const int64_t r = first + j, label = t[r];
      if (label == ignore_index) continue;
      const T g = static_cast<T>(double(pd[each * r]) / number), at = keep * (w ? w[label] : T(1));
      top[j] = tops[r];
      factor[j] = g * (at + common) / sums[r];
      even[j] = g * share;
      hit[j] = g * at;
    }
    const Vec<T> tv = row.per_row(top), fv = row.per_row(factor), ev = row.per_row(even);
    for (int64_t i = 0; i < row.vectors; ++i) {
      Vec<T> d = fv * exp_negative(row.get(xs, i) - tv);
      if (smooth) d = d - (w ? ev * row.common(w, i) : ev);
      row.put(ds, i, d);
    }
    for (int64_t j = 0; j < count; ++j) {
      const int64_t label = t[first + j];
      if (label != ignore_index) {
        ds[label * S + j] -= hit[j];
      } else {
        for (int64_t c = 0; c < C; ++c) ds[c * S + j] = 0;
      }
    }
  });
}

// The target as probabilities q (N, C, S): a_c = w_c ((1 - e) q_c + e / C), loss = sum_c a_c (-log p_c).
template <class T>
void cross_entropy_soft(const Array& x, const Array& target, const Array& weight, const Array& loss, const Array& stats,
                        const Array& y, const Array& divisor, int64_t mean, double label_smoothing) {
  check_sizes(x, loss.size, weight);
  FASTNN_CHECK(target.size == x.size && stats.size == 2 * loss.size, "target or stats have the wrong size");
  const int64_t C = x.shape[1], rows = loss.size;
  const T *px = in<T>(x), *pt = in<T>(target), *w = weight ? in<T>(weight) : nullptr;
  T *pl = out<T>(loss), *tops = out<T>(stats), *sums = tops + rows;
  const T keep = static_cast<T>(1 - label_smoothing), share = static_cast<T>(label_smoothing / double(C));
  each_unit<T>(x.shape[0], C, x.shape[2], [=](auto row, int64_t offset, int64_t first, int64_t count) {
    const T *xs = px + offset, *ts = pt + offset;
    const Vec<T> top = row.top(xs);
    const Vec<T> sum = row.sum([&](int64_t i) { return exp_negative(row.get(xs, i) - top); });
    const Vec<T> shift = log(sum);
    const Vec<T> total = row.sum([&](int64_t i) {
      const Vec<T> q = row.get(ts, i) * keep + share, nll = shift - (row.get(xs, i) - top);
      return (w ? row.common(w, i) * q : q) * nll;
    });
    for (int64_t j = 0; j < count; ++j) {
      tops[first + j] = top[j];
      sums[first + j] = sum[j];
      pl[first + j] = total[j];
    }
  });
  reduce<T>(loss, y, divisor, mean, [](int64_t) { return T(1); });
}

// dx_c = g (p_c sum(a) - a_c), g = dy / divisor.
template <class T>
void cross_entropy_soft_backward(const Array& dy, const Array& x, const Array& target, const Array& weight,
                                 const Array& stats, const Array& divisor, const Array& dx, double label_smoothing) {
  const int64_t rows = stats.size / 2, each = dy.size == 1 ? 0 : 1;
  check_sizes(x, rows, weight);
  FASTNN_CHECK(dx.size == x.size && target.size == x.size, "dx or target have the wrong size");
  FASTNN_CHECK(dy.size == 1 || dy.size == rows, "dy must hold one number, or one per row");
  const int64_t C = x.shape[1];
  const double number = number_in(divisor);
  const T *px = in<T>(x), *pt = in<T>(target), *pd = in<T>(dy), *w = weight ? in<T>(weight) : nullptr;
  const T *tops = in<T>(stats), *sums = tops + rows;
  T* pdx = out<T>(dx);
  const T keep = static_cast<T>(1 - label_smoothing), share = static_cast<T>(label_smoothing / double(C));
  each_unit<T>(x.shape[0], C, x.shape[2], [=](auto row, int64_t offset, int64_t first, int64_t count) {
    const T *xs = px + offset, *ts = pt + offset;
    T top[W<T>] = {}, factor[W<T>] = {}, scale[W<T>] = {};
    for (int64_t j = 0; j < count; ++j) {
      const int64_t r = first + j;
      top[j] = tops[r];
      scale[j] = static_cast<T>(double(pd[each * r]) / number);
      factor[j] = scale[j] / sums[r];
    }
    const Vec<T> tv = row.per_row(top), sv = row.per_row(scale);
    const auto a = [&](int64_t i) {
      const Vec<T> q = row.get(ts, i) * keep + share;
      return w ? row.common(w, i) * q : q;
    };
    const Vec<T> fv = row.per_row(factor) * row.sum(a);
    for (int64_t i = 0; i < row.vectors; ++i)
      row.put(pdx + offset, i, fv * exp_negative(row.get(xs, i) - tv) - sv * a(i));
  });
}

// loss = -w_t x_t of log-probabilities x; 0 where ignored.
template <class T>
void nll_loss(const Array& x, const Array& target, const Array& weight, const Array& loss, const Array& y,
              const Array& divisor, int64_t mean, int64_t ignore_index) {
  check_sizes(x, target.size, weight);
  FASTNN_CHECK(loss.size == target.size, "loss has the wrong size");
  const int64_t C = x.shape[1], S = x.shape[2];
  const Scratch<int64_t> labels(target.size);
  const int64_t* t = check_labels(target, C, ignore_index, labels.get());
  const T *px = in<T>(x), *w = weight ? in<T>(weight) : nullptr;
  T* pl = out<T>(loss);
  parallel_for(target.size, 16384, [=](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r)
      pl[r] = t[r] == ignore_index ? T(0) : -px[(r / S * C + t[r]) * S + r % S] * (w ? w[t[r]] : T(1));
  });
  reduce<T>(loss, y, divisor, mean, [=](int64_t i) { return t[i] == ignore_index ? T(0) : w ? w[t[i]] : T(1); });
}

template <class T>
void nll_loss_backward(const Array& dy, const Array& target, const Array& weight, const Array& divisor, const Array& dx,
                       int64_t ignore_index) {
  check_sizes(dx, target.size, weight);
  FASTNN_CHECK(dy.size == 1 || dy.size == target.size, "dy must hold one number, or one per row");
  const int64_t C = dx.shape[1], S = dx.shape[2], each = dy.size == 1 ? 0 : 1;
  const Scratch<int64_t> labels(target.size);
  const int64_t* t = check_labels(target, C, ignore_index, labels.get());
  const double number = number_in(divisor);
  const T *pd = in<T>(dy), *w = weight ? in<T>(weight) : nullptr;
  T* pdx = out<T>(dx);
  parallel_for(dx.shape[0], 16384 / (C * S + 1) + 1, [=](int64_t begin, int64_t end) {
    memset(pdx + begin * C * S, 0, size_t((end - begin) * C * S) * sizeof(T));
    for (int64_t r = begin * S; r < end * S; ++r)
      if (t[r] != ignore_index)
        pdx[(r / S * C + t[r]) * S + r % S] = static_cast<T>(-double(pd[each * r]) / number) * (w ? w[t[r]] : T(1));
  });
}

FASTNN_KERNELS(
    cross_entropy,
    FASTNN_KERNEL(cross_entropy,
                  "x, target:i64, weight? -> loss, stats, y?, divisor:f64 | mean, ignore_index, label_smoothing"),
    FASTNN_KERNEL(cross_entropy_backward,
                  "dy, x, target:i64, weight?, stats, divisor:f64 -> dx | ignore_index, label_smoothing"),
    FASTNN_KERNEL(cross_entropy_soft, "x, target, weight? -> loss, stats, y?, divisor:f64 | mean, label_smoothing"),
    FASTNN_KERNEL(cross_entropy_soft_backward, "dy, x, target, weight?, stats, divisor:f64 -> dx | label_smoothing"),
    FASTNN_KERNEL(nll_loss, "x, target:i64, weight? -> loss, y?, divisor:f64 | mean, ignore_index"),
    FASTNN_KERNEL(nll_loss_backward, "dy, target:i64, weight?, divisor:f64 -> dx | ignore_index"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
