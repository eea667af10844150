// One-line maths: activations, their derivatives, optimizer updates. The same text for CPU (V is a vector of
// cpu/simd.h) and CUDA (V is float or double). No loops, no memory, no branches: only arithmetic, ?: and exp, tanh...
// V{} is zero; constants of V's own precision are written num<V>(c).
// Included by cpu/*.cpp after math.h, inside fastnn::<isa>, and by cuda/common.cuh: it opens no namespace.

// NaN must pass through: the comparison is written so that NaN falls to x. relu'(0) = 0.
template <class V>
FASTNN_INLINE V relu_of(V x) {
  return x < V{} ? V{} : x;
}
template <class V>
FASTNN_INLINE V relu_gradient(V dy, V y) {
  return y > V{} ? dy : V{};
}
