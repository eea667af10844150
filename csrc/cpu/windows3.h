// 3x3 windows with stride 1 or 2, W of them side by side: pooling and depthwise convolution. A block of columns goes
// down its plane; each row is read once, where it lies, and what it gives to its windows stays in registers. Only
// blocks at the plane's edge mask what lies outside: what they read there belongs to the planes beside, so that no more
// than the first and the last planes of an array, a margin's worth, are copied.
//   down3     y from x: the windows' three rows          gather3   dx from dy: the windows that cover an element
#pragma once
#include "pool.h"

namespace fastnn {
namespace FASTNN_ISA {

FASTNN_INLINE bool is_3x3(const WindowAxis& rows, const WindowAxis& columns) {
  const auto fits = [](const WindowAxis& a) {
    return a.kernel == 3 && a.dilation == 1 && (a.stride == 1 || a.stride == 2);
  };
  return fits(rows) && fits(columns) && rows.stride == columns.stride;
}

// Whether rows are long enough to repay; shorter ones go by pool_lanes.h.
template <class T>
FASTNN_INLINE bool by_windows3(const WindowAxis& columns) {
  return 4 * columns.in >= 3 * columns.stride * W<T>;
}

// Where plane p of `planes` x size elements may be read from `before` elements before it to `behind` ones behind it:
// in place, or in a copy with margins. What is in the margins does not matter.
template <class T>
class Margins {
 public:
  FASTNN_INLINE Margins(const T* x, int64_t planes, int64_t size, int64_t before, int64_t behind)
      : copy_(before + size + behind), x_(x), total_(planes * size), size_(size), before_(before), behind_(behind) {}
  FASTNN_INLINE const T* plane(int64_t p) const {
    const int64_t at = p * size_;
    if (at >= before_ && at + size_ + behind_ <= total_) return x_ + at;
    memcpy(copy_.get() + before_, x_ + at, size_t(size_) * sizeof(T));
    return copy_.get() + before_;
  }

 private:
  const Scratch<T> copy_;
  const T* const x_;
  const int64_t total_, size_, before_, behind_;
};
// For down3.
template <class T>
FASTNN_INLINE Margins<T> margins_of_windows(const WindowAxis& rows, const WindowAxis& columns, const T* x,
                                            int64_t planes) {
  const int64_t reach = columns.stride * (columns.out + W<T>)+2 - columns.padding;
  return {x, planes, rows.in * columns.in, most(0, columns.padding), most(0, reach - columns.in)};
}

template <class T>
FASTNN_INLINE Bits<T> lane_numbers() {
  typedef decltype(Bits<T>{}[0] + 0) I;
  Bits<T> lane{};
  for (int i = 0; i < W<T>; ++i) lane[i] = I(i);
  return lane;
}

// The three columns of W windows in one row of x, and their sum.
template <class T>
struct Row3 {
  Vec<T> v[3], sum;
};

// n windows side by side, from column o of outputs on; the other lanes count as outside.
template <class T, int S>
struct Block3 {
  Bits<T> inside[3];  // -1 where column j of the lane's window is one of x
  int64_t from;
  bool edge;
  FASTNN_INLINE Block3(const WindowAxis& columns, int64_t o, int64_t n) : from(o * S - columns.padding) {
    typedef decltype(Bits<T>{}[0] + 0) I;
    edge = n < W<T> || from < 0 || from + S * (W<T> - 1) + 2 >= columns.in;
    const Bits<T> lane = lane_numbers<T>();
    for (int j = 0; j < 3; ++j) {
      const Bits<T> column = lane * I(S) + I(from + j);
      inside[j] = (column >= 0) & (column < I(columns.in)) & (lane < I(n));
    }
  }
  template <bool EDGE>
  FASTNN_INLINE Row3<T> row(const T* x, T fill) const {
    const T* const p = x + from;
    Row3<T> r;
    if constexpr (S == 1) {
#pragma GCC unroll 3
      for (int j = 0; j < 3; ++j) r.v[j] = load(p + j);
    } else {
      const Vec<T> low = keep(load(p)), high = keep(load(p + W<T>));
      r.v[0] = every_second<0, T>(low, high, Lanes<T>{});
      r.v[1] = every_second<1, T>(low, high, Lanes<T>{});
      r.v[2] = next_lanes<T>(r.v[0], set(p[2 * W<T>]), Lanes<T>{});
    }
#pragma GCC unroll 3
    for (int j = 0; j < 3; ++j) r.v[j] = keep(EDGE ? (inside[j] ? r.v[j] : set(fill)) : r.v[j]);
    r.sum = r.v[0] + r.v[1] + r.v[2];
    return r;
  }
};

// The windows of output rows [begin, end). f.across(row of x, filled with f.fill) is what a row gives to its windows,
// f.none() what a row outside gives; f.down(o, n, first, second, third) makes the n outputs from output o of the plane
// on. Returns the lanes' sums of what was read: whether it held a NaN shows in them.
template <class T, int S, bool EDGE, class F>
FASTNN_INLINE Vec<T> down3(const WindowAxis& rows, int64_t row_size, int64_t outputs, const Block3<T, S>& block,
                           int64_t begin, int64_t end, const T* x, int64_t o, int64_t n, const F& f) {
  Vec<T> seen{};
  const auto across = [&](int64_t h) __attribute__((always_inline)) {
    if (h < 0 || h >= rows.in) return f.none();
    const Row3<T> row = block.template row<EDGE>(x + h * row_size, f.fill);
    seen += row.sum;
    return f.across(row);
  };
  int64_t h = begin * S - rows.padding;
  auto first = across(h++), second = S == 1 ? across(h++) : first;
  for (int64_t i = begin; i < end; ++i) {
    if (S == 2) second = across(h++);
    const auto third = across(h++);
    f.down(i * outputs + o, n, first, second, third);
    first = S == 1 ? second : third;
    second = third;
  }
  return seen;
}
template <class T, int S, class F>
FASTNN_INLINE Vec<T> down3(const WindowAxis& rows, const WindowAxis& columns, int64_t begin, int64_t end, const T* x,
                           const F& f) {
  Vec<T> seen{};
  const int64_t out = columns.out, n = least(W<T>, out);
  for (int64_t next = 0; next < out; next += W<T>) {
    const int64_t o = least(next, out - n);  // the last block overlaps its neighbour
    const Block3<T, S> block(columns, o, n);
    seen += block.edge ? down3<T, S, true>(rows, columns.in, out, block, begin, end, x, o, n, f)
                       : down3<T, S, false>(rows, columns.in, out, block, begin, end, x, o, n, f);
  }
  return seen;
}

// Calls body(plane, begin, end, last) for bands of rows [begin, end) of outputs, which share out all planes; `last` is
// the output, counted from the plane's first, before which its caller may write.
template <class T, class F>
FASTNN_INLINE void each_band(const WindowAxis& rows, const WindowAxis& columns, int64_t planes, const F& body) {
  const int64_t work = rows.in * columns.in + rows.out * columns.out, bands = most(1, work / (2 * GRAIN));
  const int64_t height = divide_up(rows.out, bands);
  parallel_for(planes * bands, most(1, GRAIN / work), [&](int64_t begin, int64_t end) {
    for (int64_t b = begin; b < end; ++b) {
      const int64_t from = least(rows.out, b % bands * height), to = least(rows.out, from + height);
      const int64_t planes_left = (end - 1) / bands - b / bands;
      const int64_t last = bands == 1 ? (planes_left + 1) * rows.out : to;
      body(b / bands, from, to, last * columns.out);
    }
  });
}

// The gradient of the windows: every element of dx gathers from the windows that cover it, in reading order, and is
// written once. S: the stride. ODD: columns.padding is odd. f.window(o, outside) is window o of the plane's outputs and
// those to its right, of which the lanes `outside` do not exist; f.add(sum, window, tap) adds what element `tap` of it
// receives.
template <class T, int S, bool ODD, class F>
FASTNN_INLINE void gather3(const WindowAxis& rows, const WindowAxis& columns, T* dx, const F& f) {
  typedef decltype(Bits<T>{}[0] + 0) I;
  constexpr int64_t SPAN = S * W<T>;  // columns of a block, the last of which overlaps its neighbour
  const int64_t width = columns.in, last = width < SPAN ? 0 : divide_up(width - SPAN, S) * S;
  const Bits<T> lane = lane_numbers<T>();
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
          const auto window = f.window(oh * columns.out + from[j], outside[j]);
#pragma GCC unroll 3
          for (int i = 0; i < 3; ++i) {
            Vec<T>& to = sum[i][S == 2 ? (j + ODD) % 2 : 0];
            to = f.add(to, window, 3 * i + j);
          }
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
template <class T, class F>
FASTNN_INLINE void gather3(const WindowAxis& rows, const WindowAxis& columns, T* dx, const F& f) {
  if (columns.stride == 1) return gather3<T, 1, false>(rows, columns, dx, f);
  if (columns.padding % 2 == 0) return gather3<T, 2, false>(rows, columns, dx, f);
  gather3<T, 2, true>(rows, columns, dx, f);
}
// For what f.window reads.
template <class T, class E>
FASTNN_INLINE Margins<E> margins_of_outputs(const WindowAxis& rows, const WindowAxis& columns, const E* dy,
                                            int64_t planes) {
  return {dy, planes, rows.out * columns.out, 2, columns.in + columns.padding + 3 * W<T>};
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
