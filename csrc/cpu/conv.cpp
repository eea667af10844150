// Convolution and its three gradients: the choice of a plan by pass and shape, and the rows of the kernel table.
// How each plan works stands in its header; FASTNN_CONV=direct|implicit|lanes|lanes_winograd|winograd|shallow|
// phases|depthwise|pointwise|im2col overrides the choice where possible.
#include <stdlib.h>

#include "conv_depthwise.h"
#include "conv_direct.h"
#include "conv_implicit.h"
#include "conv_lanes_winograd_weight.h"
#include "conv_phases.h"
#include "conv_pointwise.h"
#include "conv_shallow.h"
#include "conv_winograd.h"
#include "table.h"

namespace fastnn {
namespace FASTNN_ISA {

enum class Plan { direct, implicit, lanes, lanes_winograd, winograd, shallow, phases, depthwise, pointwise, im2col };
constexpr const char* NAMES[] = {"direct",  "implicit", "lanes",     "lanes_winograd", "winograd",
                                 "shallow", "phases",   "depthwise", "pointwise",      "im2col"};
enum class Pass { forward, input, weight };

// The table of plans: the first row that fits decides, by its column for the pass.
Plan planned(const Geometry& g, Pass pass, int64_t lanes) {
  constexpr Plan direct = Plan::direct, implicit = Plan::implicit, in_lanes = Plan::lanes, winograd = Plan::winograd,
                 shallow = Plan::shallow, phases = Plan::phases, depthwise = Plan::depthwise;
  const bool stride1 = unit_stride(g), pointwise = g.R == 1 && g.S == 1;
  // Images that fill the lanes, to three quarters at least.
  const bool full = 4 * g.N >= 3 * lanes * divide_up(g.N, lanes);
  // Winograd wins from 16 channels on, batch 1 included; for dw only where there are tiles enough to repay 16 sums a
  // weight, or those sums (4 MB of floats) stay in cache.
  const int64_t tiles = g.N * divide_up(g.Ho, 2) * divide_up(g.Wo, 2);
  const bool repaid = pass != Pass::weight || tiles >= 64 || (tiles >= 16 && g.Cg * g.Kg <= 1 << 16);
  // dx of small maps without padding is mostly what dy's surroundings of zeros give: lanes pass over these.
  const bool sparse = pass == Pass::input && full && g.R == 5 && 2 * g.P < g.H * g.W;
  const bool for_winograd = winograd_possible(g) && g.Cg >= 16 && g.Kg >= 16 && repaid && !sparse;
  // Few channels in: 2.25 times fewer multiplications where tiles fill the lanes, to three quarters at least; dw where
  // the sums of one channel are too few to repay the transform of dy, those of three not too many for the registers.
  const bool for_shallow = pass != Pass::input && shallow_possible(g, pass == Pass::weight) && g.Kg * lanes >= 128 &&
                           2 * g.Wo >= 3 * lanes * divide_up(g.Wo, 2 * lanes) &&
                           (pass == Pass::forward || g.Cg == 2 || g.Cg == 3);
  // Strides in three steps, where the phases' products are two thirds of the plain ones at most.
  const bool for_phases = pass != Pass::input && phases_possible(g) && g.Cg * g.sh * g.sw >= 16 && g.Kg >= 16 &&
                          tiles >= 64 && g.R * g.S >= 6 * g.sh * g.sw;
  // Few products for each of many outputs: writing is what costs, and goes best a whole map at a time.
  const bool few_taps = g.T < 64 && g.Kg >= 32;
  // As a GEMM, dw has rows and columns enough to repay packing.
  const bool large = g.Cg >= 16 && g.Kg >= 32 && g.T >= 256;
  const bool deep = g.Cg >= 64 && g.Kg >= 64;
  const auto in_rows = [&](int64_t outputs, int64_t terms) {
    return lanes_winograd_pays(g, outputs, terms) ? Plan::lanes_winograd : in_lanes;
  };
  const struct {
    bool fits;
    Plan forward, input, weight;
  } table[] = {
      {for_winograd, winograd, winograd, winograd},
      {for_shallow, shallow, direct, shallow},
      {for_phases, phases, direct, phases},
      {depthwise_possible(g) && most(g.Wo, g.W) >= 12, depthwise, depthwise, depthwise},
      {pointwise_possible(g) && (g.P >= 64 || g.N < 4), Plan::pointwise, Plan::pointwise, Plan::pointwise},
      {pointwise, full && stride1 ? implicit : direct, stride1 ? implicit : Plan::im2col, large ? implicit : direct},
      {few_taps, direct, stride1 ? direct : in_lanes, direct},
      {full && large && g.R * g.S <= 9, in_lanes, in_lanes, direct},
      {full && lanes_winograd_possible(g, lanes), in_rows(g.Wo, g.Cg * g.R), in_rows(g.W, g.Kg * g.R),
       in_rows(g.Wo, g.N * g.P)},
      {full, in_lanes, in_lanes, in_lanes},
      {true, direct, deep && stride1 ? implicit : direct, direct},
  };
  const auto* row = table;
  while (!row->fits) ++row;
  return pass == Pass::forward ? row->forward : pass == Pass::input ? row->input : row->weight;
}

bool possible(const Geometry& g, Pass pass, Plan plan, int64_t lanes) {
  switch (plan) {
    case Plan::winograd: return winograd_possible(g);
    case Plan::lanes_winograd: return lanes_winograd_possible(g, lanes) && possible(g, pass, Plan::lanes, lanes);
    case Plan::phases: return pass != Pass::input && phases_possible(g);
    case Plan::shallow: return pass != Pass::input && shallow_possible(g, pass == Pass::weight);
    case Plan::pointwise: return pointwise_possible(g);
    case Plan::depthwise: return depthwise_possible(g);
    case Plan::implicit: return pass != Pass::input || unit_stride(g);
    case Plan::lanes:
      if (pass == Pass::weight) return lanes_weight_possible(g, lanes);
      return (pass == Pass::forward ? lanes_forward(g, lanes) : lanes_backward(g, lanes)).possible(lanes);
    case Plan::direct:
      if (pass == Pass::input) return Raising::possible(g);
      return Lowering(g, false, pass == Pass::weight ? 1 : g.Cg, 1).possible(pass == Pass::weight ? 1 : g.Cg);
    default: return true;
  }
}

// FASTNN_CONV's plan, or -1. Read once: another thread may change the environment at any time.
int wanted_plan() {
  static const int wanted = [] {
    const char* name = getenv("FASTNN_CONV");
    if (name == nullptr || *name == '\0') return -1;
    for (int i = 0; i < int(sizeof(NAMES) / sizeof(*NAMES)); ++i)
      if (strcmp(name, NAMES[i]) == 0) return i;
    fail(
        "FASTNN_CONV=%s must be direct, implicit, lanes, lanes_winograd, winograd, shallow, phases, depthwise, "
        "pointwise or im2col",
        name);
  }();
  return wanted;
}

// The table's plan or FASTNN_CONV's; im2col, which can do everything, where that one is not possible.
template <class T>
Plan choose(const Geometry& g, Pass pass) {
  const Plan plan = wanted_plan() < 0 ? planned(g, pass, W<T>) : Plan(wanted_plan());
  return possible(g, pass, plan, W<T>) ? plan : Plan::im2col;
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
  const Plan plan = choose<T>(g, Pass::forward);
  if (plan == Plan::lanes) return forward_lanes(g, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  if (plan == Plan::lanes_winograd) return forward_lanes_winograd(g, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  if (plan == Plan::implicit) return forward_implicit(g, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  if (plan == Plan::winograd) return forward_winograd(g, false, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  if (plan == Plan::phases) return forward_phases(g, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  if (plan == Plan::shallow) return forward_shallow(g, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  if (plan == Plan::pointwise) return forward_pointwise(g, in<T>(x), in<T>(w), b, activation, out<T>(y));
  if (plan == Plan::depthwise) return forward_depthwise(g, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
  forward_lowered(g, plan == Plan::im2col, in<T>(x), in<T>(w), b, activation == 1, out<T>(y));
}

template <class T>
void conv2d_backward_input(const Array& dy, const Array& w, const Array& dx, int64_t sh, int64_t sw, int64_t pt,
                           int64_t pl, int64_t dh, int64_t dw, int64_t groups) {
  const Geometry g = read_geometry(dx, w, dy, sh, sw, pt, pl, dh, dw, groups);
  if (dx.size == 0) return;
  if (dy.size == 0 || w.size == 0) return fill_zero<T>(dx);
  const Plan plan = choose<T>(g, Pass::input);
  if (plan == Plan::lanes) return backward_input_lanes(g, in<T>(dy), in<T>(w), out<T>(dx));
  if (plan == Plan::lanes_winograd) return backward_input_lanes_winograd(g, in<T>(dy), in<T>(w), out<T>(dx));
  if (plan == Plan::implicit) return backward_input_implicit(g, in<T>(dy), in<T>(w), out<T>(dx));
  if (plan == Plan::winograd) return backward_input_winograd(g, in<T>(dy), in<T>(w), out<T>(dx));
  if (plan == Plan::pointwise) return backward_input_pointwise(g, in<T>(dy), in<T>(w), out<T>(dx));
  if (plan == Plan::depthwise) return backward_input_depthwise(g, in<T>(dy), in<T>(w), out<T>(dx));
  if (plan == Plan::direct) return backward_input_direct(g, in<T>(dy), in<T>(w), out<T>(dx));
  backward_input_im2col(g, in<T>(dy), in<T>(w), out<T>(dx));
}

template <class T>
void conv2d_backward_weight(const Array& dy, const Array& x, const Array& dw_, int64_t sh, int64_t sw, int64_t pt,
                            int64_t pl, int64_t dh, int64_t dw, int64_t groups) {
  const Geometry g = read_geometry(x, dw_, dy, sh, sw, pt, pl, dh, dw, groups);
  if (dw_.size == 0) return;
  if (dy.size == 0 || x.size == 0) return fill_zero<T>(dw_);
  const Plan plan = choose<T>(g, Pass::weight);
  if (plan == Plan::lanes) return backward_weight_lanes(g, in<T>(dy), in<T>(x), out<T>(dw_));
  if (plan == Plan::lanes_winograd) return backward_weight_lanes_winograd(g, in<T>(dy), in<T>(x), out<T>(dw_));
  if (plan == Plan::implicit) return backward_weight_implicit(g, in<T>(dy), in<T>(x), out<T>(dw_));
  if (plan == Plan::winograd) return backward_weight_winograd(g, in<T>(dy), in<T>(x), out<T>(dw_));
  if (plan == Plan::phases) return backward_weight_phases(g, in<T>(dy), in<T>(x), out<T>(dw_));
  if (plan == Plan::shallow) return backward_weight_shallow(g, in<T>(dy), in<T>(x), out<T>(dw_));
  if (plan == Plan::pointwise) return backward_weight_pointwise(g, in<T>(dy), in<T>(x), out<T>(dw_));
  if (plan == Plan::depthwise) return backward_weight_depthwise(g, in<T>(dy), in<T>(x), out<T>(dw_));
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
