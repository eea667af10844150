// Optimizer updates of all parameters in one pass over memory: each reads the gradients and writes the parameters and
// their state in place. And what comes before an update: the norm of all gradients, and scaling them to a smaller one.
// What is computed stands in ../formulas.h; here are only the loops and the rows of the kernel table.
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {
#include "../formulas.h"

// The gradient of what is minimised: with its sign turned to maximise, and with weight decay as an L2 penalty.
template <class T>
FASTNN_INLINE Vec<T> gradient(Vec<T> dw, Vec<T> w, double decay, int64_t maximize) {
  if (maximize) dw = -dw;
  return decay != 0 ? dw + w * T(decay) : dw;
}

// Calls body(chunk, row, begin, end) for the pieces [begin, end) of a list's arrays, which are cut every GRAIN elements
// as if they lay one after the other: many small ones share a chunk. In that row each array starts at a multiple of 64
// elements, so that the pieces of an aligned array are aligned. Returns the number of chunks.
constexpr int64_t ROW_START = 64;
FASTNN_INLINE int64_t length_of(const Arrays& list) {
  int64_t length = 0;
  for (int64_t row = 0; row < list.count; ++row) length += divide_up(list[row].size, ROW_START) * ROW_START;
  return length;
}
template <class F>
FASTNN_INLINE void parallel_rows(const Arrays& list, const F& body) {
  parallel_for(length_of(list), GRAIN, [=](int64_t begin, int64_t end) {
    const int64_t chunk = begin / GRAIN;
    int64_t start = 0;
    for (int64_t row = 0; row < list.count && start < end; ++row) {
      const int64_t size = list[row].size, from = most(begin - start, 0), to = least(end - start, size);
      if (from < to) body(chunk, row, from, to);
      start += divide_up(size, ROW_START) * ROW_START;
    }
  });
}

FASTNN_INLINE void check_rows(const Arrays& a, const Arrays& b) {
  bool agree = !b || a.count == b.count;
  for (int64_t row = 0; agree && b && row < a.count; ++row) agree = a[row].size == b[row].size;
  FASTNN_CHECK(agree, "the arrays of a parameter differ in size");
}

template <class T>
void sgd_step(const Arrays& dw, const Arrays& w, const Arrays& buffer, double lr, double momentum, double dampening,
              double weight_decay, int64_t nesterov, int64_t maximize, int64_t first) {
  check_rows(dw, w);
  check_rows(dw, buffer);
  const Vec<T> rate = set(T(lr)), keep = set(T(momentum)), rest = set(T(1 - dampening));
  parallel_rows(w, [=](int64_t, int64_t row, int64_t begin, int64_t end) {
    const T* pd = in<T>(dw[row]);
    T *pw = out<T>(w[row]), *pb = buffer ? out<T>(buffer[row]) : nullptr;
    each_vector<T>(begin, end, [=](int64_t i, int64_t n) __attribute__((always_inline)) {
      const Vec<T> weight = load(pw + i, n);
      Vec<T> g = gradient<T>(load(pd + i, n), weight, weight_decay, maximize);
      if (pb) {
        const Vec<T> b = first ? g : momentum_of(load(pb + i, n), g, keep, rest);
        store(pb + i, b, n);
        g = nesterov ? g + b * keep : b;
      }
      store(pw + i, descend(weight, g, rate), n);
    });
  });
}

// step counts from 1. decoupled: AdamW's weight decay, on the weight itself. mean, square and largest (AMSGrad's
// maximum of square) are the state.
template <class T>
void adam_step(const Arrays& dw, const Arrays& w, const Arrays& mean, const Arrays& square, const Arrays& largest,
               double lr, double beta1, double beta2, double eps, double weight_decay, int64_t decoupled,
               int64_t maximize, int64_t step) {
  const Arrays* const state[] = {&w, &mean, &square, &largest};
  for (const Arrays* arrays : state) check_rows(dw, *arrays);
  FASTNN_CHECK(step >= 1, "step counts from 1, got %lld", static_cast<long long>(step));
  const double correction1 = 1 - __builtin_pow(beta1, double(step));
  const double correction2 = 1 - __builtin_pow(beta2, double(step));
  const Vec<T> rate1 = set(T(1 - beta1)), keep2 = set(T(beta2)), rate2 = set(T(1 - beta2)), epsilon = set(T(eps));
  const Vec<T> size = set(T(lr / correction1)), scale = set(T(1 / __builtin_sqrt(correction2)));
  const T shrink = T(decoupled ? 1 - lr * weight_decay : 1);
  const double penalty = decoupled ? 0 : weight_decay;
  parallel_rows(w, [=](int64_t, int64_t row, int64_t begin, int64_t end) {
    const T* pd = in<T>(dw[row]);
    T *pw = out<T>(w[row]), *pm = out<T>(mean[row]), *pv = out<T>(square[row]);
    T* pl = largest ? out<T>(largest[row]) : nullptr;
    each_vector<T>(begin, end, [=](int64_t i, int64_t n) __attribute__((always_inline)) {
      Vec<T> weight = load(pw + i, n);
      const Vec<T> g = gradient<T>(load(pd + i, n), weight, penalty, maximize);
      weight = weight * shrink;
      const Vec<T> m = adam_mean(load(pm + i, n), g, rate1);
      Vec<T> v = adam_square(load(pv + i, n), g, keep2, rate2);
      store(pm + i, m, n);
      store(pv + i, v, n);
      if (pl) {
        v = maximum(load(pl + i, n), v);
        store(pl + i, v, n);
      }
      store(pw + i, adam_update(weight, m, sqrt(v), size, scale, epsilon), n);
    });
  });
}

// y = the sum of the squares of all elements, or with `largest` the largest of their absolute values. Squares are
// summed in T over BLOCK elements a lane, beyond that in double, chunk by chunk.
template <class T>
void total_norm(const Arrays& x, const Array& y, int64_t largest) {
  constexpr int64_t BLOCK = 16;
  FASTNN_CHECK(y.size == 1, "y must be one number");
  const int64_t chunks = divide_up(length_of(x), GRAIN);
  Scratch<double> partial(chunks);
  for (int64_t i = 0; i < chunks; ++i) partial[i] = 0;
  double* sums = partial.get();
  parallel_rows(x, [=](int64_t chunk, int64_t row, int64_t begin, int64_t end) {
    const T* px = in<T>(x[row]);
    for (int64_t i = begin; i < end; i += BLOCK * W<T>) {
      Vec<T> sum{};
      each_vector<T>(i, least(i + BLOCK * W<T>, end), [&](int64_t j, int64_t n) __attribute__((always_inline)) {
        const Vec<T> v = load(px + j, n);
        sum = largest ? maximum(sum, v < Vec<T>{} ? -v : v) : sum + v * v;
      });
      if (largest) {
        for (int lane = 0; lane < W<T>; ++lane) sums[chunk] = maximum(sums[chunk], double(sum[lane]));
      } else {
        sums[chunk] += double(sum_lanes<T>(sum));
      }
    }
  });
  double total = 0;
  for (int64_t i = 0; i < chunks; ++i) total = largest ? maximum(total, sums[i]) : total + sums[i];
  *out<double>(y) = total;
}

template <class T>
void scale(const Arrays& x, double factor) {
  const Vec<T> f = set(T(factor));
  parallel_rows(x, [=](int64_t, int64_t row, int64_t begin, int64_t end) {
    T* px = out<T>(x[row]);
    each_vector<T>(begin, end,
                   [=](int64_t i, int64_t n) __attribute__((always_inline)) { store(px + i, load(px + i, n) * f, n); });
  });
}

FASTNN_KERNELS(optim,
               FASTNN_KERNEL(sgd_step,
                             "dw -> w=dw, buffer?=dw | lr, momentum, dampening, weight_decay, nesterov, maximize, "
                             "first"),
               FASTNN_KERNEL(adam_step,
                             "dw -> w=dw, mean=dw, square=dw, largest?=dw | lr, beta1, beta2, eps, weight_decay, "
                             "decoupled, maximize, step"),
               FASTNN_KERNEL(total_norm, "x -> y:f64 | largest"), FASTNN_KERNEL(scale, "-> x | factor"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
