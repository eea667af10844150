// Average pooling, fixed and adaptive windows, forward and backward; arguments as in csrc/cpu/avg_pool.cpp. A gradient
// is gathered: each element of dx adds up the windows that cover it, in reading order. Next: pool.cuh.
#include "pool.cuh"

// What a window's sum is divided by: `override`, or where that is 0 its size, padding included or not.
template <class T>
FASTNN_INLINE T divisor_of(const Axis& rows, const Axis& columns, int h, int w, int include_padding, int override) {
  if (override) return static_cast<T>(override);
  if (include_padding) return static_cast<T>(rows.padded_count(h)) * static_cast<T>(columns.padded_count(w));
  return static_cast<T>(rows.last(h) - rows.first(h)) * static_cast<T>(columns.last(w) - columns.first(w));
}

// The sum of `rows` x `columns` elements by LANES neighbouring threads, 1 or a warp; all of them get it. A window may
// be a whole image: rows, or what a lane takes of 32 times 32 elements, are added up in T, and those sums in double.
template <int LANES, class T>
FASTNN_INLINE double window_sum(const T* corner, int row_step, int rows, int columns) {
  double total = 0;
  if constexpr (LANES == 1) {
    for (int k = 0; k < rows; ++k) {
      T sum{};
      for (int j = 0; j < columns; ++j) sum += corner[k * row_step + j];
      total += static_cast<double>(sum);
    }
    return total;
  } else {
    const bool run = columns == row_step;  // whole rows touch
    for (int from = threadIdx.x % LANES; from < rows * columns; from += 32 * LANES) {
      T sum{};
      for (int i = from; i < rows * columns && i < from + 32 * LANES; i += LANES)
        sum += corner[run ? i : i / columns * row_step + i % columns];
      total += static_cast<double>(sum);
    }
    return warp_reduce<LANES>(total, Sum{});
  }
}

// LANES threads an output: a warp where windows are long. KERNEL x KERNEL windows inside the plane without tests.
template <class T, int KERNEL, int STRIDE, int LANES>
__global__ void avg_pool2d(const T* x, T* y, Pool p, int include_padding, int override) {
  const Axis rows = rows_of<KERNEL, STRIDE>(p), columns = columns_of<KERNEL, STRIDE>(p);
  const int i = own_number<LANES>();
  if (!below(i, p.count)) return;
  const Place o = place(i, p, p.out_h, p.out_w);
  const int h0 = rows.first(o.h), h1 = rows.last(o.h), w0 = columns.first(o.w), w1 = columns.last(o.w);
  const T* corner = x + (o.plane * p.in_h + rows.start(o.h) + h0) * p.in_w + columns.start(o.w) + w0;
  if (KERNEL > 0 && h1 - h0 == KERNEL && w1 - w0 == KERNEL) {
    T sum{};
#pragma unroll
    for (int k = 0; k < KERNEL; ++k)
#pragma unroll
      for (int j = 0; j < KERNEL; ++j) sum += corner[k * p.in_w + j];
    y[i] = sum / divisor_of<T>(rows, columns, o.h, o.w, include_padding, override);
  } else {
    const double sum = window_sum<LANES>(corner, p.in_w, h1 - h0, w1 - w0);
    if (LANES > 1 && threadIdx.x % LANES > 0) return;
    y[i] = static_cast<T>(sum / divisor_of<double>(rows, columns, o.h, o.w, include_padding, override));
  }
}

// A thread an element of dx.
template <class T>
__global__ void avg_pool2d_backward(const T* dy, T* dx, Pool p, int64_t by_stride_h, int64_t by_stride_w,
                                    int include_padding, int override) {
  const Axis rows = rows_of<0, 0>(p), columns = columns_of<0, 0>(p);
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Place e = place(i, p, p.in_h, p.in_w);
  const int h1 = last_cover(rows, e.h, by_stride_h), w1 = last_cover(columns, e.w, by_stride_w);
  const T* plane = dy + e.plane * p.out_h * p.out_w;
  T sum{};
  for (int h = first_cover(rows, e.h, by_stride_h); h <= h1; ++h)
    for (int w = first_cover(columns, e.w, by_stride_w); w <= w1; ++w)
      sum += plane[h * p.out_w + w] / divisor_of<T>(rows, columns, h, w, include_padding, override);
  dx[i] = sum;
}

// Whole 2x2 windows side by side.
template <class T, bool PAIRS>
__global__ void avg_pool2x2_backward(const T* dy, T* dx, Pool p, int divisor) {
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Cell cell = cell_of(i, p);
  const T share = cell.covered ? dy[cell.window] / static_cast<T>(divisor) : T(0);
  store_cell<PAIRS>(dx, p, cell.at, Pack<T, 2>{{share, share}}, Pack<T, 2>{{share, share}});
}

template <class T, int LANES>
__global__ void adaptive_avg_pool2d(const T* x, T* y, Pool p) {
  const int i = own_number<LANES>();
  if (!below(i, p.count)) return;
  const Place o = place(i, p, p.out_h, p.out_w);
  const int h0 = int(adaptive_begin(o.h, p.in_h, p.out_h)), h1 = int(adaptive_end(o.h, p.in_h, p.out_h));
  const int w0 = int(adaptive_begin(o.w, p.in_w, p.out_w)), w1 = int(adaptive_end(o.w, p.in_w, p.out_w));
  const T* corner = x + (o.plane * p.in_h + h0) * p.in_w + w0;
  const double sum = window_sum<LANES>(corner, p.in_w, h1 - h0, w1 - w0);
  if (LANES > 1 && threadIdx.x % LANES > 0) return;
  y[i] = static_cast<T>(sum / (static_cast<double>(h1 - h0) * static_cast<double>(w1 - w0)));
}

// A thread an element of dx. Windows o with floor(o in / out) <= at < ceil((o + 1) in / out) cover it: those from
// floor(at out / in) to ceil((at + 1) out / in) - 1, by the same two functions with the sides exchanged.
template <class T>
__global__ void adaptive_avg_pool2d_backward(const T* dy, T* dx, Pool p) {
  const auto length = [](int o, int in, int out) { return T(adaptive_end(o, in, out) - adaptive_begin(o, in, out)); };
  const int i = own_number();
  if (!below(i, p.count)) return;
  const Place e = place(i, p, p.in_h, p.in_w);
  const int h0 = int(adaptive_begin(e.h, p.out_h, p.in_h)), h1 = int(adaptive_end(e.h, p.out_h, p.in_h));
  const int w0 = int(adaptive_begin(e.w, p.out_w, p.in_w)), w1 = int(adaptive_end(e.w, p.out_w, p.in_w));
  const T* plane = dy + e.plane * p.out_h * p.out_w;
  T sum{};
  for (int h = h0; h < h1; ++h)
    for (int w = w0; w < w1; ++w)
      sum += plane[h * p.out_w + w] / (length(h, p.in_h, p.out_h) * length(w, p.in_w, p.out_w));
  dx[i] = sum;
}
