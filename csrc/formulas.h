// One-line maths: activations and losses, their derivatives, optimizer updates. V is a vector of cpu/simd.h, or a
// scalar on CUDA. No loops, no memory, no branches: only arithmetic, ?: and the functions of cpu/math.h and
// cuda/common.cuh: magnitude, sqrt, tanh, exp, exp_negative and expm1_negative (of x <= 0), log, log1p (of 0 <= x <=
// 1), normal. V{} is zero; constants in V's own precision are written num<V>(c). NaN must pass through: comparisons are
// written so that NaN falls to the side that keeps it. Included by cpu/*.cpp after math.h, inside fastnn::<isa>, and by
// cuda/*.cu after common.cuh: it opens no namespace.
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

// Losses per element, of x and its target t, with one parameter p; their slopes by x and by t.
#define FASTNN_LOSSES(X) \
  X(mse) X(l1) X(smooth_l1) X(huber) X(kl_div) X(kl_div_log) X(bce) X(bce_logits) X(hinge_embedding)

// -1, 0 or 1; NaN.
template <class V>
FASTNN_INLINE V sign_of(V x) {
  return x > V{} ? num<V>(1) : (x < V{} ? num<V>(-1) : x);
}

// (x - t)^2
template <class V>
FASTNN_INLINE V mse_loss(V x, V t, V) {
  return (x - t) * (x - t);
}
template <class V>
FASTNN_INLINE V mse_slope(V x, V t, V) {
  return num<V>(2) * (x - t);
}
template <class V>
FASTNN_INLINE V mse_target_slope(V x, V t, V) {
  return num<V>(2) * (t - x);
}

// |x - t|
template <class V>
FASTNN_INLINE V l1_loss(V x, V t, V) {
  return magnitude(x - t);
}
template <class V>
FASTNN_INLINE V l1_slope(V x, V t, V) {
  return sign_of(x - t);
}
template <class V>
FASTNN_INLINE V l1_target_slope(V x, V t, V) {
  return sign_of(t - x);
}

// With d = |x - t|: d^2 / (2 p) where d < p, else d - p / 2.
template <class V>
FASTNN_INLINE V smooth_l1_loss(V x, V t, V p) {
  const V d = magnitude(x - t);
  return d < p ? d * d * (num<V>(0.5) / p) : d - num<V>(0.5) * p;
}
template <class V>
FASTNN_INLINE V smooth_l1_slope(V x, V t, V p) {
  const V d = x - t;
  return magnitude(d) < p ? d * (num<V>(1) / p) : sign_of(d);
}
template <class V>
FASTNN_INLINE V smooth_l1_target_slope(V x, V t, V p) {
  return smooth_l1_slope(t, x, p);
}

// d^2 / 2 where d <= p, else p (d - p / 2) (Huber 1964).
template <class V>
FASTNN_INLINE V huber_loss(V x, V t, V p) {
  const V d = magnitude(x - t);
  return d <= p ? num<V>(0.5) * d * d : p * (d - num<V>(0.5) * p);
}
template <class V>
FASTNN_INLINE V huber_slope(V x, V t, V p) {
  return hardtanh_of(x - t, -p, p);
}
template <class V>
FASTNN_INLINE V huber_target_slope(V x, V t, V p) {
  return hardtanh_of(t - x, -p, p);
}

// t (log t - x), 0 log 0 = 0; with the target's logarithm given, exp(t) (t - x).
template <class V>
FASTNN_INLINE V kl_div_loss(V x, V t, V) {
  return (t == V{} ? x * V{} : t * log(t)) - t * x;
}
template <class V>
FASTNN_INLINE V kl_div_slope(V, V t, V) {
  return V{} - t;
}
template <class V>
FASTNN_INLINE V kl_div_target_slope(V x, V t, V) {
  return log(t) + num<V>(1) - x;
}
template <class V>
FASTNN_INLINE V kl_div_log_loss(V x, V t, V) {
  return exp(t) * (t - x);
}
template <class V>
FASTNN_INLINE V kl_div_log_slope(V, V t, V) {
  return V{} - exp(t);
}
template <class V>
FASTNN_INLINE V kl_div_log_target_slope(V x, V t, V) {
  return exp(t) * (t - x + num<V>(1));
}

// -(t log x + (1 - t) log(1 - x)), each logarithm at least -100. What 1 - x was rounded by is given back to the second.
template <class V>
FASTNN_INLINE V bce_log(V x) {
  const V y = log(x);
  return y < num<V>(-100) ? num<V>(-100) : y;
}
template <class V>
FASTNN_INLINE V bce_log_rest(V x) {
  const V rest = num<V>(1) - x, lost = (num<V>(1) - rest) - x;
  return bce_log(rest) + lost / (rest > V{} ? rest : num<V>(1));
}
template <class V>
FASTNN_INLINE V bce_loss(V x, V t, V) {
  return (t - num<V>(1)) * bce_log_rest(x) - t * bce_log(x);
}
template <class V>
FASTNN_INLINE V bce_slope(V x, V t, V) {
  const V spread = x * (num<V>(1) - x), least = num<V>(1e-12);
  return (x - t) / (spread < least ? least : spread);
}
template <class V>
FASTNN_INLINE V bce_target_slope(V x, V, V) {
  return bce_log_rest(x) - bce_log(x);
}

// bce of sigmoid(x), the part of t times p: (1 - t) x + (1 + (p - 1) t) log(1 + exp(-x)).
template <class V>
FASTNN_INLINE V bce_logits_softplus(V x) {
  return (x < V{} ? V{} - x : V{}) + log1p(exp_negative(-magnitude(x)));
}
template <class V>
FASTNN_INLINE V bce_logits_loss(V x, V t, V p) {
  return (num<V>(1) - t) * x + (num<V>(1) + (p - num<V>(1)) * t) * bce_logits_softplus(x);
}
template <class V>
FASTNN_INLINE V bce_logits_slope(V x, V t, V p) {
  return (num<V>(1) + (p - num<V>(1)) * t) * sigmoid_of(x) - p * t;
}
template <class V>
FASTNN_INLINE V bce_logits_target_slope(V x, V, V p) {
  return (p - num<V>(1)) * bce_logits_softplus(x) - x;
}

// x where t is 1, max(0, p - x) where it is -1.
template <class V>
FASTNN_INLINE V hinge_embedding_loss(V x, V t, V p) {
  const V apart = p - x < V{} ? V{} : p - x;
  return (t == num<V>(1) ? V{} : apart) + (t == num<V>(-1) ? V{} : x);
}
template <class V>
FASTNN_INLINE V hinge_embedding_slope(V x, V t, V p) {
  const V apart = x <= p ? num<V>(-1) : V{};
  return (t == num<V>(1) ? V{} : apart) + (t == num<V>(-1) ? V{} : num<V>(1));
}
template <class V>
FASTNN_INLINE V hinge_embedding_target_slope(V, V, V) {
  return V{};
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
