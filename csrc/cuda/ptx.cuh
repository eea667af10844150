// The instructions that CUDA C++ has no portable word for: warp operations, tensor cores, asynchronous copies,
// rounding to short formats. Kernels reach all of them through these functions, and write no asm themselves. The second
// body of each, which g++ compiles for the tests, stands in tests/emulator/ptx.h under the same name.
// A warp operation is called by all 32 lanes. From sm_80 on: mma_*, to_tf32, to_bf16x2.
#pragma once
#ifdef FASTNN_EMULATOR
#include "emulator/ptx.h"
#else

#define FASTNN_DEVICE __device__ __forceinline__

typedef signed char int8_t;
typedef unsigned char uint8_t;
typedef short int16_t;
typedef unsigned short uint16_t;
typedef int int32_t;
typedef unsigned int uint32_t;
typedef long long int64_t;
typedef unsigned long long uint64_t;

constexpr unsigned ALL_LANES = 0xffffffffu;

// The value of another lane: lane ^ mask, lane + delta, lane - delta (its own where that leaves the warp), or the lane
// named. T is int, unsigned, int64_t, float or double.
template <class T>
FASTNN_DEVICE T shuffle_xor(T value, int mask) {
  return __shfl_xor_sync(ALL_LANES, value, mask);
}
template <class T>
FASTNN_DEVICE T shuffle_down(T value, int delta) {
  return __shfl_down_sync(ALL_LANES, value, delta);
}
template <class T>
FASTNN_DEVICE T shuffle_up(T value, int delta) {
  return __shfl_up_sync(ALL_LANES, value, delta);
}
template <class T>
FASTNN_DEVICE T shuffle(T value, int lane) {
  return __shfl_sync(ALL_LANES, value, lane);
}
// Bit i: lane i's predicate.
FASTNN_DEVICE unsigned ballot(bool predicate) { return __ballot_sync(ALL_LANES, predicate); }

// The block's dynamic shared memory, as many bytes as the launch asked for; 16-byte aligned.
FASTNN_DEVICE void* dynamic_shared_memory() {
  extern __shared__ __align__(16) unsigned char fastnn_dynamic_shared[];
  return fastnn_dynamic_shared;
}

// d += a b on the tensor cores. With g = lane / 4 and t = lane % 4 the lane holds
//   d (16 x 8):      (g, 2t) (g, 2t + 1) (g + 8, 2t) (g + 8, 2t + 1)
//   tf32, a (16 x 8) (g, t) (g + 8, t) (g, t + 4) (g + 8, t + 4);      b (8 x 8): (t, g) (t + 4, g)
//   bf16, a (16 x 16), two to a register, the lower column in the low half: columns 2t, 2t + 1 of rows g and g + 8,
//   then
//         columns 2t + 8, 2t + 9 of both;   b (16 x 8): rows 2t, 2t + 1, then rows 2t + 8, 2t + 9, of column g
// Of a tf32 operand the 13 lowest bits are ignored: round with to_tf32 first.
FASTNN_DEVICE void mma_tf32(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}
FASTNN_DEVICE void mma_bf16(float (&d)[4], const uint32_t (&a)[4], const uint32_t (&b)[2]) {
#if __CUDA_ARCH__ >= 800
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, "
      "{%0, %1, %2, %3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else
  __trap();
#endif
}

FASTNN_DEVICE unsigned shared_address(const void* p) { return static_cast<unsigned>(__cvta_generic_to_shared(p)); }

// Four (two) 8 x 8 matrices of 16-bit numbers from shared memory. Lane 8 i + j passes the address of row j of matrix i,
// 16 bytes, aligned to 16 (x2: lanes 0 to 15 do). r[i] is columns 2t and 2t + 1 of row g of matrix i; transposed: rows
// 2t and 2t + 1 of column g. A row of four 32-bit numbers moves the same way: r[i] is column t of row g.
FASTNN_DEVICE void ldmatrix_x4(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
FASTNN_DEVICE void ldmatrix_x4_transposed(uint32_t (&r)[4], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
               : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])
               : "r"(shared_address(row))
               : "memory");
}
FASTNN_DEVICE void ldmatrix_x2(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}
FASTNN_DEVICE void ldmatrix_x2_transposed(uint32_t (&r)[2], const void* row) {
  asm volatile("ldmatrix.sync.aligned.m8n8.x2.trans.shared.b16 {%0, %1}, [%2];"
               : "=r"(r[0]), "=r"(r[1])
               : "r"(shared_address(row))
               : "memory");
}

// Copies BYTES (4, 8 or 16; both sides aligned to them) from global to shared memory while the thread goes on. Only the
// first `bytes` are read, the others become 0; 0 reads nothing, but `global` should still be an address of the array.
// The copies since the last commit form a group; wait<N> returns when all but the thread's last N groups have landed.
// Its own copies only: a barrier must follow before other threads read them. Before sm_80 an ordinary copy.
template <int BYTES>
FASTNN_DEVICE void cp_async(void* shared, const void* global, int bytes = BYTES) {
  static_assert(BYTES == 4 || BYTES == 8 || BYTES == 16, "cp.async moves 4, 8 or 16 bytes");
#if __CUDA_ARCH__ >= 800
  if constexpr (BYTES == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "r"(bytes)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;"
                 :
                 : "r"(shared_address(shared)), "l"(__cvta_generic_to_global(global)), "n"(BYTES), "r"(bytes)
                 : "memory");
#else  // no such instruction: the thread waits
  for (int i = 0; i < BYTES / 4; ++i)
    static_cast<uint32_t*>(shared)[i] = i * 4 < bytes ? static_cast<const uint32_t*>(global)[i] : 0u;
#endif
}
FASTNN_DEVICE void cp_async_commit() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.commit_group;" : : : "memory");
#endif
}
template <int N>
FASTNN_DEVICE void cp_async_wait() {
#if __CUDA_ARCH__ >= 800
  asm volatile("cp.async.wait_group %0;" : : "n"(N) : "memory");
#endif
}

// The nearest tf32 number, ties away from 0, as the operand of mma_tf32.
FASTNN_DEVICE uint32_t to_tf32(float x) {
  uint32_t r = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(r) : "f"(x));
#else
  __trap();
#endif
  return r;
}
// The nearest bf16 numbers, ties to even: `low` in bits 0 to 15, `high` in bits 16 to 31.
FASTNN_DEVICE uint32_t to_bf16x2(float low, float high) {
  uint32_t r = 0;
#if __CUDA_ARCH__ >= 800
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(high), "f"(low));
#else
  __trap();
#endif
  return r;
}

#endif
