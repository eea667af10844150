// Kernels run with denormals flushed to zero (threads.cpp), because products of them take 60 ns in place of 0.9. What
// has NumPy's arithmetic to the bit, or finds elements, turns that off, chunk by chunk: arithmetic.cpp, reduce.cpp.
#pragma once
#include "simd.h"

namespace fastnn {
namespace FASTNN_ISA {

// While in scope, in this thread, denormals are numbers, as NumPy and PyTorch have them.
#if defined(__x86_64__)
struct KeepDenormals {
  unsigned saved = _mm_getcsr();
  FASTNN_INLINE KeepDenormals() { _mm_setcsr(saved & ~0x8040u); }
  FASTNN_INLINE ~KeepDenormals() { _mm_setcsr(saved); }
};
#elif defined(__aarch64__)
struct KeepDenormals {
  uint64_t saved;
  FASTNN_INLINE KeepDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved));
    asm volatile("msr fpcr, %0" ::"r"(saved & ~(uint64_t(1) << 24)) : "memory");
  }
  FASTNN_INLINE ~KeepDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved) : "memory"); }
};
#else
struct KeepDenormals {
  FASTNN_INLINE KeepDenormals() {}
};
#endif

}  // namespace FASTNN_ISA
}  // namespace fastnn
