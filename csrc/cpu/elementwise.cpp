// Activations and their gradients, one pass over memory: y[i] = f(x[i]), dx[i] = g(dy[i], ...).
// What is computed stands in ../formulas.h; here are only the loops and the rows of the kernel table.
#include "math.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {
#include "../formulas.h"

template <class T, class F>
FASTNN_INLINE void map(const Array& x, const Array& y, F f) {
  const T* px = in<T>(x);
  parallel_write(out<T>(y), y.size, [=](int64_t i, int64_t n) { return f(load(px + i, n)); });
}

template <class T, class F>
FASTNN_INLINE void map(const Array& a, const Array& b, const Array& y, F f) {
  const T *pa = in<T>(a), *pb = in<T>(b);
  parallel_write(out<T>(y), y.size, [=](int64_t i, int64_t n) { return f(load(pa + i, n), load(pb + i, n)); });
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
               FASTNN_KERNEL(relu, "x -> y=x"),
               FASTNN_KERNEL(relu_backward, "dy, y=dy -> dx=dy"),
               FASTNN_KERNEL(leaky_relu, "x -> y=x | negative_slope"),
               FASTNN_KERNEL(leaky_relu_backward, "dy, x=dy -> dx=dy | negative_slope"),
               FASTNN_KERNEL(hardtanh, "x -> y=x | min_val, max_val"),
               FASTNN_KERNEL(hardtanh_backward, "dy, x=dy -> dx=dy | min_val, max_val"),
               FASTNN_KERNEL(elu, "x -> y=x | alpha, scale"),
               FASTNN_KERNEL(elu_backward, "dy, x=dy -> dx=dy | alpha, scale"),
               FASTNN_KERNEL(softplus, "x -> y=x | beta, threshold"),
               FASTNN_KERNEL(softplus_backward, "dy, x=dy -> dx=dy | beta, threshold"),
               FASTNN_KERNEL(sigmoid, "x -> y=x"),
               FASTNN_KERNEL(sigmoid_backward, "dy, y=dy -> dx=dy"),
               FASTNN_KERNEL(tanh, "x -> y=x"),
               FASTNN_KERNEL(tanh_backward, "dy, y=dy -> dx=dy"),
               FASTNN_KERNEL(silu, "x -> y=x"),
               FASTNN_KERNEL(silu_backward, "dy, x=dy -> dx=dy"),
               FASTNN_KERNEL(gelu, "x -> y=x"),
               FASTNN_KERNEL(gelu_backward, "dy, x=dy -> dx=dy"),
               FASTNN_KERNEL(gelu_tanh, "x -> y=x"),
               FASTNN_KERNEL(gelu_tanh_backward, "dy, x=dy -> dx=dy"))
// clang-format on

}  // namespace FASTNN_ISA
}  // namespace fastnn
