// exp, log, tanh, erf... on vectors. float: our own polynomials, a few units in the last place; double: libm, lane by
// lane. The same names on scalars, so that ../formulas.h reads alike everywhere.
#pragma once
#include "simd.h"

namespace fastnn {
namespace FASTNN_ISA {

template <class V, class F>
FASTNN_INLINE V lane_by_lane(V v, F f) {
  V r = v;
  for (int i = 0; i < int(sizeof(V) / sizeof(v[0])); ++i) r[i] = f(v[i]);
  return r;
}

// exp(x) = 2^n exp(r), n = round(x / ln 2), |r| <= ln(2) / 2; Cephes' expf polynomial. Below -103.97: 0, above 88.72:
// inf.
FASTNN_INLINE Vec<float> exp(Vec<float> x) {
  typedef Vec<float> V;
  typedef Bits<float> I;
  const V clamped = minimum(maximum(x, set(-104.0f)), set(89.0f));
  const V shift = set(12582912.0f);  // 1.5 * 2^23: adding it rounds to the nearest integer
  const V n = (clamped * 1.44269504088896341f + shift) - shift;
  const V r = (clamped - n * 0.693359375f) - n * -2.12194440e-4f;
  V p = set(1.9875691500e-4f);
  p = p * r + 1.3981999507e-3f;
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * (r * r) + r + 1.0f;
  // Scale in two steps: n reaches -150 and 128, beyond what one exponent field holds.
  const I k = __builtin_convertvector(n == n ? n : V{}, I), half = k >> 1;
  const V scale1 = (V)((half + 127) << 23), scale2 = (V)((k - half + 127) << 23);
  return p * scale1 * scale2;
}
FASTNN_INLINE Vec<double> exp(Vec<double> x) {
  return lane_by_lane(x, [](double s) { return __builtin_exp(s); });
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
