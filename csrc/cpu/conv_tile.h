// The two register tiles of direct convolution. Both are GEMMs whose right-hand matrix is never packed: row t of it is
// the run of memory that starts at b + offsets[t]. What the offsets are is conv_lower.h's business.
//   multiply   c[m][j] = bias[m] + sum over t of a[m][t] b[offsets[t] + j]
//   dots       c[m][t] += sum over j of d[m][j] b[offsets[t] + j]
#pragma once
#include "activation.h"
#include "conv.h"
#include "transpose.h"

namespace fastnn {
namespace FASTNN_ISA {

// Accumulators in registers: 12 of 16 (24 of 32 with AVX-512); the others hold one side's vectors and a broadcast.
constexpr int ACCUMULATORS = FASTNN_VECTOR_BYTES == 64 ? 24 : 12;
constexpr int DIRECT_ROWS = 6;
constexpr int DOT_ROWS = 4;
FASTNN_INLINE constexpr int tile_vectors(int rows) { return ACCUMULATORS / rows < 8 ? ACCUMULATORS / rows : 8; }

// The left-hand matrix of multiply: rows in even blocks of at most DIRECT_ROWS, each block as [t][row].
template <class T, class F>
FASTNN_INLINE void pack_rows(int64_t rows, int64_t taps, T* packed, F element) {
  const Split split(rows, divide_up(rows, DIRECT_ROWS));
  for (int64_t i = 0; i < split.parts; ++i)
    for (int64_t t = 0; t < taps; ++t)
      for (int64_t m = split.begin(i); m < split.begin(i + 1); ++m) *packed++ = element(m, t);
}

struct Epilogue {
  const void* bias;  // a number for each row, or null
  bool relu;
};

// columns: more than (NV - 1) * W, at most NV * W. Reads up to the next multiple of W.
template <class T, int MR, int NV>
void tile(const T* a, const T* b, const int64_t* offsets, int64_t taps, T* c, int64_t ldc, int64_t columns,
          const T* bias, bool relu) {
  Vec<T> acc[MR][NV];
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) acc[m][v] = bias ? set<T>(bias[m]) : Vec<T>{};
  for (int64_t t = 0; t < taps; ++t, a += MR) {
    const T* row = b + offsets[t];
    if constexpr (MR >= NV) {
      Vec<T> x[NV];
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) x[v] = load(row + v * W<T>);
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m)
#pragma GCC unroll 8
        for (int v = 0; v < NV; ++v) acc[m][v] += a[m] * x[v];
    } else {
      Vec<T> s[MR];
#pragma GCC unroll 8
      for (int m = 0; m < MR; ++m) s[m] = set<T>(a[m]);
#pragma GCC unroll 8
      for (int v = 0; v < NV; ++v) {
        const Vec<T> x = keep(load(row + v * W<T>));
#pragma GCC unroll 8
        for (int m = 0; m < MR; ++m) acc[m][v] += s[m] * x;
      }
    }
  }
  const int64_t last = columns - (NV - 1) * W<T>;
#pragma GCC unroll 8
  for (int m = 0; m < MR; ++m) {
#pragma GCC unroll 8
    for (int v = 0; v < NV; ++v) {
      const Vec<T> y = relu ? relu_of(acc[m][v]) : acc[m][v];
      T* to = c + m * ldc + v * W<T>;
      if (v < NV - 1 || last == W<T>)
        store(to, y);
      else
        store_n(to, y, last);
    }
  }
}

// MR rows over any number of columns: as many vectors at a time as there are accumulators.
template <class T, int MR, int NV = tile_vectors(MR)>
FASTNN_INLINE void tail(const T* a, const T* b, const int64_t* offsets, int64_t taps, T* c, int64_t ldc,
                        int64_t columns, const T* bias, bool relu) {
  if constexpr (NV > 1)
    if (columns <= (NV - 1) * W<T>) return tail<T, MR, NV - 1>(a, b, offsets, taps, c, ldc, columns, bias, relu);
  tile<T, MR, NV>(a, b, offsets, taps, c, ldc, columns, bias, relu);
}
template <class T, int MR>
void rows(const T* a, const T* b, const int64_t* offsets, int64_t taps, T* c, int64_t ldc, int64_t columns,
          const T* bias, bool relu) {
  constexpr int64_t step = tile_vectors(MR) * W<T>;
  int64_t j = 0;
  for (; j + step <= columns; j += step)
    tile<T, MR, tile_vectors(MR)>(a, b + j, offsets, taps, c + j, ldc, step, bias, relu);
  if (j < columns) tail<T, MR>(a, b + j, offsets, taps, c + j, ldc, columns - j, bias, relu);
}

// All rows, a panel of columns after the other: a panel of b stays in L1 while the rows pass over it.
template <class T>
void multiply(const T* packed, int64_t m, int64_t taps, const T* b, const int64_t* offsets, T* c, int64_t ldc,
              int64_t columns, const Epilogue& epilogue) {
  const Split split(m, divide_up(m, DIRECT_ROWS));
  const int64_t panel = tile_vectors(int(split.begin(1))) * W<T>;  // the first block is no smaller than the others
  for (int64_t j = 0; j < columns; j += panel)
    for (int64_t i = 0; i < split.parts; ++i) {
      const int64_t begin = split.begin(i), n = least(panel, columns - j);
      const T* a = packed + begin * taps;
      const T* bias = epilogue.bias ? static_cast<const T*>(epilogue.bias) + begin : nullptr;
      T* to = c + begin * ldc + j;
      switch (split.begin(i + 1) - begin) {
        case 1: rows<T, 1>(a, b + j, offsets, taps, to, ldc, n, bias, epilogue.relu); break;
        case 2: rows<T, 2>(a, b + j, offsets, taps, to, ldc, n, bias, epilogue.relu); break;
        case 3: rows<T, 3>(a, b + j, offsets, taps, to, ldc, n, bias, epilogue.relu); break;
        case 4: rows<T, 4>(a, b + j, offsets, taps, to, ldc, n, bias, epilogue.relu); break;
        case 5: rows<T, 5>(a, b + j, offsets, taps, to, ldc, n, bias, epilogue.relu); break;
        default: rows<T, 6>(a, b + j, offsets, taps, to, ldc, n, bias, epilogue.relu);
      }
    }
}

// Lane i of the result is the sum of the lanes of v[i].
template <class T, int S = W<T> / 2>
FASTNN_INLINE Vec<T> sum_lanes_of_each(Vec<T> (&v)[W<T>]) {
#pragma GCC unroll 16
  for (int i = 0; i < S; ++i) {
    exchange<T, S>(v[i], v[i + S], typename Count<W<T>>::type{});
    v[i] += v[i + S];
  }
  if constexpr (S > 1) return sum_lanes_of_each<T, S / 2>(v);
  return v[0];
}

// to[m * to_row + t] += the sum of the lanes of acc[m * NT + t].
template <class T, int MR, int NT>
FASTNN_INLINE void add_lane_sums(const Vec<T> (&acc)[MR * NT], T* to, int64_t to_row) {
#pragma GCC unroll 32
  for (int i = 0; i < MR * NT; i += W<T>) {
    Vec<T> v[W<T>];
#pragma GCC unroll 16
    for (int j = 0; j < W<T>; ++j) v[j] = i + j < MR * NT ? acc[i + j < MR * NT ? i + j : 0] : Vec<T>{};
    const Vec<T> sums = sum_lanes_of_each<T>(v);
#pragma GCC unroll 16
    for (int j = 0; j < W<T>; ++j)
      if (i + j < MR * NT) to[(i + j) / NT * to_row + (i + j) % NT] += sums[j];
  }
}

// What dots runs over: `images` times `columns` positions, the sums staying in registers from image to image.
template <class T>
struct DotOperands {
  const T* d;  // [image][m][j]
  int64_t ldd, d_image;
  const T* b;  // [image][offsets[t] + j]
  int64_t b_image;
  int64_t images, columns;
};

template <class T, int MR, int NT>
void dot_tile(const DotOperands<T>& o, int64_t m, const int64_t* offsets, T* c, int64_t ldc) {
  Vec<T> acc[MR * NT] = {};
  for (int64_t n = 0; n < o.images; ++n) {
    const T* d = o.d + n * o.d_image + m * o.ldd;
    const T* b[NT];
#pragma GCC unroll 8
    for (int t = 0; t < NT; ++t) b[t] = o.b + n * o.b_image + offsets[t];
    const auto step = [&](auto read) __attribute__((always_inline)) {
      if constexpr (MR <= NT) {
        Vec<T> left[MR];
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) left[i] = keep(read(d + i * o.ldd));
#pragma GCC unroll 8
        for (int t = 0; t < NT; ++t) {
          const Vec<T> right = keep(read(b[t]));
#pragma GCC unroll 8
          for (int i = 0; i < MR; ++i) acc[i * NT + t] += left[i] * right;
        }
      } else {
        Vec<T> right[NT];
#pragma GCC unroll 8
        for (int t = 0; t < NT; ++t) right[t] = keep(read(b[t]));
#pragma GCC unroll 8
        for (int i = 0; i < MR; ++i) {
          const Vec<T> left = keep(read(d + i * o.ldd));
#pragma GCC unroll 8
          for (int t = 0; t < NT; ++t) acc[i * NT + t] += left * right[t];
        }
      }
    };
    int64_t j = 0;
    for (; j + W<T> <= o.columns; j += W<T>)
      step([j](const T* p) __attribute__((always_inline)) { return load(p + j); });
    const int64_t left_over = o.columns - j;
    if (left_over > 0)
      step([j, left_over](const T* p) __attribute__((always_inline)) { return load_n(p + j, left_over); });
  }
  add_lane_sums<T, MR, NT>(acc, c, ldc);
}

template <class T, int MR, int NT = tile_vectors(MR)>
FASTNN_INLINE void dot_taps(const DotOperands<T>& o, int64_t m, const int64_t* offsets, int64_t taps, T* c,
                            int64_t ldc) {
  if constexpr (NT > 1)
    if (taps < NT) return dot_taps<T, MR, NT - 1>(o, m, offsets, taps, c, ldc);
  dot_tile<T, MR, NT>(o, m, offsets, c, ldc);
}

// c: m x taps. The taps are the outer loop: their runs of b are read once from L2, the rows of d from L1 each time.
template <class T>
void dots(const DotOperands<T>& o, int64_t m, const int64_t* offsets, int64_t taps, T* c, int64_t ldc) {
  const Split split(m, divide_up(m, DOT_ROWS));
  const Split tap_split(taps, divide_up(taps, tile_vectors(int(split.begin(1)))));
  for (int64_t j = 0; j < tap_split.parts; ++j) {
    const int64_t t = tap_split.begin(j), n = tap_split.begin(j + 1) - t;
    for (int64_t i = 0; i < split.parts; ++i) {
      const int64_t begin = split.begin(i);
      T* to = c + begin * ldc + t;
      switch (split.begin(i + 1) - begin) {
        case 1: dot_taps<T, 1>(o, begin, offsets + t, n, to, ldc); break;
        case 2: dot_taps<T, 2>(o, begin, offsets + t, n, to, ldc); break;
        case 3: dot_taps<T, 3>(o, begin, offsets + t, n, to, ldc); break;
        default: dot_taps<T, 4>(o, begin, offsets + t, n, to, ldc);
      }
    }
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
