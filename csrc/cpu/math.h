// exp, log, tanh and what activations need of them on vectors. float: our own polynomials, a few units in the last
// place (measured in tests/test_math.py); double: libm, lane by lane. Next: ../formulas.h, which is written in these
// names.
#pragma once
#include "simd.h"

namespace fastnn {
namespace FASTNN_ISA {

// The number c in every lane, in the lanes' own precision.
template <class V>
FASTNN_INLINE V num(double c) {
  return V{} + static_cast<decltype(V{}[0] + V{}[0])>(c);
}

template <class V, class F>
FASTNN_INLINE V lane_by_lane(V v, F f) {
  V r = v;
  for (int i = 0; i < int(sizeof(V) / sizeof(v[0])); ++i) r[i] = f(v[i]);
  return r;
}

// x with the sign of `sign`, for x >= 0: keeps -0 and the two halves of an odd function bitwise alike.
FASTNN_INLINE Vec<float> with_sign(Vec<float> x, Vec<float> sign) {
  return (Vec<float>)((Bits<float>)x | ((Bits<float>)sign & (Bits<float>{} + INT32_MIN)));
}
FASTNN_INLINE Vec<float> magnitude(Vec<float> x) { return (Vec<float>)((Bits<float>)x & (Bits<float>{} + INT32_MAX)); }
FASTNN_INLINE Vec<double> magnitude(Vec<double> x) {
  return (Vec<double>)((Bits<double>)x & (Bits<double>{} + INT64_MAX));
}

// x = n ln 2 + r with n an integer and |r| <= ln(2) / 2: exp(x) = 2^n (1 + `rest`), rest = r + r^2 p(r), p a minimax
// polynomial good to 3e-9. x must be in the range of float's exponents, or NaN, which comes out as NaN in `rest`.
struct Exponential {
  static constexpr float SHIFT = 12583039.0f;  // 1.5 * 2^23 + 127: adding it rounds to an integer, in the low bits
  Vec<float> shifted, rest;                    // n + SHIFT, whose low bits are n + 127: the exponent field of 2^n
  FASTNN_INLINE Vec<float> scale() const { return (Vec<float>)((Bits<float>)shifted << 23); }  // 2^n, n in [-126, 127]
  FASTNN_INLINE Bits<float> n() const { return (Bits<float>)shifted - (Bits<float>)set(SHIFT); }
};
FASTNN_INLINE Exponential exponential(Vec<float> x) {
  typedef Vec<float> V;
  const V shifted = x * 1.44269504088896341f + Exponential::SHIFT, n = shifted - Exponential::SHIFT;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = set(1.381453970e-3f);
  p = p * r + 8.368734099e-3f;
  p = p * r + 4.166839002e-2f;
  p = p * r + 1.666652049e-1f;
  p = p * r + 4.999999344e-1f;
  return {shifted, p * (r * r) + r};
}
FASTNN_INLINE Vec<float> power_of_two(Bits<float> n) { return (Vec<float>)((n + 127) << 23); }

// The comparisons are written so that NaN stays. Below -103.97: 0, above 88.72: inf; the scale is applied in two steps
// because n reaches -150 and 128, beyond what one exponent field holds.
FASTNN_INLINE Vec<float> exp(Vec<float> x) {
  x = x < -104.0f ? set(-104.0f) : x;
  x = x > 89.0f ? set(89.0f) : x;
  const Exponential e = exponential(x);
  const Bits<float> half = e.n() >> 1;
  return (e.rest + 1.0f) * power_of_two(half) * power_of_two(e.n() - half);
}

// exp(x) and exp(x) - 1 for x <= 0: half the work of exp. Below -87.34, where the result is no normal number, 0 (the
// last product is denormal there, and flushed). The second does not cancel near 0.
FASTNN_INLINE Vec<float> exp_negative(Vec<float> x) {
  const Exponential e = exponential(x < -87.4f ? set(-87.4f) : x);
  return (e.rest + 1.0f) * e.scale();  // rest * scale alone may be flushed to 0
}
FASTNN_INLINE Vec<float> expm1_negative(Vec<float> x) {
  const Exponential e = exponential(x < -87.4f ? set(-87.4f) : x);
  return e.rest * e.scale() + (e.scale() - 1.0f);
}

// tanh |x| = -e / (2 + e), e = exp(-2 |x|) - 1; 0 - e, unlike -e, is +0 at 0.
FASTNN_INLINE Vec<float> tanh(Vec<float> x) {
  const Vec<float> a = magnitude(x), e = expm1_negative(a * -2.0f);
  return with_sign((0.0f - e) / (e + 2.0f), x);
}

// The standard normal distribution: Phi(x), what lies below x, and its density at x. Both from one exponential:
// Phi(-|x|) = exp(-x^2 / 2) R(|x|), where R(a) is t P(t), t = 1 / (1 + 0.27 a), to 2.3e-8 (minimax, relative).
template <class V>
struct Normal {
  V below, density;
};
FASTNN_INLINE Normal<Vec<float>> normal(Vec<float> x) {
  typedef Vec<float> V;
  const V e = exp_negative(x * x * -0.5f), t = 1.0f / (magnitude(x) * 0.27f + 1.0f);
  V p = set(2.8841371e-2f);
  p = p * t - 1.25882506e-1f;
  p = p * t + 1.68489411e-1f;
  p = p * t - 6.7661777e-2f;
  p = p * t + 1.06703565e-1f;
  p = p * t + 7.2553076e-2f;
  p = p * t + 1.01674303e-1f;
  p = p * t + 1.07563183e-1f;
  p = p * t + 1.07719384e-1f;
  const V tail = p * t * e;
  return {x > 0.0f ? 1.0f - tail : tail, e * 0.398942280f};
}

// log((1 + f) 2^n), sqrt(1/2) <= 1 + f <= sqrt(2): Cephes' logf polynomial.
FASTNN_INLINE Vec<float> log_of(Vec<float> f, Vec<float> n) {
  const Vec<float> s = f * f;
  Vec<float> p = set(7.0376836292e-2f);
  p = p * f - 1.1514610310e-1f;
  p = p * f + 1.1676998740e-1f;
  p = p * f - 1.2420140846e-1f;
  p = p * f + 1.4249322787e-1f;
  p = p * f - 1.6668057665e-1f;
  p = p * f + 2.0000714765e-1f;
  p = p * f - 2.4999993993e-1f;
  p = p * f + 3.3333331174e-1f;
  p = p * f * s;
  p = p + n * -2.12194440e-4f;
  return (f + (p - s * 0.5f)) + n * 0.693359375f;
}
// x <= 0: -inf and NaN.
FASTNN_INLINE Vec<float> log(Vec<float> x) {
  typedef Vec<float> V;
  typedef Bits<float> I;
  const I e = ((I)x - 0x3f3504f3) >> 23;  // 0x3f3504f3 is sqrt(1/2)
  V y = log_of((V)((I)x - (e << 23)) - 1.0f, __builtin_convertvector(e, V));
  y = x < 3.4028235e38f ? y : x + x;  // inf and NaN: themselves
  y = x > 0.0f ? y : set(-HUGE_VALF);
  return ((x < 0.0f) | (x != x)) ? x * __builtin_nanf("") : y;
}
// log(1 + x) for 0 <= x <= 1.
FASTNN_INLINE Vec<float> log1p(Vec<float> x) {
  const auto large = x > 0.41421356f;
  return log_of(large ? (x - 1.0f) * 0.5f : x, large ? set(1.0f) : Vec<float>{});
}

FASTNN_INLINE Vec<double> exp(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_exp(s); });
}
FASTNN_INLINE Vec<double> exp_negative(Vec<double> x) { return exp(x); }
FASTNN_INLINE Vec<double> expm1_negative(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_expm1(s); });
}
FASTNN_INLINE Vec<double> tanh(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_tanh(s); });
}
FASTNN_INLINE Normal<Vec<double>> normal(Vec<double> x) {
  const Vec<double> below = lane_by_lane(x, [](double s) { return 0.5 * __builtin_erfc(s * -M_SQRT1_2); });
  return {below, exp(x * x * -0.5) * 0.39894228040143267794};
}
FASTNN_INLINE Vec<double> log(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_log(s); });
}
FASTNN_INLINE Vec<double> log1p(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_log1p(s); });
}

// Correctly rounded; the compiler makes one instruction of it. Negative: NaN.
template <class V>
FASTNN_INLINE V sqrt(V x) {
  return lane_by_lane(x, [](auto s) { return static_cast<decltype(s)>(__builtin_sqrt(s)); });
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
