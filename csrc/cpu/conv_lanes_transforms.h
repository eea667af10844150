// Winograd's F(4, 5) and F(2, 5) along the width (Toom-Cook; Lavin & Gray, 2015, arXiv 1509.09308), images in lanes: M
// outputs of a row of five taps from M + 4 products in place of 5 M. The taps, and the M + 4 inputs x that they meet,
// are taken as polynomials; their values at points p are multiplied point by point:
//   y  = A^T [(G w) (B^T x)]          A^T M x (M + 4), G (M + 4) x 5, B^T (M + 4) x (M + 4)
//   dw = G^T [(A dy) (B^T x)]
// All is linear, so that channels, rows of the kernel and (in dw) positions and images are summed between the brackets.
// The points are pairs of a number and its negative, which share their even and their odd part, then 0 and infinity.
// Rounding errors, beside those of the plain sum: at most about three times with four outputs, from 15 terms on; with
// two, twice from 5 on. Longer ones and 2-d ones lose more. Next: conv_lanes_winograd.h.
#pragma once
#include "conv_lanes.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int ROW_TAPS = 5;

// The values at +p and -p from the even and the odd part.
template <class T>
FASTNN_INLINE void store_both(Vec<T> even, Vec<T> odd, T* to, int64_t plane) {
  store(to, even + odd);
  store(to + plane, even - odd);
}
FASTNN_INLINE void set_both(double scale, double even, double odd, double* u) {
  u[0] = scale * (even + odd);
  u[1] = scale * (even - odd);
}

// F(4, 5): the points 2, -2, 1/2, -1/2, 1, -1, 0, infinity.
struct FourOutputs {
  static constexpr int OUTPUTS = 4, POINTS = OUTPUTS + ROW_TAPS - 1;

  // B^T x: point p goes to to[p * plane].
  template <class T>
  static FASTNN_INLINE void input(const T* x, T* to, int64_t plane) {
    Vec<T> v[POINTS];
#pragma GCC unroll 8
    for (int i = 0; i < POINTS; ++i) v[i] = load(x + i * W<T>);
    const T half = T(0.5), quarter = T(0.25);
    store_both<T>(v[6] + (quarter * v[2] - T(1.25) * v[4]), half * v[1] + (2 * v[5] - T(2.5) * v[3]), to, plane);
    store_both<T>(v[6] + (4 * v[2] - 5 * v[4]), 2 * v[1] + (half * v[5] - T(2.5) * v[3]), to + 2 * plane, plane);
    store_both<T>((v[2] + v[6]) - T(4.25) * v[4], (v[1] + v[5]) - T(4.25) * v[3], to + 4 * plane, plane);
    store(to + 6 * plane, (v[0] - v[6]) + T(5.25) * (v[4] - v[2]));
    store(to + 7 * plane, (v[7] - v[1]) + T(5.25) * (v[3] - v[5]));
  }
  // A dy, columns from `columns` on being zero.
  template <class T>
  static FASTNN_INLINE void gradient(const T* dy, int64_t columns, T* to, int64_t plane) {
    Vec<T> v[OUTPUTS];
#pragma GCC unroll 4
    for (int i = 0; i < OUTPUTS; ++i) v[i] = i < columns ? load(dy + i * W<T>) : Vec<T>{};
    store_both<T>(v[0] + 4 * v[2], 2 * v[1] + 8 * v[3], to, plane);
    store_both<T>(v[0] + T(0.25) * v[2], T(0.5) * v[1] + T(0.125) * v[3], to + 2 * plane, plane);
    store_both<T>(v[0] + v[2], v[1] + v[3], to + 4 * plane, plane);
    store(to + 6 * plane, v[0]);
    store(to + 7 * plane, v[3]);
  }
  // A^T m: of a pair of points their sum and difference, m[p] and m[p + 1].
  template <class V>
  static FASTNN_INLINE void output(const V (&m)[POINTS], V (&y)[OUTPUTS]) {
    y[0] = (m[6] + m[4]) + (m[0] + m[2]);
    y[1] = m[5] + (2 * m[1] + m[3] / 2);
    y[2] = m[4] + (4 * m[0] + m[2] / 4);
    y[3] = (m[7] + m[5]) + (8 * m[1] + m[3] / 8);
  }
  // G w.
  static FASTNN_INLINE void weights(const double (&w)[ROW_TAPS], double (&u)[POINTS]) {
    set_both(1.0 / 90, w[0] + (4 * w[2] + 16 * w[4]), 2 * w[1] + 8 * w[3], u);
    set_both(2.0 / 45, 16 * w[0] + (4 * w[2] + w[4]), 8 * w[1] + 2 * w[3], u + 2);
    set_both(-2.0 / 9, w[0] + (w[2] + w[4]), w[1] + w[3], u + 4);
    u[6] = w[0];
    u[7] = w[4];
  }
  // G^T s.
  template <class V>
  static FASTNN_INLINE void taps(const V (&s)[POINTS], V (&dw)[ROW_TAPS]) {
    const V e2 = (s[0] + s[1]) / 90, o2 = (s[0] - s[1]) / 45;
    const V eh = (s[2] + s[3]) * 2 / 45, oh = (s[2] - s[3]) * 4 / 45;
    const V e1 = (s[4] + s[5]) * -2 / 9, o1 = (s[4] - s[5]) * -2 / 9;
    dw[0] = (s[6] + e1) + (e2 + 16 * eh);
    dw[1] = o1 + (o2 + 4 * oh);
    dw[2] = e1 + 4 * (e2 + eh);
    dw[3] = o1 + (4 * o2 + oh);
    dw[4] = (s[7] + e1) + (16 * e2 + eh);
  }
};

// F(2, 5): the points 2, -2, 1, -1, 0, infinity.
struct TwoOutputs {
  static constexpr int OUTPUTS = 2, POINTS = OUTPUTS + ROW_TAPS - 1;

  template <class T>
  static FASTNN_INLINE void input(const T* x, T* to, int64_t plane) {
    Vec<T> v[POINTS];
#pragma GCC unroll 6
    for (int i = 0; i < POINTS; ++i) v[i] = load(x + i * W<T>);
    store_both<T>(v[4] - v[2], 2 * (v[3] - v[1]), to, plane);
    store_both<T>(v[4] - 4 * v[2], v[3] - 4 * v[1], to + 2 * plane, plane);
    store(to + 4 * plane, v[4] + (4 * v[0] - 5 * v[2]));
    store(to + 5 * plane, v[5] + (4 * v[1] - 5 * v[3]));
  }
  template <class V>
  static FASTNN_INLINE void output(const V (&m)[POINTS], V (&y)[OUTPUTS]) {
    y[0] = (m[4] + m[2]) + m[0];
    y[1] = (m[5] + m[3]) + 2 * m[1];
  }
  static FASTNN_INLINE void weights(const double (&w)[ROW_TAPS], double (&u)[POINTS]) {
    set_both(1.0 / 24, w[0] + (4 * w[2] + 16 * w[4]), 2 * w[1] + 8 * w[3], u);
    set_both(-1.0 / 6, w[0] + (w[2] + w[4]), w[1] + w[3], u + 2);
    u[4] = w[0] / 4;
    u[5] = w[4];
  }
};

}  // namespace FASTNN_ISA
}  // namespace fastnn
