// One-line maths: activations, their derivatives, optimizer updates. V is a vector of cpu/simd.h, or a scalar on CUDA.
// No loops, no memory, no branches: only arithmetic, ?: and the functions of cpu/math.h and cuda/common.cuh: magnitude,
// sqrt, tanh, exp_negative and expm1_negative (of x <= 0), log1p (of 0 <= x <= 1), normal. V{} is zero; constants in
// V's own precision are written num<V>(c). NaN must pass through: comparisons are written so that NaN falls to the side
// that keeps it. Included by cpu/*.cpp after math.h, inside fastnn::<isa>, and by cuda/*.cu after common.cuh: it opens
// no namespace.
#pragma once

// relu'(0) = 0.
template <class V>
FASTNN_INLINE V relu_of(V x) {
  return x < V{} ? V{} : x;
}
template <class V>
FASTNN_INLINE V relu_gradient(V dy, V y) {
  return y <= V{} ? V{} : dy;
}

template <class V>
FASTNN_INLINE V leaky_relu_of(V x, V slope) {
  return x > V{} ? x : x * slope;
}
template <class V>
FASTNN_INLINE V leaky_relu_gradient(V dy, V x, V slope) {
  return x > V{} ? dy : dy * slope;
}

// Limits to [low, high]; the gradient is 0 at both limits, as PyTorch's.
template <class V>
FASTNN_INLINE V hardtanh_of(V x, V low, V high) {
  const V raised = x < low ? low : x;
  return raised > high ? high : raised;
}
template <class V>
FASTNN_INLINE V hardtanh_gradient(V dy, V x, V low, V high) {
  return x <= low ? V{} : (x >= high ? V{} : dy);
}

// scale * (x > 0 ? x : alpha * (exp(x) - 1)): elu has scale 1, selu its two constants.
template <class V>
FASTNN_INLINE V elu_of(V x, V alpha, V scale) {
  return (x > V{} ? x : alpha * expm1_negative(x > V{} ? V{} : x)) * scale;
}
template <class V>
FASTNN_INLINE V elu_gradient(V dy, V x, V alpha, V scale) {
  return dy * scale * (x > V{} ? num<V>(1) : alpha * exp_negative(x > V{} ? V{} : x));
}

// 1 / (1 + exp(-x)), from exp(-|x|), which cannot overflow.
template <class V>
FASTNN_INLINE V sigmoid_of(V x) {
  const V e = exp_negative(-magnitude(x));
  return (x < V{} ? e : num<V>(1)) / (num<V>(1) + e);
}
// sigmoid(x), and 1 - sigmoid(x) without cancellation.
template <class V>
struct Logistic {
  V up, down;
};
template <class V>
FASTNN_INLINE Logistic<V> logistic(V x) {
  const V e = exp_negative(-magnitude(x)), large = num<V>(1) / (num<V>(1) + e), small = e * large;
  return {x < V{} ? small : large, x < V{} ? large : small};
}
template <class V>
FASTNN_INLINE V sigmoid_gradient(V dy, V y) {
  return dy * y * (num<V>(1) - y);
}

template <class V>
FASTNN_INLINE V tanh_of(V x) {
  return tanh(x);
}
template <class V>
FASTNN_INLINE V tanh_gradient(V dy, V y) {
  return dy * (num<V>(1) - y * y);
}

template <class V>
FASTNN_INLINE V silu_of(V x) {
  return x * sigmoid_of(x);
}
template <class V>
FASTNN_INLINE V silu_gradient(V dy, V x) {
  const Logistic<V> s = logistic(x);
  return dy * s.up * (num<V>(1) + x * s.down);
}

// log(1 + exp(beta x)) / beta, arranged so that exp cannot overflow; x itself where beta x > threshold.
template <class V>
FASTNN_INLINE V softplus_of(V x, V beta, V threshold) {
  const V z = x * beta;
  const V smooth = (z > V{} ? z : V{}) + log1p(exp_negative(-magnitude(z)));
  return z > threshold ? x : smooth / beta;
}
template <class V>
FASTNN_INLINE V softplus_gradient(V dy, V x, V beta, V threshold) {
  const V z = x * beta;
  return z > threshold ? dy : dy * sigmoid_of(z);
}

// x Phi(x), Phi the normal distribution.
template <class V>
FASTNN_INLINE V gelu_of(V x) {
  return x * normal(x).below;
}
template <class V>
FASTNN_INLINE V gelu_gradient(V dy, V x) {
  const auto n = normal(x);
  return dy * (n.below + x * n.density);
}

// x (1 + tanh u) / 2 = x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3).
template <class V>
FASTNN_INLINE V gelu_tanh_of(V x) {
  const V k = num<V>(1.59576912160573071176);  // 2 sqrt(2 / pi)
  return x * sigmoid_of(k * x * (num<V>(1) + num<V>(0.044715) * x * x));
}
template <class V>
FASTNN_INLINE V gelu_tanh_gradient(V dy, V x) {
  const V k = num<V>(1.59576912160573071176), square = num<V>(0.044715) * x * x;
  const Logistic<V> s = logistic(k * x * (num<V>(1) + square));
  return dy * s.up * (num<V>(1) + x * s.down * k * (num<V>(1) + num<V>(3) * square));
}

// Optimizers. SGD with momentum: the buffer, then the step (along dw, the buffer, or for Nesterov both).
template <class V>
FASTNN_INLINE V momentum_of(V buffer, V dw, V momentum, V rest) {
  return buffer * momentum + dw * rest;
}
template <class V>
FASTNN_INLINE V descend(V w, V direction, V lr) {
  return w - direction * lr;
}
// Adam (Kingma, Ba 2015): running means m of dw and v of dw^2, rate = 1 - beta; then the step, in which size and scale
// hold the corrections of m and of sqrt(v) for having started at 0.
template <class V>
FASTNN_INLINE V adam_mean(V m, V dw, V rate) {
  return m + (dw - m) * rate;
}
template <class V>
FASTNN_INLINE V adam_square(V v, V dw, V beta, V rate) {
  return v * beta + dw * dw * rate;
}
template <class V>
FASTNN_INLINE V adam_update(V w, V m, V root_v, V size, V scale, V eps) {
  return w - size * (m / (root_v * scale + eps));
}

// sin a and cos a, |a| <= pi / 4: Taylor's series, to 1e-8.
template <class V>
FASTNN_INLINE V sin_of_eighth(V a) {
  const V q = a * a;
  return a + a * q *
                 (num<V>(-1.6666666667e-1) +
                  q * (num<V>(8.3333333333e-3) + q * (num<V>(-1.9841269841e-4) + q * num<V>(2.7557319e-6))));
}
template <class V>
FASTNN_INLINE V cos_of_eighth(V a) {
  const V q = a * a;
  const V tail = num<V>(-1.3888888889e-3) + q * (num<V>(2.4801587e-5) + q * num<V>(-2.7557319e-7));
  return num<V>(1) + q * (num<V>(-0.5) + q * (num<V>(4.1666666667e-2) + q * tail));
}
