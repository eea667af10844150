// Activations and their gradients, one pass over memory: y[i] = f(x[i]), dx[i] = g(dy[i], ...).
// What is computed stands in ../formulas.h; here are only the loops and the rows of the kernel table.
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {
#include "../formulas.h"

constexpr int64_t GRAIN = 32768;  // elements a chunk: 128 KB, about 10 us of memory traffic

template <class T, class F>
FASTNN_INLINE void map(const Array& x, const Array& y, F f) {
  const T* px = in<T>(x);
  T* py = out<T>(y);
  parallel_for(y.size, GRAIN, [=](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + W<T> <= end; i += W<T>) store(py + i, f(load(px + i)));
    if (i < end) store_n(py + i, f(load_n(px + i, end - i)), end - i);
  });
}

template <class T, class F>
FASTNN_INLINE void map(const Array& a, const Array& b, const Array& y, F f) {
  const T *pa = in<T>(a), *pb = in<T>(b);
  T* py = out<T>(y);
  parallel_for(y.size, GRAIN, [=](int64_t begin, int64_t end) {
    int64_t i = begin;
    for (; i + W<T> <= end; i += W<T>) store(py + i, f(load(pa + i), load(pb + i)));
    if (i < end) store_n(py + i, f(load_n(pa + i, end - i), load_n(pb + i, end - i)), end - i);
  });
}

// One kernel per activation: <name>(x -> y | numbers) and <name>_backward(dy, x or y -> dx | numbers). What the
// gradient is computed from, the input or the result, is the cheaper one that is exact.
#define ACTIVATION(name)                                                                                   \
  template <class T>                                                                                       \
  void name(const Array& x, const Array& y) {                                                              \
    FASTNN_CHECK(x.size == y.size, "x and y differ in size");                                              \
    map<T>(x, y, [](Vec<T> v) { return name##_of(v); });                                                   \
  }                                                                                                        \
  template <class T>                                                                                       \
  void name##_backward(const Array& dy, const Array& source, const Array& dx) {                            \
    FASTNN_CHECK(dy.size == dx.size && source.size == dx.size, "dy, its companion and dx differ in size"); \
    map<T>(dy, source, dx, [](Vec<T> d, Vec<T> v) { return name##_gradient(d, v); });                      \
  }
#define ACTIVATION_WITH_TWO(name)                                                                       \
  template <class T>                                                                                    \
  void name(const Array& x, const Array& y, double first, double second) {                              \
    FASTNN_CHECK(x.size == y.size, "x and y differ in size");                                           \
    const Vec<T> a = num<Vec<T>>(first), b = num<Vec<T>>(second);                                       \
    map<T>(x, y, [=](Vec<T> v) { return name##_of(v, a, b); });                                         \
  }                                                                                                     \
  template <class T>                                                                                    \
  void name##_backward(const Array& dy, const Array& x, const Array& dx, double first, double second) { \
    FASTNN_CHECK(dy.size == dx.size && x.size == dx.size, "dy, x and dx differ in size");               \
    const Vec<T> a = num<Vec<T>>(first), b = num<Vec<T>>(second);                                       \
    map<T>(dy, x, dx, [=](Vec<T> d, Vec<T> v) { return name##_gradient(d, v, a, b); });                 \
  }

ACTIVATION(relu)
ACTIVATION(sigmoid)
ACTIVATION(tanh)
ACTIVATION(silu)
ACTIVATION(gelu)
ACTIVATION(gelu_tanh)
ACTIVATION_WITH_TWO(elu)
ACTIVATION_WITH_TWO(hardtanh)
ACTIVATION_WITH_TWO(softplus)

template <class T>
void leaky_relu(const Array& x, const Array& y, double negative_slope) {
  FASTNN_CHECK(x.size == y.size, "x and y differ in size");
  const Vec<T> slope = num<Vec<T>>(negative_slope);
  map<T>(x, y, [=](Vec<T> v) { return leaky_relu_of(v, slope); });
}
template <class T>
void leaky_relu_backward(const Array& dy, const Array& x, const Array& dx, double negative_slope) {
  FASTNN_CHECK(dy.size == dx.size && x.size == dx.size, "dy, x and dx differ in size");
  const Vec<T> slope = num<Vec<T>>(negative_slope);
  map<T>(dy, x, dx, [=](Vec<T> d, Vec<T> v) { return leaky_relu_gradient(d, v, slope); });
}

// clang-format off: a row a line
FASTNN_KERNELS(elementwise,
               FASTNN_KERNEL(relu, "x -> y"),
               FASTNN_KERNEL(relu_backward, "dy, y -> dx"),
               FASTNN_KERNEL(leaky_relu, "x -> y | negative_slope"),
               FASTNN_KERNEL(leaky_relu_backward, "dy, x -> dx | negative_slope"),
               FASTNN_KERNEL(hardtanh, "x -> y | min_val, max_val"),
               FASTNN_KERNEL(hardtanh_backward, "dy, x -> dx | min_val, max_val"),
               FASTNN_KERNEL(elu, "x -> y | alpha, scale"),
               FASTNN_KERNEL(elu_backward, "dy, x -> dx | alpha, scale"),
               FASTNN_KERNEL(softplus, "x -> y | beta, threshold"),
               FASTNN_KERNEL(softplus_backward, "dy, x -> dx | beta, threshold"),
               FASTNN_KERNEL(sigmoid, "x -> y"),
               FASTNN_KERNEL(sigmoid_backward, "dy, y -> dx"),
               FASTNN_KERNEL(tanh, "x -> y"),
               FASTNN_KERNEL(tanh_backward, "dy, y -> dx"),
               FASTNN_KERNEL(silu, "x -> y"),
               FASTNN_KERNEL(silu_backward, "dy, x -> dx"),
               FASTNN_KERNEL(gelu, "x -> y"),
               FASTNN_KERNEL(gelu_backward, "dy, x -> dx"),
               FASTNN_KERNEL(gelu_tanh, "x -> y"),
               FASTNN_KERNEL(gelu_tanh_backward, "dy, x -> dx"))
// clang-format on

}  // namespace FASTNN_ISA
}  // namespace fastnn
