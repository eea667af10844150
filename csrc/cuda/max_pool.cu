// Max pooling, fixed and adaptive windows, forward and backward; arguments as in csrc/cpu/max_pool.cpp.
// Which maximum wins: the first in reading order; of several NaN the last. Next: pool.cuh.
#include "pool.cuh"

template <class T>
struct Winner {
  T value;
  int at;  // its number: in the window, or (adaptive windows) in the plane
  // Meets the next in reading order.
  FASTNN_INLINE void meet(T v, int index) {
    const bool better = v > value || v != v;
    value = better ? v : value;
    at = better ? index : at;
  }
  // Meets the winner of other places.
  FASTNN_INLINE void join(T v, int index) {
    const bool nan = value != value, later = index > at;
    const bool better = v != v ? !nan || later : !nan && (v > value || (v == value && !later));
    value = better ? v : value;
    at = better ? index : at;
  }
};

// By LANES neighbouring threads, 1 or a warp; all of them get it. Everyone begins at the corner, whose number is
// `first`; a row's numbers are `numbers` beyond those of the row before.
template <int LANES, class T>
FASTNN_INLINE Winner<T> maximum(const T* corner, int rows, int row_step, int columns, int column_step, int first,
                                int numbers) {
  Winner<T> best{corner[0], first};
  if constexpr (LANES == 1) {
    for (int k = 0; k < rows; ++k)
      for (int j = 0; j < columns; ++j) best.meet(corner[k * row_step + j * column_step], first + k * numbers + j);
  } else {
    for (int i = threadIdx.x % LANES; i < rows * columns; i += LANES) {
      const int k = i / columns, j = i - k * columns;
      best.meet(corner[k * row_step + j * column_step], first + k * numbers + j);
    }
#pragma unroll
    for (int mask = LANES / 2; mask > 0; mask /= 2) {
      const T value = shuffle_xor(best.value, mask);
      best.join(value, shuffle_xor(best.at, mask));
    }
  }
  return best;
}

// LANES threads an output: a warp where windows are long. `indices` and `taps` (the winner's number in its window) may
// be missing. KERNEL x KERNEL windows inside the plane are read without tests, and all of a window is under way before
// its first element is looked at.
template <class T, int KERNEL, int STRIDE, int LANES>
__global__ void max_pool2d(const T* x, T* y, int64_t* indices, uint8_t* taps, Pool p) {
  const Axis rows = rows_of<KERNEL, STRIDE>(p), columns = columns_of<KERNEL, STRIDE>(p);
  const int i = own_number<LANES>();
  if (!below(i, p.count)) return;
  const Place o = place(i, p, p.out_h, p.out_w);
  const int k0 = rows.first(o.h), k1 = rows.last(o.h), j0 = columns.first(o.w), j1 = columns.last(o.w);
  const int start = rows.start(o.h) * p.in_w + columns.start(o.w), row_step = rows.dilation * p.in_w;  // in the plane
  const T* corner = x + o.plane * p.in_h * p.in_w + (start + k0 * row_step + j0 * columns.dilation);
  Winner<T> best;
  if (KERNEL > 0 && k1 - k0 == KERNEL && j1 - j0 == KERNEL) {
    T v[KERNEL ? KERNEL * KERNEL : 1];
#pragma unroll
    for (int n = 0; n < KERNEL * KERNEL; ++n) v[n] = corner[n / KERNEL * p.in_w + n % KERNEL];
    best = {v[0], 0};
#pragma unroll
    for (int n = 0; n < KERNEL * KERNEL; ++n) best.meet(v[n], n);
  } else {
    const int first = k0 * columns.kernel + j0;
    best = maximum<LANES>(corner, k1 - k0, row_step, j1 - j0, columns.dilation, first, columns.kernel);
  }
  if (LANES > 1 && threadIdx.x % LANES > 0) return;
  y[i] = best.value;
  if (taps) taps[i] = static_cast<uint8_t>(best.at);
  if (indices) {
    const int k = best.at / columns.kernel;
    indices[i] = start + k * row_step + (best.at - k * columns.kernel) * columns.dilation;
  }
}

// The same for 2x2 windows side by side, the common case, with taps.
template <class T, bool PAIRS>
__global__ void max_pool2x2(const T* x, T* y, uint8_t* taps, Pool p) {
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Place o = place(i, p, p.out_h, p.out_w);
  const T* corner = x + corner_of(o, p);
  const Pack<T, 2> top = load_two<PAIRS>(corner), bottom = load_two<PAIRS>(corner + p.in_w);
  Winner<T> best{top.v[0], 0};
  best.meet(top.v[1], 1);
  best.meet(bottom.v[0], 2);
  best.meet(bottom.v[1], 3);
  y[i] = best.value;
  taps[i] = static_cast<uint8_t>(best.at);
}

template <class T, bool PAIRS>
__global__ void max_pool2x2_backward(const T* dy, const uint8_t* taps, T* dx, Pool p) {
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Cell cell = cell_of(i, p);
  const T g = cell.covered ? dy[cell.window] : T(0);
  const int tap = cell.covered ? taps[cell.window] : 0;
  const Pack<T, 2> top{{tap == 0 ? g : T(0), tap == 1 ? g : T(0)}};
  const Pack<T, 2> bottom{{tap == 2 ? g : T(0), tap == 3 ? g : T(0)}};
  store_cell<PAIRS>(dx, p, cell.at, top, bottom);
}

// A thread an element of dx, which takes from the windows that have it as their winner, in reading order. `by_stride_*`
// divide by the strides.
template <class T>
__global__ void max_pool2d_taps_backward(const T* dy, const uint8_t* taps, T* dx, Pool p, int64_t by_stride_h,
                                         int64_t by_stride_w) {
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Axis rows = rows_of<0, 0>(p), columns = columns_of<0, 0>(p);
  const Place e = place(i, p, p.in_h, p.in_w);
  const int h1 = last_cover(rows, e.h, by_stride_h), w1 = last_cover(columns, e.w, by_stride_w);
  const int plane = e.plane * p.out_h * p.out_w, w0 = first_cover(columns, e.w, by_stride_w);
  T sum{};
  for (int h = first_cover(rows, e.h, by_stride_h); h <= h1; ++h) {
    const int down = e.h - rows.start(h), k = rows.dilation == 1 ? down : down / rows.dilation;
    if (k * rows.dilation != down) continue;
    for (int w = w0; w <= w1; ++w) {
      const int right = e.w - columns.start(w), j = columns.dilation == 1 ? right : right / columns.dilation;
      const int o = plane + h * p.out_w + w;
      if (j * columns.dilation == right && taps[o] == k * columns.kernel + j) sum += dy[o];
    }
  }
  dx[i] = sum;
}

// The same for 3x3 windows two apart (AlexNet), with PADDING 0 or 1: a thread a cell of 2 x 2 elements, which only four
// windows can cover, each read once. Element (d, e) of the cell is element (d + 2 - PADDING - 2 i, ...) of window i.
template <class T, int PADDING, bool PAIRS>
__global__ void max_pool3x3_backward(const T* dy, const uint8_t* taps, T* dx, Pool p) {
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Place at = place(i, p, cells(p.in_h), cells(p.in_w));
  const int top = at.h - 1 + PADDING, left = at.w - 1 + PADDING;
  T g[2][2];
  int tap[2][2];
#pragma unroll
  for (int k = 0; k < 2; ++k)
#pragma unroll
    for (int j = 0; j < 2; ++j) {
      const bool there = below(top + k, p.out_h) && below(left + j, p.out_w);
      const int o = (at.plane * p.out_h + top + k) * p.out_w + left + j;
      g[k][j] = there ? dy[o] : T(0);
      tap[k][j] = there ? taps[o] : -1;
    }
  Pack<T, 2> sums[2] = {};
#pragma unroll
  for (int n = 0; n < 16; ++n) {  // each window, each element
    const int k = n / 8, j = n / 4 % 2, d = n / 2 % 2, e = n % 2;
    const int row = d + 2 - PADDING - 2 * k, column = e + 2 - PADDING - 2 * j;
    if (row >= 0 && row < 3 && column >= 0 && column < 3)
      sums[d].v[e] += tap[k][j] == row * 3 + column ? g[k][j] : T(0);
  }
  store_cell<PAIRS>(dx, p, at, sums[0], sums[1]);
}

// dx = 0, then dx[plane, indices] += dy in reading order, to the bit as on the CPU. Indices may be anything, so windows
// are of no help: a block holds `band` elements of a plane (or `group` whole planes, where they are small) in shared
// memory and goes through the planes' outputs in chunks of one a thread. Where several of a chunk meet in one element
// they take turns, the first in reading order first: each calls at the element's slot, and the lowest thread of the
// turn wins. Elements that only share a slot take turns too, which changes nothing. An index outside its plane is left
// out. Grid (groups, bands); shared memory: 40 KB of sums, 8 KB of slots. The host keeps group * outputs below 2^31.
constexpr int SUM_BYTES = 40 * 1024, SLOTS = 2048, TURNS = 512;

template <class T>
__global__ void max_pool2d_backward(const T* dy, const int64_t* indices, T* dx, int64_t planes, int64_t size,
                                    int outputs, int band, int group, int64_t by_outputs) {
  __shared__ T sums[SUM_BYTES / sizeof(T)];
  __shared__ int slots[SLOTS];
  const int threads = int(blockDim.x), own = int(threadIdx.x);
  const int64_t first = int64_t(blockIdx.x) * group, low = int64_t(blockIdx.y) * band;
  const int count = planes - first < group ? int(planes - first) : group;
  const int width = size - low < band ? int(size - low) : band, windows = count * outputs;
  const auto forget_calls = [&] {
    for (int i = own; i < SLOTS; i += threads) slots[i] = 0;
    __syncthreads();
  };
  for (int i = own; i < count * width; i += threads) sums[i] = T(0);
  forget_calls();
  dy += first * outputs;
  indices += first * outputs;
  int turn = 0;
  int64_t next = -1;
  T next_g{};
  const auto fetch = [&](int i) {
    next = i < windows ? indices[i] - low : -1;
    next_g = i < windows ? dy[i] : T(0);
  };
  fetch(own);
  for (int from = 0; from < windows; from += threads) {
    const T g = next_g;
    bool waits = next >= 0 && next < width;
    const int at = !waits ? 0 : int(next) + (group > 1 ? divide(from + own, by_outputs) * width : 0);
    fetch(from + threads + own);  // on its way while the threads take turns
    int* const slot = slots + at % SLOTS;
    do {
      if (turn == TURNS) {  // calls stay below 2^31
        forget_calls();
        turn = 0;
      }
      ++turn;
      const int call = (turn + 1) * threads - own;
      if (waits) atomicMax(slot, call);
      __syncthreads();
      if (waits && *slot == call) {
        sums[at] += g;
        waits = false;
      }
    } while (__syncthreads_or(waits));
  }
  dx += first * size + low;
  for (int i = own; i < count * width; i += threads) dx[i] = sums[i];
}

template <class T, int LANES>
__global__ void adaptive_max_pool2d(const T* x, T* y, int64_t* indices, Pool p) {
  const int i = own_number<LANES>();
  if (!below(i, p.count)) return;
  const Place o = place(i, p, p.out_h, p.out_w);
  const T* plane = x + o.plane * p.in_h * p.in_w;
  const int h0 = int(adaptive_begin(o.h, p.in_h, p.out_h)), h1 = int(adaptive_end(o.h, p.in_h, p.out_h));
  const int w0 = int(adaptive_begin(o.w, p.in_w, p.out_w)), w1 = int(adaptive_end(o.w, p.in_w, p.out_w));
  const int corner = h0 * p.in_w + w0;
  const Winner<T> best = maximum<LANES>(plane + corner, h1 - h0, p.in_w, w1 - w0, 1, corner, p.in_w);
  if (LANES > 1 && threadIdx.x % LANES > 0) return;
  y[i] = best.value;
  indices[i] = best.at;
}
