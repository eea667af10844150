// Losses per element and their gradients, in one pass each: loss(x, target) times a weight, as they are or summed up
// over a divisor. What is computed stands in ../formulas.h. Next: cross_entropy.cpp, whose rows belong together.
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {
#include "../formulas.h"

// Their numbers are those of kernels/loss.py: in the order of the list.
#define LOSS_NUMBER(name) name##_number,
enum Loss : int64_t { FASTNN_LOSSES(LOSS_NUMBER) LOSSES };
#undef LOSS_NUMBER

// One loss as functions of vectors.
#define LOSS_FORMULAS(name)                              \
  struct name##_formulas {                               \
    static constexpr Loss number = name##_number;        \
    template <class V>                                   \
    static FASTNN_INLINE V loss(V x, V t, V p) {         \
      return name##_loss(x, t, p);                       \
    }                                                    \
    template <class V>                                   \
    static FASTNN_INLINE V slope(V x, V t, V p) {        \
      return name##_slope(x, t, p);                      \
    }                                                    \
    template <class V>                                   \
    static FASTNN_INLINE V target_slope(V x, V t, V p) { \
      return name##_target_slope(x, t, p);               \
    }                                                    \
  };
FASTNN_LOSSES(LOSS_FORMULAS)
#undef LOSS_FORMULAS

// The arrays of a call, and vectors of them.
template <class T>
struct LossArrays {
  const T *x, *target, *weight, *positive;
  T parameter;
  FASTNN_INLINE Vec<T> weight_at(int64_t i, int64_t n) const { return weight ? load(weight + i, n) : set(T(1)); }
  // The parameter: a number, but for bce_logits one for each element where they are given.
  template <class L>
  FASTNN_INLINE Vec<T> parameter_at(int64_t i, int64_t n) const {
    return L::number == bce_logits_number && positive ? load(positive + i, n) : set(parameter);
  }
};
template <class T>
static LossArrays<T> loss_arrays(const Array& x, const Array& target, const Array& weight, const Array& positive,
                                 double parameter) {
  FASTNN_CHECK(target.size == x.size && (!weight || weight.size == x.size) && (!positive || positive.size == x.size),
               "x, target and weights differ in size");
  return {in<T>(x), in<T>(target), weight ? in<T>(weight) : nullptr, positive ? in<T>(positive) : nullptr,
          T(parameter)};
}

template <class T, class L>
static void loss_each(const LossArrays<T>& a, T* y, int64_t size) {
  parallel_write(y, size, [=](int64_t i, int64_t n) {
    return L::loss(load(a.x + i, n), load(a.target + i, n), a.template parameter_at<L>(i, n)) * a.weight_at(i, n);
  });
}

// Summed up lane by lane in runs that keep float's digits, the runs in double, chunk after chunk.
template <class T, class L>
static double loss_sum(const LossArrays<T>& a, int64_t size) {
  constexpr int64_t RUN = 4096;
  const Scratch<double> sums(divide_up(size, GRAIN));
  double* const partial = sums.get();
  parallel_for(size, GRAIN, [=](int64_t begin, int64_t end) {
    double total = 0;
    for (int64_t from = begin; from < end; from += RUN) {
      Vec<T> sum{};
      each_vector<T>(from, least(from + RUN, end), [&](int64_t i, int64_t n) {
        const Vec<T> loss = L::loss(load(a.x + i, n), load(a.target + i, n), a.template parameter_at<L>(i, n));
        Vec<T> v = loss * a.weight_at(i, n);
        if (n < W<T>) {  // what a formula makes of lanes that are not there is no part of the sum
          T lanes[W<T>];
          store(lanes, v);
          v = load_n(lanes, n);
        }
        sum += v;
      });
      total += double(sum_lanes<T>(sum));
    }
    partial[begin / GRAIN] = total;
  });
  double total = 0;
  for (int64_t chunk = 0; chunk < divide_up(size, GRAIN); ++chunk) total += partial[chunk];
  return total;
}

template <class T, class L>
static void loss_backward(const LossArrays<T>& a, const T* dy, bool one, double divisor, T* dx, T* dtarget,
                          int64_t size) {
  const Vec<T> common = set(one ? T(double(*dy) / divisor) : T(0));
  parallel_vectors<T>(size, [=](int64_t i, int64_t n) {
    const Vec<T> x = load(a.x + i, n), t = load(a.target + i, n), p = a.template parameter_at<L>(i, n);
    const Vec<T> g = (one ? common : load(dy + i, n)) * a.weight_at(i, n);
    if (dx) store(dx + i, g * L::slope(x, t, p), n);
    if (dtarget) store(dtarget + i, g * L::target_slope(x, t, p), n);
  });
}

// Calls body(formulas) of the loss of that number.
template <class F>
FASTNN_INLINE void with_loss(int64_t kind, const F& body) {
  switch (kind) {
#define LOSS_CASE(name) \
  case name##_number: return body(name##_formulas{});
    FASTNN_LOSSES(LOSS_CASE)
#undef LOSS_CASE
    default: fail("no loss has the number %lld", static_cast<long long>(kind));
  }
}

// y: a loss for each element, or, if `reduced`, their sum over `divisor`.
template <class T>
void pointwise_loss(const Array& x, const Array& target, const Array& weight, const Array& positive, const Array& y,
                    int64_t kind, int64_t reduced, double parameter, double divisor) {
  const LossArrays<T> a = loss_arrays<T>(x, target, weight, positive, parameter);
  FASTNN_CHECK(y.size == (reduced ? 1 : x.size), "y must hold one number, or one for each element");
  with_loss(kind, [&](auto formulas) {
    using L = decltype(formulas);
    if (reduced)
      *out<T>(y) = T(loss_sum<T, L>(a, x.size) / divisor);
    else
      loss_each<T, L>(a, out<T>(y), x.size);
  });
}

// dx = dy / divisor * weight * slope, dy one number if `reduced`; dtarget alike.
template <class T>
void pointwise_loss_backward(const Array& dy, const Array& x, const Array& target, const Array& weight,
                             const Array& positive, const Array& dx, const Array& dtarget, int64_t kind,
                             int64_t reduced, double parameter, double divisor) {
  const LossArrays<T> a = loss_arrays<T>(x, target, weight, positive, parameter);
  FASTNN_CHECK(dy.size == (reduced ? 1 : x.size), "dy must hold one number, or one for each element");
  FASTNN_CHECK((!dx || dx.size == x.size) && (!dtarget || dtarget.size == x.size), "x and its gradient differ in size");
  with_loss(kind, [&](auto formulas) {
    loss_backward<T, decltype(formulas)>(a, in<T>(dy), reduced != 0, divisor, dx ? out<T>(dx) : nullptr,
                                         dtarget ? out<T>(dtarget) : nullptr, x.size);
  });
}

FASTNN_KERNELS(loss,
               FASTNN_KERNEL(pointwise_loss, "x, target, weight?, positive? -> y | kind, reduced, parameter, divisor"),
               FASTNN_KERNEL(pointwise_loss_backward,
                             "dy, x, target, weight?, positive? -> dx?, dtarget? | kind, reduced, parameter, divisor"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
