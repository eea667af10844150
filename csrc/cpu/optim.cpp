// Optimizer updates, one pass over memory: each reads the gradient and writes the parameter and its state in place.
// What is computed stands in ../formulas.h; here are only the loops and the rows of the kernel table.
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {
#include "../formulas.h"

constexpr int64_t GRAIN = 16384;  // elements a chunk: about 10 us of memory traffic, with three to five arrays

// n lanes from p; n is the constant W in the main loop, which then has no test.
template <class T>
FASTNN_INLINE Vec<T> get(const T* p, int64_t n) {
  return n == W<T> ? load(p) : load_n(p, n);
}
template <class T>
FASTNN_INLINE void put(T* p, Vec<T> v, int64_t n) {
  n == W<T> ? store(p, v) : store_n(p, v, n);
}

// Calls body(i, n) for the n lanes at each i of [0, size).
template <class T, class F>
FASTNN_INLINE void each_vector(int64_t size, const F& body) {
  parallel_for(size, GRAIN, [&](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + W<T> <= end; i += W<T>) body(i, int64_t(W<T>));
    if (i < end) body(i, end - i);
  });
}

// The gradient of what is minimised: with its sign turned to maximise, and with weight decay as an L2 penalty.
template <class T>
FASTNN_INLINE Vec<T> gradient(Vec<T> dw, Vec<T> w, double decay, int64_t maximize) {
  if (maximize) dw = -dw;
  return decay != 0 ? dw + w * T(decay) : dw;
}

template <class T>
void sgd_step(const Array& dw, const Array& w, const Array& buffer, double lr, double momentum, double dampening,
              double weight_decay, int64_t nesterov, int64_t maximize, int64_t first) {
  FASTNN_CHECK(dw.size == w.size && (!buffer || buffer.size == w.size), "dw, w and buffer differ in size");
  const T* pd = in<T>(dw);
  T *pw = out<T>(w), *pb = buffer ? out<T>(buffer) : nullptr;
  const Vec<T> rate = set(T(lr)), keep = set(T(momentum)), rest = set(T(1 - dampening));
  each_vector<T>(w.size, [=](int64_t i, int64_t n) __attribute__((always_inline)) {
    const Vec<T> weight = get(pw + i, n);
    Vec<T> g = gradient<T>(get(pd + i, n), weight, weight_decay, maximize);
    if (pb) {
      const Vec<T> b = first ? g : momentum_of(get(pb + i, n), g, keep, rest);
      put(pb + i, b, n);
      g = nesterov ? g + b * keep : b;
    }
    put(pw + i, descend(weight, g, rate), n);
  });
}

// step counts from 1. decoupled: AdamW's weight decay, on the weight itself. mean, square and largest (AMSGrad's
// maximum of square) are the state.
template <class T>
void adam_step(const Array& dw, const Array& w, const Array& mean, const Array& square, const Array& largest, double lr,
               double beta1, double beta2, double eps, double weight_decay, int64_t decoupled, int64_t maximize,
               int64_t step) {
  FASTNN_CHECK(
      dw.size == w.size && mean.size == w.size && square.size == w.size && (!largest || largest.size == w.size),
      "dw, w, mean, square and largest differ in size");
  FASTNN_CHECK(step >= 1, "step counts from 1, got %lld", static_cast<long long>(step));
  const T* pd = in<T>(dw);
  T *pw = out<T>(w), *pm = out<T>(mean), *pv = out<T>(square), *pl = largest ? out<T>(largest) : nullptr;
  const double correction1 = 1 - __builtin_pow(beta1, double(step));
  const double correction2 = 1 - __builtin_pow(beta2, double(step));
  const Vec<T> rate1 = set(T(1 - beta1)), keep2 = set(T(beta2)), rate2 = set(T(1 - beta2)), epsilon = set(T(eps));
  const Vec<T> size = set(T(lr / correction1)), scale = set(T(1 / __builtin_sqrt(correction2)));
  const T shrink = T(decoupled ? 1 - lr * weight_decay : 1);
  const double penalty = decoupled ? 0 : weight_decay;
  each_vector<T>(w.size, [=](int64_t i, int64_t n) __attribute__((always_inline)) {
    Vec<T> weight = get(pw + i, n);
    const Vec<T> g = gradient<T>(get(pd + i, n), weight, penalty, maximize);
    weight = weight * shrink;
    const Vec<T> m = adam_mean(get(pm + i, n), g, rate1);
    Vec<T> v = adam_square(get(pv + i, n), g, keep2, rate2);
    put(pm + i, m, n);
    put(pv + i, v, n);
    if (pl) {
      v = maximum(get(pl + i, n), v);
      put(pl + i, v, n);
    }
    put(pw + i, adam_update(weight, m, sqrt(v), size, scale, epsilon), n);
  });
}

FASTNN_KERNELS(optim,
               FASTNN_KERNEL(sgd_step,
                             "dw -> w, buffer? | lr, momentum, dampening, weight_decay, nesterov, maximize, first"),
               FASTNN_KERNEL(adam_step,
                             "dw -> w, mean, square, largest? | lr, beta1, beta2, eps, weight_decay, decoupled, "
                             "maximize, step"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
