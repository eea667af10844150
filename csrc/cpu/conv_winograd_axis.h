// Winograd's formulas along one axis: two neighbouring outputs from few products, each of a sum of inputs and a sum of
// taps. All factors are 1 and 1/2, so that rounding stays close to that of the plain sum.
//   Taps3   F(2, 3): y0 = x0 w0 + x1 w1 + x2 w2, y1 = x1 w0 + x2 w1 + x3 w2 by 4 products in place of 6:
//           y0 = m0 + (m1 + m2), y1 = (m1 - m2) + m3, where
//           m0 = (x0 - x2) w0,  m1 = (x1 + x2) (w0 + w1 + w2) / 2,  m2 = (x2 - x1) (w0 - w1 + w2) / 2,
//           m3 = (x3 - x1) w2
//   Taps5   5 = 3 + 2: F(2, 3) of x0..x3 and taps 0..2, F(2, 2) of x3..x5 and taps 3, 4: 7 products in place of 10:
//           y0 += m4 + m5, y1 += m5 + m6, where m4 = (x3 - x4) w3,  m5 = x4 (w3 + w4),  m6 = (x5 - x4) w4
//           F(2, 5) itself would take 6, but its points 2 and 1/2 cost more than four times the plain sum's error.
// In matrices: y = A^T [(G w) (B^T x)]; then dw = G^T [(A dy) (B^T x)]. An input enters only what its outputs are made
// of, so a NaN spoils these alone. Each function gives entry `p` of a vector whose factor's entries are x(0), x(1), ...
#pragma once
#include "simd.h"

namespace fastnn {
namespace FASTNN_ISA {

struct Taps3 {
  static constexpr int TAPS = 3, PATCH = 4, POINTS = 4;
  template <class X>  // B^T x
  static FASTNN_INLINE auto patch(int p, const X& x) {
    return p == 0 ? x(0) - x(2) : p == 1 ? x(1) + x(2) : p == 2 ? x(2) - x(1) : x(3) - x(1);
  }
  template <class X>  // G w
  static FASTNN_INLINE auto weight(int p, const X& w) {
    return p == 0 ? w(0) : p == 1 ? (w(0) + w(2) + w(1)) / 2 : p == 2 ? (w(0) + w(2) - w(1)) / 2 : w(2);
  }
  template <class X>  // A^T m
  static FASTNN_INLINE auto output(int i, const X& m) {
    return i == 0 ? m(0) + (m(1) + m(2)) : (m(1) - m(2)) + m(3);
  }
  template <class X>  // G^T s
  static FASTNN_INLINE auto tap(int t, const X& s) {
    return t == 0 ? s(0) + (s(1) + s(2)) / 2 : t == 1 ? (s(1) - s(2)) / 2 : (s(1) + s(2)) / 2 + s(3);
  }
  static FASTNN_INLINE int gradient(int p) { return p; }
};

struct Taps5 {
  static constexpr int TAPS = 5, PATCH = 6, POINTS = 7;
  template <class X>
  static FASTNN_INLINE auto patch(int p, const X& x) {
    return p < 4 ? Taps3::patch(p, x) : p == 4 ? x(3) - x(4) : p == 5 ? x(4) : x(5) - x(4);
  }
  template <class X>
  static FASTNN_INLINE auto weight(int p, const X& w) {
    return p < 4 ? Taps3::weight(p, w) : p == 4 ? w(3) : p == 5 ? w(3) + w(4) : w(4);
  }
  template <class X>
  static FASTNN_INLINE auto output(int i, const X& m) {
    return Taps3::output(i, m) + (m(4 + i) + m(5 + i));
  }
  template <class X>
  static FASTNN_INLINE auto tap(int t, const X& s) {
    return t < 3 ? Taps3::tap(t, s) : s(t + 1) + s(t + 2);
  }
  static FASTNN_INLINE int gradient(int p) { return p < 4 ? p : p == 6 ? 3 : p - 4; }
};

// A dy of the two gradients a, b, whatever the taps: these four values. Entry p of it is the one numbered gradient(p).
constexpr int GRADIENTS = 4;
template <class V>
FASTNN_INLINE V gradient(int i, V a, V b) {
  return i == 0 ? a : i == 1 ? a + b : i == 2 ? a - b : b;
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
