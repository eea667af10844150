// exp, expm1, log, log1p, tanh, erf on vectors. float: our own polynomials, a few units in the last place (measured in
// tests/test_math.py); double: libm, lane by lane. Next: ../formulas.h, which is written in these names.
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

// x = n ln 2 + r with n an integer and |r| <= ln(2) / 2: exp(x) = 2^n (1 + `rest`), rest = r + r^2 / 2 + ...
// (Cephes' expf polynomial). x must be in the range of float's exponents, or NaN, which comes out as NaN in `rest`.
struct Exponential {
  Bits<float> n;
  Vec<float> rest;
};
FASTNN_INLINE Exponential exponential(Vec<float> x) {
  typedef Vec<float> V;
  const V shift = set(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer, kept in the low bits
  const V shifted = x * 1.44269504088896341f + shift, n = shifted - shift;
  const V r = (x - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = set(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  return {(Bits<float>)shifted - (Bits<float>)shift, p * (r * r) + r};
}
FASTNN_INLINE Vec<float> power_of_two(Bits<float> n) { return (Vec<float>)((n + 127) << 23); }

// The comparisons are written so that NaN stays. Below -103.97: 0, above 88.72: inf; the scale is applied in two steps
// because n reaches -150 and 128, beyond what one exponent field holds.
FASTNN_INLINE Vec<float> exp(Vec<float> x) {
  x = x < -104.0f ? set(-104.0f) : x;
  x = x > 89.0f ? set(89.0f) : x;
  const Exponential e = exponential(x);
  const Bits<float> half = e.n >> 1;
  return (e.rest + 1.0f) * power_of_two(half) * power_of_two(e.n - half);
}

// exp(x) - 1 without the cancellation near 0. Half of it first: 2^128 is no float.
FASTNN_INLINE Vec<float> expm1(Vec<float> x) {
  Vec<float> c = x < -18.0f ? set(-18.0f) : x;
  c = c > 89.0f ? set(89.0f) : c;
  const Exponential e = exponential(c);
  const Vec<float> scale = power_of_two(e.n - 1);
  const Vec<float> y = (e.rest * scale + (scale - 0.5f)) * 2.0f;
  return magnitude(x) < 1e-8f ? x : y;
}

// tanh |x| = (exp(2 |x|) - 1) / (exp(2 |x|) + 1); 1 from 9.02 on.
FASTNN_INLINE Vec<float> tanh(Vec<float> x) {
  Vec<float> a = magnitude(x);
  a = a > 10.0f ? set(10.0f) : a;
  const Vec<float> e = expm1(a + a);
  return with_sign(e / (e + 2.0f), x);
}

// |x| < 1: x P(x^2); beyond: 1 - exp(Q(|x|)), Q fitted to log(erfc). Both to 1.2e-9, by reweighted least squares.
FASTNN_INLINE Vec<float> erf(Vec<float> x) {
  typedef Vec<float> V;
  const V a = magnitude(x), s = x * x;
  V p = set(7.853823889e-5f);
  p = p * s - 8.010182276e-4f;
  p = p * s + 5.188326393e-3f;
  p = p * s - 2.685381125e-2f;
  p = p * s + 1.128358513e-1f;
  p = p * s - 3.761262582e-1f;
  p = p * s + 1.28379166e-1f;  // 2 / sqrt(pi) - 1: the 1 is added exactly, below
  const V t = a > 4.0f ? set(4.0f) : a;
  V q = set(1.855832266e-4f);
  q = q * t - 2.939695281e-3f;
  q = q * t + 2.180566084e-2f;
  q = q * t - 1.030380654e-1f;
  q = q * t - 6.382248959e-1f;
  q = q * t - 1.127040495f;
  q = q * t - 3.536093114e-4f;
  return a < 1.0f ? p * x + x : with_sign(1.0f - exp(q), x);
}

// x = m 2^e with sqrt(1/2) <= m < sqrt(2); log x = e ln 2 + log m, Cephes' logf polynomial. x <= 0: -inf and NaN.
FASTNN_INLINE Vec<float> log(Vec<float> x) {
  typedef Vec<float> V;
  typedef Bits<float> I;
  const I e = ((I)x - 0x3f3504f3) >> 23;  // 0x3f3504f3 is sqrt(1/2)
  const V n = __builtin_convertvector(e, V), f = (V)((I)x - (e << 23)) - 1.0f, s = f * f;
  V p = set(7.0376836292e-2f);
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
  V y = (f + (p - s * 0.5f)) + n * 0.693359375f;
  y = x < 3.4028235e38f ? y : x + x;  // inf and NaN: themselves
  y = x > 0.0f ? y : set(-HUGE_VALF);
  return ((x < 0.0f) | (x != x)) ? x * __builtin_nanf("") : y;
}

// log(1 + x): the rounding of u = 1 + x is given back to first order.
FASTNN_INLINE Vec<float> log1p(Vec<float> x) {
  const Vec<float> u = x + 1.0f;
  const Vec<float> y = log(u) + (x - (u - 1.0f)) / u;
  return ((u == HUGE_VALF) | (u == 0.0f) | (x == 0.0f)) ? log(u) + x : y;
}

FASTNN_INLINE Vec<double> exp(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_exp(s); });
}
FASTNN_INLINE Vec<double> expm1(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_expm1(s); });
}
FASTNN_INLINE Vec<double> tanh(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_tanh(s); });
}
FASTNN_INLINE Vec<double> erf(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_erf(s); });
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
