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

template <class T>
void relu(const Array& x, const Array& y) {
  FASTNN_CHECK(x.size == y.size, "x and y differ in size");
  map<T>(x, y, [](Vec<T> v) { return relu_of(v); });
}
template <class T>
void relu_backward(const Array& dy, const Array& y, const Array& dx) {
  FASTNN_CHECK(dy.size == dx.size && y.size == dx.size, "dy, y and dx differ in size");
  map<T>(dy, y, dx, [](Vec<T> d, Vec<T> v) { return relu_gradient(d, v); });
}

FASTNN_KERNELS(elementwise, FASTNN_KERNEL(relu, "x -> y"), FASTNN_KERNEL(relu_backward, "dy, y -> dx"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
