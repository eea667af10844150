// One-line maths: activations, their derivatives, optimizer updates. V is a vector of cpu/simd.h; it may be a scalar
// too, so that CUDA code can share the text. No loops, no memory, no branches: only arithmetic, ?: and exp, expm1,
// log1p, tanh, erf. V{} is zero; constants in V's own precision are written num<V>(c).
// NaN must pass through: comparisons are written so that NaN falls to the side that keeps it.
// Included by cpu/*.cpp after math.h, inside fastnn::<isa>: it opens no namespace.

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
  return (x > V{} ? x : alpha * expm1(x)) * scale;
}
template <class V>
FASTNN_INLINE V elu_gradient(V dy, V x, V alpha, V scale) {
  return dy * scale * (x > V{} ? num<V>(1) : alpha * exp(x));
}

template <class V>
FASTNN_INLINE V sigmoid_of(V x) {
  return num<V>(1) / (num<V>(1) + exp(-x));
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
  return x / (num<V>(1) + exp(-x));
}
template <class V>
FASTNN_INLINE V silu_gradient(V dy, V x) {
  const V s = sigmoid_of(x);
  return dy * s * (num<V>(1) + x * (num<V>(1) - s));
}

// log(1 + exp(beta x)) / beta, arranged so that exp cannot overflow; x itself where beta x > threshold.
template <class V>
FASTNN_INLINE V softplus_of(V x, V beta, V threshold) {
  const V z = x * beta;
  const V smooth = (z > V{} ? z : V{}) + log1p(exp(z > V{} ? -z : z));
  return z > threshold ? x : smooth / beta;
}
template <class V>
FASTNN_INLINE V softplus_gradient(V dy, V x, V beta, V threshold) {
  const V z = x * beta;
  return z > threshold ? dy : dy * sigmoid_of(z);
}

// x Phi(x), Phi the normal distribution: Phi(x) = (1 + erf(x / sqrt(2))) / 2, Phi'(x) = exp(-x^2 / 2) / sqrt(2 pi).
template <class V>
FASTNN_INLINE V normal_distribution(V x) {
  return num<V>(0.5) * (num<V>(1) + erf(x * num<V>(0.70710678118654752440)));
}
template <class V>
FASTNN_INLINE V gelu_of(V x) {
  return x * normal_distribution(x);
}
template <class V>
FASTNN_INLINE V gelu_gradient(V dy, V x) {
  const V density = exp(x * x * num<V>(-0.5)) * num<V>(0.39894228040143267794);
  return dy * (normal_distribution(x) + x * density);
}

// x (1 + tanh u) / 2, u = sqrt(2 / pi) (x + 0.044715 x^3).
template <class V>
FASTNN_INLINE V gelu_tanh_of(V x) {
  const V u = num<V>(0.79788456080286535588) * x * (num<V>(1) + num<V>(0.044715) * x * x);
  return num<V>(0.5) * x * (num<V>(1) + tanh(u));
}
template <class V>
FASTNN_INLINE V gelu_tanh_gradient(V dy, V x) {
  const V s = num<V>(0.044715) * x * x, k = num<V>(0.79788456080286535588);
  const V t = tanh(k * x * (num<V>(1) + s)), slope = k * (num<V>(1) + num<V>(3) * s);
  return dy * num<V>(0.5) * (num<V>(1) + t + x * (num<V>(1) - t * t) * slope);
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
