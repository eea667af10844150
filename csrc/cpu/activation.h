// The activations that a kernel may apply to what it stores (GEMM's and convolution's epilogues): those of
// ../formulas.h that take no parameter. Their numbers are those of kernels/gemm.py: 0 for none, then in the order of
// this list.
#pragma once
#include "math.h"

namespace fastnn {
namespace FASTNN_ISA {
#include "../formulas.h"

#define FASTNN_ACTIVATIONS(X) X(relu) X(sigmoid) X(tanh) X(silu) X(gelu) X(gelu_tanh)

#define FASTNN_NUMBER(name) name##_number,
enum Activation : int64_t { NO_ACTIVATION, FASTNN_ACTIVATIONS(FASTNN_NUMBER) ACTIVATIONS };
#undef FASTNN_NUMBER

// Calls body(f), f the activation as a function of vectors: one copy of body for each, with no branch inside.
template <class F>
FASTNN_INLINE void activated(int64_t activation, const F& body) {
  switch (activation) {
#define FASTNN_CASE(name) \
  case name##_number: return body([](auto v) __attribute__((always_inline)) { return name##_of(v); });
    FASTNN_ACTIVATIONS(FASTNN_CASE)
#undef FASTNN_CASE
    default: body([](auto v) __attribute__((always_inline)) { return v; });
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
