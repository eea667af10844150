// Max pooling, fixed and adaptive windows, forward and backward.
// Which maximum wins: the first in reading order; of several NaN the last, as in PyTorch. Four ways: small planes W at
// a time (pool_lanes.h), 2x2 windows side by side (pool_pairs.h), 3x3 windows that overlap (windows3.h), and any
// windows row by row.
#include "pool_lanes.h"
#include "pool_pairs.h"
#include "windows3.h"

namespace fastnn {
namespace FASTNN_ISA {

// What is remembered of the winner: nothing, its number in its window (row by row; a byte), or its index in the plane.
enum Remember { NOTHING, TAP, INDEX };

constexpr int64_t TAPS = 256;  // that a byte can tell apart

// Whether v takes the maximum's place when it comes after it.
template <class V>
FASTNN_INLINE auto wins(V v, V best) {
  return (v > best) | (v != v);
}

template <class T>
struct Winner {
  T value;
  int64_t at;
};
struct Steps {
  int64_t count, step;
};

// The maximum of a window from `corner`, which is at index `at`, and where it is. A long row is first looked at in
// vectors, and element by element only if it holds something greater. Without branches otherwise: who wins cannot be
// predicted.
template <class T>
FASTNN_INLINE Winner<T> window_maximum(const T* corner, int64_t at, const Steps& rows, const Steps& columns) {
  T best = *corner;
  for (int64_t i = 0, row = at; i < rows.count; ++i, corner += rows.step, row += rows.step) {
    if (columns.step == 1 && columns.count >= W<T>) {
      Vec<T> v = load(corner);
      for (int64_t j = W<T>; j + W<T> <= columns.count; j += W<T>) v = maximum(v, load(corner + j));
      v = maximum(v, load(corner + columns.count - W<T>));
      bool greater = false;
      for (int j = 0; j < W<T>; ++j) greater |= !(v[j] <= best);
      if (!greater) continue;
    }
    for (int64_t j = 0; j < columns.count; ++j) {
      const T v = corner[j * columns.step];
      const bool better = wins(v, best);
      best = better ? v : best;
      at = better ? row + j * columns.step : at;
    }
  }
  return {best, at};
}

template <Remember WHAT>
struct MemoryType {
  typedef int64_t type;
};
template <>
struct MemoryType<TAP> {
  typedef uint8_t type;
};
template <Remember WHAT>
using Memory = typename MemoryType<WHAT>::type;

template <class T, int KERNEL, int STRIDE, Remember WHAT>
FASTNN_INLINE void max_row(const WindowAxis& rows, const WindowAxis& columns, const T* plane, const Room& room,
                           int64_t oh, T* y, Memory<WHAT>* memory) {
  const int64_t kw = KERNEL ? KERNEL : columns.kernel, sw = STRIDE ? STRIDE : columns.stride;
  const int64_t dh = rows.dilation, dw = columns.dilation;
  const int64_t k0 = rows.first(oh), k1 = rows.last(oh), top = rows.start(oh), row_size = columns.in;
  // With few outputs and long windows the vectors run along the window instead (global pooling).
  const bool along_window = dw == 1 && kw >= W<T> && kw > columns.out;
  const int64_t begin = along_window ? columns.out : columns.inner_begin();
  const int64_t end = along_window ? columns.out : columns.inner_end();

  const auto one = [&](int64_t ow) {
    const int64_t j0 = columns.first(ow), count = columns.last(ow) - j0;
    const int64_t corner = (top + k0 * dh) * row_size + columns.start(ow) + j0 * dw;
    const Winner<T> best = window_maximum(plane + corner, corner, {k1 - k0, dh * row_size}, {count, dw});
    y[ow] = best.value;
    if (WHAT == INDEX) memory[ow] = Memory<WHAT>(best.at);
    if (WHAT == TAP) {
      const int64_t h = best.at / row_size - top, w = best.at % row_size - columns.start(ow);
      memory[ow] = Memory<WHAT>(h / dh * kw + w / dw);
    }
  };
  for (int64_t ow = 0; ow < begin; ++ow) one(ow);
  const bool spill = begin < end && may_spill(room, rows, columns, oh, begin, W<T>);
  column_vectors<T>(begin, end, spill, [&](int64_t ow, int64_t n) __attribute__((always_inline)) {
    const int64_t corner = top * row_size + columns.start(ow);
    typedef decltype(Bits<T>{}[0] + 0) I;
    Vec<T> best = load_columns<T, STRIDE>(plane + corner + k0 * dh * row_size, sw, n);
    // A lane holds the winner's tap, or its index less the corner's: below 2^31, which the caller has checked.
    const int64_t down = WHAT == TAP ? kw : dh * row_size, right = WHAT == TAP ? 1 : dw;
    Bits<T> at = Bits<T>{} + I(k0 * down);
    for (int64_t k = k0; k < k1; ++k) {
      const int64_t offset = k * dh * row_size;
#pragma GCC unroll 3
      for (int64_t j = 0; j < kw; ++j) {
        const Vec<T> v = load_columns<T, STRIDE>(plane + corner + offset + j * dw, sw, n);
        const auto better = wins(v, best);
        best = better ? v : best;
        if (WHAT != NOTHING) at = better ? Bits<T>{} + I(k * down + j * right) : at;
      }
    }
    store(y + ow, best, n);
    if (WHAT == TAP) store_bytes<T>(reinterpret_cast<uint8_t*>(memory) + ow, at, n);
    if (WHAT == INDEX)
      for (int64_t i = 0; i < n; ++i) memory[ow + i] = Memory<WHAT>(corner + i * sw + at[i]);
  });
  for (int64_t ow = end; ow < columns.out; ++ow) one(ow);
}

template <class T, int KERNEL, int STRIDE, Remember WHAT>
FASTNN_INLINE void max_rows(const WindowAxis& rows, const WindowAxis& columns, const Array& x, T* y,
                            Memory<WHAT>* memory) {
  const int64_t work = columns.out * least(rows.kernel, rows.in) * least(columns.kernel, columns.in);
  parallel_for(planes_of(x) * rows.out, most(1, GRAIN / work), [&](int64_t begin, int64_t end) {
    for (int64_t r = begin; r < end; ++r) {
      const int64_t plane = r / rows.out * rows.in * columns.in, o = r * columns.out;
      const Room room{x.size - plane, (end - r) * columns.out};
      max_row<T, KERNEL, STRIDE, WHAT>(rows, columns, in<T>(x) + plane, room, r % rows.out, y + o,
                                       WHAT == NOTHING ? nullptr : memory + o);
    }
  });
}

// 3x3 windows that overlap. Each row's winner first, then the best of the three: still the first of equals in reading
// order. For numbers that the padding, which is minus infinity, loses against: planes with a NaN, which shows in the
// sum, or a window of nothing but minus infinity, which shows in the lowest output, go by max_row.
template <class T, Remember WHAT>
struct Max3 {
  struct Row {
    Vec<T> value;
    Bits<T> at;
  };
  int64_t width, room;  // of x's rows; outputs from the plane's first that may be written
  T* y;
  Memory<WHAT>* memory;
  int64_t stride, first_corner, outputs;  // INDEX: the plane's first window, and how many there are in a row
  Vec<T>& lowest;
  static constexpr T fill = -T(INFINITY);

  static FASTNN_INLINE Row better(const Row& a, Vec<T> value, Bits<T> at) {
    const auto wins = value > a.value;
    return {wins ? value : a.value, WHAT == NOTHING ? a.at : wins ? at : a.at};
  }
  FASTNN_INLINE Row none() const { return {set(fill), Bits<T>{}}; }
  FASTNN_INLINE Row across(const Row3<T>& row) const {
    return better(better({row.v[0], Bits<T>{}}, row.v[1], Bits<T>{} + 1), row.v[2], Bits<T>{} + 2);
  }
  FASTNN_INLINE void down(int64_t o, int64_t n, const Row& first, const Row& second, const Row& third) const {
    typedef decltype(Bits<T>{}[0] + 0) I;
    const I row = WHAT == TAP ? I(3) : I(width);
    const Row best = better(better(first, second.value, second.at + row), third.value, third.at + 2 * row);
    if (WHAT != NOTHING) lowest = best.value < lowest ? best.value : lowest;
    if (o + W<T> <= room) n = W<T>;  // what follows a short row is written later
    store(y + o, best.value, n);
    if constexpr (WHAT == TAP) store_bytes<T>(memory + o, best.at, n);
    if constexpr (WHAT == INDEX) {
      const int64_t corner = o / outputs * stride * width + o % outputs * stride + first_corner;
      for (int64_t i = 0; i < n; ++i) memory[o + i] = corner + i * stride + best.at[i];
    }
  }
};
template <class T, int S, Remember WHAT>
FASTNN_INLINE void max_windows3(const WindowAxis& rows, const WindowAxis& columns, const Array& x, T* y,
                                Memory<WHAT>* memory) {
  typedef decltype(Bits<T>{}[0] + 0) I;
  const int64_t size = rows.in * columns.in, outputs = rows.out * columns.out;
  const Bits<T> there = lane_numbers<T>() < I(least(W<T>, columns.out));
  each_band<T>(rows, columns, planes_of(x), [&](int64_t p, int64_t begin, int64_t end, int64_t room) {
    const auto margins = margins_of_windows(rows, columns, in<T>(x), planes_of(x));
    T* const to = y + p * outputs;
    Memory<WHAT>* const kept = WHAT == NOTHING ? nullptr : memory + p * outputs;
    const int64_t corner = -rows.padding * columns.in - columns.padding;
    Vec<T> lowest{};
    const Max3<T, WHAT> max{columns.in, room, to, kept, S, corner, columns.out, lowest};
    const Vec<T> sum = down3<T, S>(rows, columns, begin, end, margins.plane(p), max);
    const Vec<T> none{}, lost = (sum != sum) | ((lowest == max.fill) & there) ? none + 1 : none;
    if (sum_lanes<T>(lost) == 0) return;
    for (int64_t oh = begin; oh < end; ++oh) {
      const int64_t o = oh * columns.out;
      max_row<T, 3, S, WHAT>(rows, columns, in<T>(x) + p * size, {x.size - p * size, room - o}, oh, to + o,
                             WHAT == NOTHING ? nullptr : kept + o);
    }
  });
}

// Each row's winner first, then the better of the two: still the first of equals in reading order. CAREFUL: there may
// be a NaN, which shows in a sum of all elements.
template <class T, Remember WHAT, bool CAREFUL>
FASTNN_INLINE void max_pair(const Pairs<T>& t, const Pairs<T>& b, int64_t n, T* y, uint8_t* taps) {
  const auto better = [](Vec<T> v, Vec<T> best) __attribute__((always_inline)) -> Bits<T> {
    if constexpr (CAREFUL) return wins(v, best);
    return v > best;
  };
  const Bits<T> t_right = better(t.odd, t.even), b_right = better(b.odd, b.even);  // -1: yes
  const Vec<T> t_best = t_right ? t.odd : t.even, b_best = b_right ? b.odd : b.even;
  const Bits<T> below = better(b_best, t_best);
  store(y, below ? b_best : t_best, n);
  if (WHAT == TAP) store_bytes<T>(taps, below ? 2 - b_right : -t_right, n);
}
template <class T, Remember WHAT>
FASTNN_INLINE void max_pairs(const WindowAxis& rows, const WindowAxis& columns, const Array& x, T* y, uint8_t* taps) {
  const T* const px = in<T>(x);
  const int64_t size = x.size;
  const WindowAxis r = rows, c = columns;
  each_rows_of_pairs(rows, columns, planes_of(x), [=](int64_t begin, int64_t end) {
    Vec<T> seen{};
    each_pairs<T>(r, c, px, size, begin, end,
                  [&](int64_t o, int64_t n, const Pairs<T>& t, const Pairs<T>& b) __attribute__((always_inline)) {
                    seen += (t.even + t.odd) + (b.even + b.odd);
                    max_pair<T, WHAT, false>(t, b, n, y + o, taps + o);
                  });
    const T sum = sum_lanes<T>(seen);
    if (sum == sum) return;
    each_pairs<T>(r, c, px, size, begin, end,
                  [=](int64_t o, int64_t n, const Pairs<T>& t, const Pairs<T>& b)
                      __attribute__((always_inline)) { max_pair<T, WHAT, true>(t, b, n, y + o, taps + o); });
  });
}

// The windows of W planes, x (element, plane), y and at (output, plane). CAREFUL: there may be a NaN.
template <class T, Remember WHAT, int K, bool CAREFUL>
FASTNN_INLINE void max_lanes(const Windows& s, int64_t kernel_w, const T* x, T* y, T* at) {
  typedef decltype(Bits<T>{}[0] + 0) I;
  const int64_t down = s.step_h * s.in_w, right = s.step_w;
  s.each([&](int64_t o, const Span& r, const Span& c) __attribute__((always_inline)) {
    const int64_t corner = s.corner(r, c);
    const T* const first = x + corner * W<T>;
    Vec<T> best = load(first);
    Bits<T> winner = Bits<T>{} + I(WHAT == TAP ? r.first * kernel_w + c.first : 0);
    each_element<K>(r, c, kernel_w, [&](int64_t i, int64_t j, int64_t tap) __attribute__((always_inline)) {
      const int64_t place = i * down + j * right;
      const Vec<T> v = load(first + place * W<T>);
      const auto better = CAREFUL ? wins(v, best) : v > best;
      best = better ? v : best;
      if (WHAT != NOTHING) winner = better ? Bits<T>{} + I(WHAT == TAP ? tap : place) : winner;
    });
    store(y + o * W<T>, best);
    if (WHAT != NOTHING) store(at + o * W<T>, (Vec<T>)(WHAT == INDEX ? winner + I(corner) : winner));
  });
}
template <class T, Remember WHAT, int K>
FASTNN_INLINE void max_planes(const Windows& s, int64_t kernel_w, const Array& x, T* y, Memory<WHAT>* memory) {
  const T* const px = in<T>(x);
  const int64_t size = s.in(), outputs = s.out();
  each_block<T>(planes_of(x), size + outputs, [&](int64_t first, int64_t count) {
    const Scratch<T> scratch((size + 2 * outputs) * W<T>);
    T *const xs = scratch.get(), *const ys = xs + size * W<T>, *const at = ys + outputs * W<T>;
    const T sum = planes_to_lanes<T>(px + first * size, size, count, xs);
    if (sum == sum)
      max_lanes<T, WHAT, K, false>(s, kernel_w, xs, ys, at);
    else
      max_lanes<T, WHAT, 0, true>(s, kernel_w, xs, ys, at);
    lanes_to_planes<T>(ys, outputs, count, y + first * outputs);
    if (WHAT != NOTHING) lanes_to_planes<T>(at, outputs, count, memory + first * outputs);
  });
}

// Whole planes of at least a vector, W at once.
template <class T>
FASTNN_INLINE void max_whole(const T* x, int64_t planes, int64_t size, T* y) {
  each_block<T>(planes, size, [=](int64_t first, int64_t count) {
    const T* const from = x + first * size;
    Vec<T> seen{};
    reduce_planes<T>(
        count, y + first,
        [&](int64_t p) __attribute__((always_inline)) {
          const T* const plane = from + p * size;
          Vec<T> best = keep(load(plane + size - W<T>));
          seen += best;
          for (int64_t i = 0; i + W<T> < size; i += W<T>) {
            const Vec<T> v = keep(load(plane + i));
            best = v > best ? v : best;
            seen += v;
          }
          return best;
        },
        [](Vec<T> a, Vec<T> b) __attribute__((always_inline)) { return a > b ? a : b; },
        [](Vec<T> v) __attribute__((always_inline)) { return v; });
    const T sum = sum_lanes<T>(seen);
    if (sum == sum) return;
    for (int64_t p = 0; p < count; ++p)  // there may be a NaN
      y[first + p] = window_maximum(from + p * size, 0, {1, size}, {size, 1}).value;
  });
}

template <class T, Remember WHAT>
FASTNN_INLINE void max_pool(const WindowAxis& rows, const WindowAxis& columns, const Array& x, T* y,
                            Memory<WHAT>* memory) {
  const bool lanes = fits_lanes<T>(planes_of(x), rows.in * columns.in, rows.out * columns.out);
  if constexpr (WHAT != INDEX)
    if (is_2x2(rows, columns)) return max_pairs<T, WHAT>(rows, columns, x, y, reinterpret_cast<uint8_t*>(memory));
  if (is_3x3(rows, columns) && by_windows3<T>(columns)) {
    if (columns.stride == 1) return max_windows3<T, 1, WHAT>(rows, columns, x, y, memory);
    return max_windows3<T, 2, WHAT>(rows, columns, x, y, memory);
  }
  if constexpr (WHAT == NOTHING)
    if (is_global(rows, columns) && rows.in * columns.in >= W<T>)
      return max_whole(in<T>(x), planes_of(x), rows.in * columns.in, y);
  if (lanes)
    return with_windows(rows, columns, [&](const Windows& s) {
      with_side(rows, columns,
                [&](auto side) { max_planes<T, WHAT, decltype(side)::value>(s, columns.kernel, x, y, memory); });
    });
  if (columns.stride == 1)
    max_rows<T, 0, 1, WHAT>(rows, columns, x, y, memory);
  else if (columns.stride == 2)
    max_rows<T, 0, 2, WHAT>(rows, columns, x, y, memory);
  else
    max_rows<T, 0, 0, WHAT>(rows, columns, x, y, memory);
}

template <class T>
void max_pool2d(const Array& x, const Array& y, const Array& indices, const Array& taps, int64_t kh, int64_t kw,
                int64_t sh, int64_t sw, int64_t ph, int64_t pw, int64_t dh, int64_t dw) {
  check_arrays(x, y);
  FASTNN_CHECK(!indices || !taps, "indices or taps, not both");
  if (indices) check_like(indices, y);
  if (taps) check_like(taps, y);
  if (y.size == 0) return;
  const WindowAxis rows = axis(x, y, 2, kh, sh, ph, dh), columns = axis(x, y, 1, kw, sw, pw, dw);
  check_axis(rows);
  check_axis(columns);
  FASTNN_CHECK(!indices || rows.in * columns.in < int64_t(1) << 31, "a plane of more than 2^31 elements");
  FASTNN_CHECK(!taps || kh * kw <= TAPS, "a window of more than 256 elements");
  if (indices)
    max_pool<T, INDEX>(rows, columns, x, out<T>(y), out<int64_t>(indices));
  else if (taps)
    max_pool<T, TAP>(rows, columns, x, out<T>(y), out<uint8_t>(taps));
  else
    max_pool<T, NOTHING>(rows, columns, x, out<T>(y), nullptr);
}

// dx = 0, then dx[plane, indices] += dy in reading order.
template <class T>
void max_pool2d_backward(const Array& dy, const Array& indices, const Array& dx) {
  check_arrays(dx, dy);
  check_like(indices, dy);
  if (dx.size == 0) return;
  const int64_t planes = planes_of(dx), size = dx.size / planes, outputs = dy.size / planes;
  int64_t bad = 0;
  parallel_for(planes, most(1, GRAIN / (size + outputs)), [&](int64_t begin, int64_t end) {
    zero(out<T>(dx) + begin * size, (end - begin) * size);
    for (int64_t p = begin; p < end; ++p) {
      const T* g = in<T>(dy) + p * outputs;
      const int64_t* at = in<int64_t>(indices) + p * outputs;
      T* d = out<T>(dx) + p * size;
      for (int64_t i = 0; i < outputs; ++i) {
        if (uint64_t(at[i]) < uint64_t(size))
          d[at[i]] += g[i];
        else
          __atomic_store_n(&bad, 1, __ATOMIC_RELAXED);
      }
    }
  });
  FASTNN_CHECK(!bad, "an index lies outside its plane of %lld elements", static_cast<long long>(size));
}

// Each dy goes to its window's winner: dx (element, plane), dy and taps (output, plane). APART: no windows overlap.
template <class T, int K, bool APART>
FASTNN_INLINE void max_backward_lanes(const Windows& s, int64_t kernel_w, const T* dy, const T* taps, T* dx) {
  typedef decltype(Bits<T>{}[0] + 0) I;
  const int64_t down = s.step_h * s.in_w, right = s.step_w;
  zero(dx, s.in() * W<T>);
  s.each([&](int64_t o, const Span& r, const Span& c) __attribute__((always_inline)) {
    const Vec<T> g = load(dy + o * W<T>), none{};
    const Bits<T> at = (Bits<T>)load(taps + o * W<T>);
    T* const first = dx + s.corner(r, c) * W<T>;
    each_element<K>(r, c, kernel_w, [&](int64_t i, int64_t j, int64_t tap) __attribute__((always_inline)) {
      T* const d = first + (i * down + j * right) * W<T>;
      const Vec<T> share = at == Bits<T>{} + I(tap) ? g : none;
      store(d, APART ? share : load(d) + share);
    });
  });
}
template <class T, int K, bool APART>
FASTNN_INLINE void max_backward_planes(const Windows& s, int64_t kernel_w, const Array& dy, const Array& taps,
                                       const Array& dx) {
  const int64_t size = s.in(), outputs = s.out();
  each_block<T>(planes_of(dx), size + outputs, [&](int64_t first, int64_t count) {
    const Scratch<T> scratch((size + 2 * outputs) * W<T>);
    T *const ds = scratch.get(), *const gs = ds + size * W<T>, *const at = gs + outputs * W<T>;
    planes_to_lanes<T>(in<T>(dy) + first * outputs, outputs, count, gs);
    planes_to_lanes<T>(in<uint8_t>(taps) + first * outputs, outputs, count, at);
    max_backward_lanes<T, K, APART>(s, kernel_w, gs, at, ds);
    lanes_to_planes<T>(ds, size, count, out<T>(dx) + first * size);
  });
}

// One plane, output by output; a tap outside the window or the plane, which no forward pass gives, is passed over.
template <class T>
FASTNN_INLINE void max_backward_plane(const WindowAxis& rows, const WindowAxis& columns, const T* dy,
                                      const uint8_t* taps, T* dx) {
  zero(dx, rows.in * columns.in);
  const auto inside = [](int64_t i, int64_t n) { return uint64_t(i) < uint64_t(n); };
  int64_t down[TAPS], right[TAPS];
  for (int64_t k = 0; k < TAPS; ++k) {
    down[k] = k < rows.kernel * columns.kernel ? k / columns.kernel * rows.dilation : rows.in + rows.padding;
    right[k] = k % columns.kernel * columns.dilation;
  }
  for (int64_t oh = 0; oh < rows.out; ++oh)
    for (int64_t ow = 0; ow < columns.out; ++ow) {
      const uint8_t tap = *taps++;
      const int64_t h = rows.start(oh) + down[tap], w = columns.start(ow) + right[tap];
      const T g = *dy++;
      if (inside(h, rows.in) && inside(w, columns.in)) dx[h * columns.in + w] += g;
    }
}

template <class T>
struct MaxGather3 {
  struct Window {
    Vec<T> g;
    Bits<T> tap;
  };
  const T* dy;
  const uint8_t* taps;
  FASTNN_INLINE Window window(int64_t o, Bits<T> outside) const {
    return {load(dy + o), load_bytes<T>(taps + o, W<T>) | outside};
  }
  FASTNN_INLINE Vec<T> add(Vec<T> sum, const Window& window, int tap) const {
    const Vec<T> none{};
    return sum + (window.tap == Bits<T>{} + tap ? window.g : none);
  }
};
template <class T>
FASTNN_INLINE void max_gather3(const WindowAxis& rows, const WindowAxis& columns, const T* dy, const uint8_t* taps,
                               int64_t planes, T* dx) {
  const int64_t size = rows.in * columns.in, outputs = rows.out * columns.out;
  parallel_for(planes, most(1, GRAIN / (size + outputs)), [&](int64_t begin, int64_t end) {
    const auto numbers = margins_of_outputs<T>(rows, columns, dy, planes);
    const auto bytes = margins_of_outputs<T>(rows, columns, taps, planes);
    for (int64_t p = begin; p < end; ++p)
      gather3(rows, columns, dx + p * size, MaxGather3<T>{numbers.plane(p), bytes.plane(p)});
  });
}

template <class T>
void max_pool2d_taps_backward(const Array& dy, const Array& taps, const Array& dx, int64_t kh, int64_t kw, int64_t sh,
                              int64_t sw, int64_t ph, int64_t pw, int64_t dh, int64_t dw) {
  check_arrays(dx, dy);
  check_like(taps, dy);
  if (dx.size == 0) return;
  const WindowAxis rows = axis(dx, dy, 2, kh, sh, ph, dh), columns = axis(dx, dy, 1, kw, sw, pw, dw);
  check_axis(rows);
  check_axis(columns);
  FASTNN_CHECK(kh * kw <= TAPS, "a window of more than 256 elements");
  const int64_t size = rows.in * columns.in, outputs = rows.out * columns.out, planes = planes_of(dx);
  const T* const g = in<T>(dy);
  const uint8_t* const at = in<uint8_t>(taps);
  if (by_pairs_backward<T>(rows, columns))  // dy goes to one of four places, the other three are zero
    return each_pairs_backward<T>(rows, columns, dy, dx,
                                  [=](int64_t o, int64_t n, int row) __attribute__((always_inline)) {
                                    const Bits<T> tap = load_bytes<T>(at + o, n) - 2 * row;
                                    const Vec<T> v = load(g + o, n), none{};
                                    return Pairs<T>{tap == 0 ? v : none, tap == 1 ? v : none};
                                  });
  if (is_3x3(rows, columns) && by_windows3<T>(columns)) return max_gather3(rows, columns, g, at, planes, out<T>(dx));
  if (fits_lanes<T>(planes, size, outputs))
    return with_windows(rows, columns, [&](const Windows& s) {
      if (is_2x2(rows, columns)) return max_backward_planes<T, 2, true>(s, kw, dy, taps, dx);
      with_side(rows, columns,
                [&](auto side) { max_backward_planes<T, decltype(side)::value, false>(s, kw, dy, taps, dx); });
    });
  parallel_for(planes, most(1, GRAIN / (size + outputs)), [&](int64_t begin, int64_t end) {
    for (int64_t p = begin; p < end; ++p)
      max_backward_plane(rows, columns, g + p * outputs, at + p * outputs, out<T>(dx) + p * size);
  });
}

template <class T>
void adaptive_max_pool2d(const Array& x, const Array& y, const Array& indices) {
  check_arrays(x, y);
  check_like(indices, y);
  if (y.size == 0) return;
  const int64_t row_size = x.shape[x.ndim - 1];
  check_adaptive(x, y);
  const WindowAxis rows = fixed_axis(x, y, 2), columns = fixed_axis(x, y, 1);
  if (rows.kernel > 0 && columns.kernel > 0 && rows.in * columns.in < int64_t(1) << 31)
    return max_pool<T, INDEX>(rows, columns, x, out<T>(y), out<int64_t>(indices));
  if (fits_lanes<T>(planes_of(x), x.size / planes_of(x), y.size / planes_of(x)))
    return with_adaptive_windows(
        x, y, [&](const Windows& s) { max_planes<T, INDEX, 0>(s, 0, x, out<T>(y), out<int64_t>(indices)); });
  adaptive_windows(x, y, [&](int64_t plane, int64_t o, int64_t h0, int64_t h1, int64_t w0, int64_t w1) {
    const int64_t corner = h0 * row_size + w0;
    const Winner<T> best = window_maximum(in<T>(x) + plane + corner, corner, {h1 - h0, row_size}, {w1 - w0, 1});
    out<T>(y)[o] = best.value;
    out<int64_t>(indices)[o] = best.at;
  });
}
FASTNN_KERNELS(max_pool,
               FASTNN_KERNEL(max_pool2d, "x -> y, indices:i64?, taps:u8? | " FASTNN_WINDOW ", dilation_h, dilation_w"),
               FASTNN_KERNEL(max_pool2d_backward, "dy, indices:i64 -> dx"),
               FASTNN_KERNEL(max_pool2d_taps_backward, "dy, taps:u8 -> dx | " FASTNN_WINDOW ", dilation_h, dilation_w"),
               FASTNN_KERNEL(adaptive_max_pool2d, "x -> y, indices:i64"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
