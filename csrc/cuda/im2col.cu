// im2col and col2im as kernels of their own: F.unfold and F.fold. One thread per number written, in a fixed order.
//   unfold   columns[n, (c,r,s), (i,j)] = x[n, c, i*sh + r*dh - pt, j*sw + s*dw - pl], zero outside
//   fold     its transpose: each number of x is the sum of the columns that unfold would make of it
#include "common.cuh"

// planes = N * C; the output has Ho x Wo positions of an R x S kernel.
struct Columns {
  int64_t planes, H, W, R, S, Ho, Wo, sh, sw, pt, pl, dh, dw;
};

template <class T>
__global__ void unfold(const T* x, T* columns, Columns g) {
  for (int64_t at : grid_stride(g.planes * g.R * g.S * g.Ho * g.Wo)) {
    const int64_t j = at % g.Wo, i = at / g.Wo % g.Ho, row = at / (g.Wo * g.Ho);
    const int64_t s = row % g.S, r = row / g.S % g.R, plane = row / (g.S * g.R);
    const int64_t h = i * g.sh + r * g.dh - g.pt, v = j * g.sw + s * g.dw - g.pl;
    columns[at] = h >= 0 && h < g.H && v >= 0 && v < g.W ? x[(plane * g.H + h) * g.W + v] : T(0);
  }
}

template <class T>
__global__ void fold(const T* columns, T* x, Columns g) {
  for (int64_t at : grid_stride(g.planes * g.H * g.W)) {
    const int64_t v = at % g.W, h = at / g.W % g.H, plane = at / (g.W * g.H);
    T sum = 0;
    for (int64_t r = 0; r < g.R; ++r) {
      const int64_t top = h + g.pt - r * g.dh, i = top / g.sh;
      if (top < 0 || top % g.sh != 0 || i >= g.Ho) continue;
      for (int64_t s = 0; s < g.S; ++s) {
        const int64_t left = v + g.pl - s * g.dw, j = left / g.sw;
        if (left < 0 || left % g.sw != 0 || j >= g.Wo) continue;
        sum += columns[(((plane * g.R + r) * g.S + s) * g.Ho + i) * g.Wo + j];
      }
    }
    x[at] = sum;
  }
}
