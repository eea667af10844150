// The gradient of max pooling by 3x3 windows that overlap, from taps, in rows of most of a vector and more: every
// element of dx gathers from the windows that cover it, in reading order, and is written once. A block of columns goes
// down its plane; what the next windows add to stays in registers. Shorter rows go by pool_lanes.h.
#pragma once
#include "pool.h"

namespace fastnn {
namespace FASTNN_ISA {

template <class T>
FASTNN_INLINE bool by_gather(const Axis& rows, const Axis& columns) {
  const auto fits = [](const Axis& a) { return a.kernel == 3 && a.dilation == 1 && (a.stride == 1 || a.stride == 2); };
  return fits(rows) && fits(columns) && rows.stride == columns.stride && 4 * columns.in >= 3 * columns.stride * W<T>;
}

// S: the stride. ODD: columns.padding is odd. dy and taps may be read from 2 elements before them to gather_margin
// behind; what is there does not matter.
template <class T>
FASTNN_INLINE int64_t gather_margin(const Axis& columns) {
  return columns.in + 3 * W<T>;
}
template <class T, int S, bool ODD>
FASTNN_INLINE void gather_plane(const Axis& rows, const Axis& columns, const T* dy, const uint8_t* taps, T* dx) {
  typedef decltype(Bits<T>{}[0] + 0) I;
  constexpr int64_t SPAN = S * W<T>;  // columns of a block, the last of which overlaps its neighbour
  const int64_t width = columns.in, last = width < SPAN ? 0 : divide_up(width - SPAN, S) * S;
  Bits<T> lane{};
  for (int i = 0; i < W<T>; ++i) lane[i] = I(i);
  for (int64_t block = 0; block < width; block += SPAN) {
    const int64_t begin = least(block, last), n = least(SPAN, width - begin);
    int64_t from[3];     // the window whose element j lies in the block's first column of every S (lane 0)
    Bits<T> outside[3];  // -1 where there is no such window
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) {
      from[j] = (begin + (S == 2 ? (j + ODD) % 2 : 0) + columns.padding - j) / S;
      const Bits<T> at = lane + I(from[j]);
      outside[j] = (at < 0) | (at >= I(columns.out));
    }
    Vec<T> sum[3][S] = {};  // of the three rows below the window's corner, columns of equal remainder by S together
    for (int64_t oh = 0, h = -rows.padding; h < rows.in; ++oh, h += S) {
      if (oh < rows.out) {
#pragma GCC unroll 3
        for (int j = 2; j >= 0; --j) {
          const int64_t o = oh * columns.out + from[j];
          const Vec<T> g = load(dy + o), none{};
          const Bits<T> tap = load_bytes<T>(taps + o, W<T>) | outside[j];
#pragma GCC unroll 3
          for (int i = 0; i < 3; ++i) sum[i][S == 2 ? (j + ODD) % 2 : 0] += tap == Bits<T>{} + I(3 * i + j) ? g : none;
        }
      }
#pragma GCC unroll 2
      for (int i = 0; i < S; ++i) {
        T* const row = dx + (h + i) * width + begin;
        if (h + i < 0 || h + i >= rows.in) continue;
        if (S == 1) {
          store(row, sum[i][0], n);
        } else {
          store(row, zip_low<T>(sum[i][0], sum[i][S - 1], Lanes<T>{}), least(n, W<T>));
          if (n > W<T>) store(row + W<T>, zip_high<T>(sum[i][0], sum[i][S - 1], Lanes<T>{}), n - W<T>);
        }
      }
#pragma GCC unroll 3
      for (int i = 0; i < 3; ++i)
#pragma GCC unroll 2
        for (int c = 0; c < S; ++c) sum[i][c] = i + S < 3 ? sum[(i + S) % 3][c] : Vec<T>{};
    }
  }
}

template <class T, int S, bool ODD>
FASTNN_INLINE void gather_planes(const Axis& rows, const Axis& columns, const Array& dy, const Array& taps,
                                 const Array& dx) {
  const int64_t size = rows.in * columns.in, outputs = rows.out * columns.out, margin = gather_margin<T>(columns);
  parallel_for(planes_of(dx), most(1, GRAIN / (size + outputs)), [&](int64_t begin, int64_t end) {
    const Scratch<T> numbers(2 + outputs + margin);
    const Scratch<uint8_t> bytes(2 + outputs + margin);
    for (int64_t p = begin; p < end; ++p) {
      memcpy(numbers.get() + 2, in<T>(dy) + p * outputs, size_t(outputs) * sizeof(T));
      memcpy(bytes.get() + 2, in<uint8_t>(taps) + p * outputs, size_t(outputs));
      gather_plane<T, S, ODD>(rows, columns, numbers.get() + 2, bytes.get() + 2, out<T>(dx) + p * size);
    }
  });
}
template <class T>
FASTNN_INLINE void gather_planes(const Axis& rows, const Axis& columns, const Array& dy, const Array& taps,
                                 const Array& dx) {
  if (columns.stride == 1) return gather_planes<T, 1, false>(rows, columns, dy, taps, dx);
  if (columns.padding == 0) return gather_planes<T, 2, false>(rows, columns, dy, taps, dx);
  gather_planes<T, 2, true>(rows, columns, dy, taps, dx);
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
