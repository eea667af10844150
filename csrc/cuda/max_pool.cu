// Max pooling, fixed and adaptive windows, forward and backward; arguments as in csrc/cpu/max_pool.cpp.
// Which maximum wins: the first in reading order; of several NaN the last. Next: pool.cuh.
#include "pool.cuh"

template <class T>
struct Winner {
  T value;
  int at;  // index in the plane
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

// By LANES neighbouring threads, 1 or a warp; all of them get it. Everyone begins at the corner.
template <int LANES, class T>
FASTNN_INLINE Winner<T> maximum(const T* plane, int corner, int rows, int row_step, int columns, int column_step) {
  Winner<T> best{plane[corner], corner};
  if constexpr (LANES == 1) {
    for (int k = 0; k < rows; ++k)
      for (int j = 0; j < columns; ++j) {
        const int at = corner + k * row_step + j * column_step;
        best.meet(plane[at], at);
      }
  } else {
    for (int i = threadIdx.x % LANES; i < rows * columns; i += LANES) {
      const int k = i / columns, at = corner + k * row_step + (i - k * columns) * column_step;
      best.meet(plane[at], at);
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
  const T* plane = x + o.plane * p.in_h * p.in_w;
  const int k0 = rows.first(o.h), k1 = rows.last(o.h), j0 = columns.first(o.w), j1 = columns.last(o.w);
  const int corner = (rows.start(o.h) + k0 * rows.dilation) * p.in_w + columns.start(o.w) + j0 * columns.dilation;
  Winner<T> best;
  if (KERNEL > 0 && k1 - k0 == KERNEL && j1 - j0 == KERNEL) {
    T v[KERNEL ? KERNEL : 1][KERNEL ? KERNEL : 1];
#pragma unroll
    for (int k = 0; k < KERNEL; ++k)
#pragma unroll
      for (int j = 0; j < KERNEL; ++j) v[k][j] = plane[corner + k * p.in_w + j];
    best = {v[0][0], corner};
#pragma unroll
    for (int k = 0; k < KERNEL; ++k)
#pragma unroll
      for (int j = 0; j < KERNEL; ++j) best.meet(v[k][j], corner + k * p.in_w + j);
  } else {
    best = maximum<LANES>(plane, corner, k1 - k0, rows.dilation * p.in_w, j1 - j0, columns.dilation);
  }
  if (LANES > 1 && threadIdx.x % LANES > 0) return;
  y[i] = best.value;
  if (indices) indices[i] = best.at;
  if (taps) {
    const int row = best.at / p.in_w, h = row - rows.start(o.h), w = best.at - row * p.in_w - columns.start(o.w);
    taps[i] = static_cast<uint8_t>(h / rows.dilation * columns.kernel + w / columns.dilation);
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

// An element takes from every window that covers it and has it as its winner, in reading order.
template <class T>
__global__ void max_pool2d_taps_backward(const T* dy, const uint8_t* taps, T* dx, Pool p) {
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Place e = place(i, p, p.in_h, p.in_w);
  const int plane = e.plane * p.out_h * p.out_w;
  T sum{};
  for (int k = p.kernel_h - 1; k >= 0; --k) {
    const int64_t top = e.h + p.padding_h - int64_t(k) * p.dilation_h, h = top / p.stride_h;
    if (top < 0 || h * p.stride_h != top || h >= p.out_h) continue;
    for (int j = p.kernel_w - 1; j >= 0; --j) {
      const int64_t left = e.w + p.padding_w - int64_t(j) * p.dilation_w, w = left / p.stride_w;
      if (left < 0 || w * p.stride_w != left || w >= p.out_w) continue;
      const int64_t o = plane + h * p.out_w + w;
      if (taps[o] == k * p.kernel_w + j) sum += dy[o];
    }
  }
  dx[i] = sum;
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
  const Winner<T> best = maximum<LANES>(plane, h0 * p.in_w + w0, h1 - h0, p.in_w, w1 - w0, 1);
  if (LANES > 1 && threadIdx.x % LANES > 0) return;
  y[i] = best.value;
  indices[i] = best.at;
}
