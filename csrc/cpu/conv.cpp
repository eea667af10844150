// Convolution and its three gradients: the choice of a plan by pass and shape, and the rows of the kernel table.
// How each plan works stands in its header; FASTNN_CONV=direct|implicit|im2col overrides the choice where possible.
#include <stdlib.h>

#include "conv_direct.h"
#include "conv_implicit.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

enum class Plan { direct, implicit, im2col };
enum class Pass { forward, input, weight };

// The first row whose pass and shape fit decides. Direct, the last, is never bad: it reads patches in place, so that
// nothing has to be repaid by a large M. Only a large dw is implicit: direct's dot products over few positions end in
// sums over lanes, and packing pays from 64 rows on.
Plan planned(const Geometry& g, Pass pass) {
  if (pass == Pass::weight && g.Kg >= 64 && g.T >= 256) return Plan::implicit;
  return Plan::direct;
}

bool possible(const Geometry& g, Pass pass, Plan plan) {
  if (pass == Pass::input)
    return plan == Plan::im2col || (plan == Plan::direct ? Raising::possible(g) : unit_stride(g));
  const int64_t channels = pass == Pass::weight ? 1 : g.Cg;
  return plan != Plan::direct || Lowering(g, false, channels, 1).possible(channels);
}

// The table's plan or FASTNN_CONV's; im2col, which can do everything, where that one is not possible.
Plan choose(const Geometry& g, Pass pass) {
  Plan plan = planned(g, pass);
  const char* wanted = getenv("FASTNN_CONV");
  if (wanted != nullptr && *wanted != '\0') {
    const bool direct = strcmp(wanted, "direct") == 0, implicit = strcmp(wanted, "implicit") == 0;
    FASTNN_CHECK(direct || implicit || strcmp(wanted, "im2col") == 0,
                 "FASTNN_CONV=%s must be direct, implicit or im2col", wanted);
    plan = direct ? Plan::direct : implicit ? Plan::implicit : Plan::im2col;
  }
  return possible(g, pass, plan) ? plan : Plan::im2col;
}

template <class T>
void fill_zero(const Array& a) {
  memset(a.ptr, 0, static_cast<size_t>(a.size) * sizeof(T));
}

template <class T>
void conv2d(const Array& x, const Array& w, const Array& bias, const Array& y, int64_t sh, int64_t sw, int64_t pt,
            int64_t pl, int64_t dh, int64_t dw, int64_t groups, int64_t activation) {
  const Geometry g = read_geometry(x, w, y, sh, sw, pt, pl, dh, dw, groups);
  FASTNN_CHECK(!bias || bias.size == g.K, "bias must have as many elements as w has output channels");
  FASTNN_CHECK(activation == 0 || activation == 1, "unknown activation");
  if (y.size == 0) return;
  const T* b = bias ? in<T>(bias) : nullptr;
  const Plan plan = choose(g, Pass::forward);
  if (plan == Plan::implicit) return forward_implicit(g, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  forward_lowered(g, plan == Plan::im2col, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
}

template <class T>
void conv2d_backward_input(const Array& dy, const Array& w, const Array& dx, int64_t sh, int64_t sw, int64_t pt,
                           int64_t pl, int64_t dh, int64_t dw, int64_t groups) {
  const Geometry g = read_geometry(dx, w, dy, sh, sw, pt, pl, dh, dw, groups);
  if (dx.size == 0) return;
  if (dy.size == 0 || w.size == 0) return fill_zero<T>(dx);
  const Plan plan = choose(g, Pass::input);
  if (plan == Plan::implicit) return backward_input_implicit(g, in<T>(dy), in<T>(w), out<T>(dx));
  if (plan == Plan::direct) return backward_input_direct(g, in<T>(dy), in<T>(w), out<T>(dx));
  backward_input_im2col(g, in<T>(dy), in<T>(w), out<T>(dx));
}

template <class T>
void conv2d_backward_weight(const Array& dy, const Array& x, const Array& dw_, int64_t sh, int64_t sw, int64_t pt,
                            int64_t pl, int64_t dh, int64_t dw, int64_t groups) {
  const Geometry g = read_geometry(x, dw_, dy, sh, sw, pt, pl, dh, dw, groups);
  if (dw_.size == 0) return;
  if (dy.size == 0 || x.size == 0) return fill_zero<T>(dw_);
  const Plan plan = choose(g, Pass::weight);
  if (plan == Plan::implicit) return backward_weight_implicit(g, in<T>(dy), in<T>(x), out<T>(dw_));
  backward_weight_lowered(g, plan == Plan::im2col, in<T>(dy), in<T>(x), out<T>(dw_));
}

// db[k] = sum over n and positions of dy[n,k,p]: each channel by itself, its images in order, lanes added at the end.
template <class T>
void conv2d_backward_bias(const Array& dy, const Array& db) {
  FASTNN_CHECK(dy.ndim == 4 && db.ndim == 1 && db.shape[0] == dy.shape[1], "db must have dy's channels");
  const int64_t N = dy.shape[0], K = dy.shape[1], P = dy.shape[2] * dy.shape[3];
  const T* from = in<T>(dy);
  T* to = out<T>(db);
  parallel_for(K, most(1, 32768 / most(1, N * P)), [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      Vec<T> sums[4] = {};
      for (int64_t n = 0; n < N; ++n) {
        const T* p = from + (n * K + k) * P;
        int64_t j = 0;
        for (; j + 4 * W<T> <= P; j += 4 * W<T>)
          for (int i = 0; i < 4; ++i) sums[i] += load(p + j + i * W<T>);
        for (; j + W<T> <= P; j += W<T>) sums[0] += load(p + j);
        if (j < P) sums[1] += load_n(p + j, P - j);
      }
      to[k] = sum_lanes<T>((sums[0] + sums[1]) + (sums[2] + sums[3]));
    }
  });
}

FASTNN_KERNELS(conv,
               FASTNN_KERNEL(conv2d,
                             "x, w, bias? -> y | stride_h, stride_w, pad_top, pad_left, dilation_h, dilation_w, "
                             "groups, activation"),
               FASTNN_KERNEL(conv2d_backward_input,
                             "dy, w -> dx | stride_h, stride_w, pad_top, pad_left, dilation_h, "
                             "dilation_w, groups"),
               FASTNN_KERNEL(conv2d_backward_weight,
                             "dy, x -> dw | stride_h, stride_w, pad_top, pad_left, dilation_h, "
                             "dilation_w, groups"),
               FASTNN_KERNEL(conv2d_backward_bias, "dy -> db"))

}  // namespace FASTNN_ISA
}  // namespace fastnn
