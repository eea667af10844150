// Activations and their gradients, one pass over memory: y[i] = f(x[i]), dx[i] = g(dy[i], x[i]).
// What is computed stands in formulas.h and is a template argument: map<float, relu_of<float>>. Which expressions are
// compiled says python/fastnn/cuda/table.py; who launches them, python/fastnn/cuda/elementwise.py.
#include "common.cuh"
#include "formulas.h"

// A formula takes up to two numbers beside its arrays; those it does not take are left alone.
template <class T>
FASTNN_INLINE T call(T (*f)(T), T x, T, T) {
  return f(x);
}
template <class T>
FASTNN_INLINE T call(T (*f)(T, T), T x, T a, T) {
  return f(x, a);
}
template <class T>
FASTNN_INLINE T call(T (*f)(T, T, T), T x, T a, T b) {
  return f(x, a, b);
}
template <class T>
FASTNN_INLINE T call_gradient(T (*g)(T, T), T dy, T x, T, T) {
  return g(dy, x);
}
template <class T>
FASTNN_INLINE T call_gradient(T (*g)(T, T, T), T dy, T x, T a, T) {
  return g(dy, x, a);
}
template <class T>
FASTNN_INLINE T call_gradient(T (*g)(T, T, T, T), T dy, T x, T a, T b) {
  return g(dy, x, a, b);
}

// Sixteen bytes, the most that a thread moves at once: WIDE numbers, where the arrays are aligned for it.
template <class T>
constexpr int WIDE = 16 / sizeof(T);
FASTNN_INLINE bool aligned(const void* p) { return reinterpret_cast<uint64_t>(p) % 16 == 0; }

// y = f(x, a, b), n elements; y may be x. The last n % WIDE elements, or all of unaligned arrays, go one by one.
template <class T, auto f>
__global__ void map(const T* x, T* y, int64_t n, T a, T b) {
  constexpr int N = WIDE<T>;
  const int64_t packs = aligned(x) && aligned(y) ? n / N : 0, done = packs * N;
  for (int64_t i : grid_stride(packs)) {
    Pack<T, N> pack = load_pack<N>(x + i * N);
    for (T& v : pack.v) v = call(f, v, a, b);
    store_pack<N>(y + i * N, pack);
  }
  for (int64_t i : grid_stride(n - done)) y[done + i] = call(f, x[done + i], a, b);
}

// dx = g(dy, x, a, b); x is the input or the result of the forward pass, as the formula has it. dx may be dy or x.
template <class T, auto g>
__global__ void map_gradient(const T* dy, const T* x, T* dx, int64_t n, T a, T b) {
  constexpr int N = WIDE<T>;
  const int64_t packs = aligned(dy) && aligned(x) && aligned(dx) ? n / N : 0, done = packs * N;
  for (int64_t i : grid_stride(packs)) {
    Pack<T, N> pack = load_pack<N>(dy + i * N);
    const Pack<T, N> at = load_pack<N>(x + i * N);
    for (int k = 0; k < N; ++k) pack.v[k] = call_gradient(g, pack.v[k], at.v[k], a, b);
    store_pack<N>(dx + i * N, pack);
  }
  for (int64_t i : grid_stride(n - done)) dx[done + i] = call_gradient(g, dy[done + i], x[done + i], a, b);
}
