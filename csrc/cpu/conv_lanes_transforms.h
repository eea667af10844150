// Winograd's F(4, 5) along the width (Toom-Cook; Lavin & Gray, 2015, arXiv 1509.09308), images in lanes: four outputs
// of a row of five taps from 8 products in place of 20. The taps, and the eight inputs x that they meet, are taken as
// polynomials; their values at the points 2, -2, 1/2, -1/2, 1, -1, 0 and infinity are multiplied point by point:
//   y  = A^T [(G w) (B^T x)]          A^T 4 x 8, G 8 x 5, B^T 8 x 8
//   dw = G^T [(A dy) (B^T x)]
// All is linear, so that channels, rows of the kernel and (in dw) positions and images are summed between the brackets.
// A point and its negative share their even and their odd part. 1-d transforms with these points keep the error below
// three times that of the plain sum; longer ones and 2-d ones do not. Next: conv_lanes_winograd.h.
#pragma once
#include "conv_lanes.h"

namespace fastnn {
namespace FASTNN_ISA {

constexpr int ROW_TAPS = 5, ROW_OUTPUTS = 4, ROW_POINTS = 8;

FASTNN_INLINE int64_t row_tiles(int64_t outputs) { return divide_up(outputs, ROW_OUTPUTS); }

// The values at +p and -p from the even and the odd part.
template <class T>
FASTNN_INLINE void store_both(Vec<T> even, Vec<T> odd, T* to, int64_t plane) {
  store(to, even + odd);
  store(to + plane, even - odd);
}

// B^T x of columns x[0 .. 8): point p goes to to[p * plane].
template <class T>
FASTNN_INLINE void input_points(const T* x, T* to, int64_t plane) {
  Vec<T> v[ROW_POINTS];
#pragma GCC unroll 8
  for (int i = 0; i < ROW_POINTS; ++i) v[i] = load(x + i * W<T>);
  const T half = T(0.5), quarter = T(0.25);
  store_both<T>(v[6] + (quarter * v[2] - T(1.25) * v[4]), half * v[1] + (2 * v[5] - T(2.5) * v[3]), to, plane);
  store_both<T>(v[6] + (4 * v[2] - 5 * v[4]), 2 * v[1] + (half * v[5] - T(2.5) * v[3]), to + 2 * plane, plane);
  store_both<T>((v[2] + v[6]) - T(4.25) * v[4], (v[1] + v[5]) - T(4.25) * v[3], to + 4 * plane, plane);
  store(to + 6 * plane, (v[0] - v[6]) + T(5.25) * (v[4] - v[2]));
  store(to + 7 * plane, (v[7] - v[1]) + T(5.25) * (v[3] - v[5]));
}

// A dy of four columns, those from `columns` on being zero.
template <class T>
FASTNN_INLINE void gradient_points(const T* dy, int64_t columns, T* to, int64_t plane) {
  Vec<T> v[ROW_OUTPUTS];
#pragma GCC unroll 4
  for (int i = 0; i < ROW_OUTPUTS; ++i) v[i] = i < columns ? load(dy + i * W<T>) : Vec<T>{};
  store_both<T>(v[0] + 4 * v[2], 2 * v[1] + 8 * v[3], to, plane);
  store_both<T>(v[0] + T(0.25) * v[2], T(0.5) * v[1] + T(0.125) * v[3], to + 2 * plane, plane);
  store_both<T>(v[0] + v[2], v[1] + v[3], to + 4 * plane, plane);
  store(to + 6 * plane, v[0]);
  store(to + 7 * plane, v[3]);
}

// y = A^T m, the sums and differences of the first three pairs of points already taken.
template <class T>
FASTNN_INLINE void outputs_of_points(const Vec<T> (&even)[3], const Vec<T> (&odd)[3], Vec<T> zero, Vec<T> infinity,
                                     Vec<T> (&y)[ROW_OUTPUTS]) {
  y[0] = (zero + even[2]) + (even[0] + even[1]);
  y[1] = odd[2] + (2 * odd[0] + T(0.5) * odd[1]);
  y[2] = even[2] + (4 * even[0] + T(0.25) * even[1]);
  y[3] = (infinity + odd[2]) + (8 * odd[0] + T(0.125) * odd[1]);
}

// G w of five taps, w[s * step]: in double, so that each is rounded once.
template <class T>
FASTNN_INLINE void weight_points(const T* w, int64_t step, T (&u)[ROW_POINTS]) {
  const double w0 = w[0], w1 = w[step], w2 = w[2 * step], w3 = w[3 * step], w4 = w[4 * step];
  const auto both = [&](int at, double scale, double even, double odd) __attribute__((always_inline)) {
    u[at] = T(scale * (even + odd));
    u[at + 1] = T(scale * (even - odd));
  };
  both(0, 1.0 / 90, w0 + (4 * w2 + 16 * w4), 2 * w1 + 8 * w3);
  both(2, 2.0 / 45, 16 * w0 + (4 * w2 + w4), 8 * w1 + 2 * w3);
  both(4, -2.0 / 9, w0 + (w2 + w4), w1 + w3);
  u[6] = T(w0);
  u[7] = T(w4);
}

// dw = G^T s of the sums at the points.
template <class V>
FASTNN_INLINE void taps_of_points(const V (&s)[ROW_POINTS], V (&dw)[ROW_TAPS]) {
  const V e2 = (s[0] + s[1]) / 90, o2 = (s[0] - s[1]) / 45;
  const V eh = (s[2] + s[3]) * 2 / 45, oh = (s[2] - s[3]) * 4 / 45;
  const V e1 = (s[4] + s[5]) * -2 / 9, o1 = (s[4] - s[5]) * -2 / 9;
  dw[0] = (s[6] + e1) + (e2 + 16 * eh);
  dw[1] = o1 + (o2 + 4 * oh);
  dw[2] = e1 + 4 * (e2 + eh);
  dw[3] = o1 + (4 * o2 + oh);
  dw[4] = (s[7] + e1) + (16 * e2 + eh);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
