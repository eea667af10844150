// What bindings, dispatch, threads and every kernel share: the array view, the kernel table, parallel_run, check.
// May be included by any file of csrc/. Everything here is a declaration or is always inlined: a function emitted here
// would be compiled for several instruction sets and merged by the linker into the newest one
// (tests/test_structure.py). Next: cpu/simd.h for what kernels are written in, cpu/elementwise.cpp for the simplest
// kernels, bindings.cpp for callers.
#pragma once
#include <stddef.h>
#include <stdint.h>

#define FASTNN_INLINE inline __attribute__((always_inline))

namespace fastnn {

constexpr int MAX_DIMS = 8;
constexpr int MAX_ARGS = 32;

enum class DType : int32_t { f32, f64, i32, i64, u8, boolean };

// A C-contiguous array that Python owns; ndim = -1 stands for an optional argument left out (None).
struct Array {
  void* ptr;
  int64_t size;
  int64_t shape[MAX_DIMS];
  int32_t ndim;
  DType dtype;
  FASTNN_INLINE explicit operator bool() const { return ndim >= 0; }
};

template <class T>
FASTNN_INLINE const T* in(const Array& a) {
  return static_cast<const T*>(a.ptr);
}
template <class T>
FASTNN_INLINE T* out(const Array& a) {
  return static_cast<T*>(a.ptr);
}

// As many arrays as a network has parameters: what an optimizer updates in one call.
struct Arrays {
  const Array* items;  // null: an optional argument left out
  int64_t count;
  FASTNN_INLINE explicit operator bool() const { return items != nullptr; }
  FASTNN_INLINE const Array& operator[](int64_t i) const { return items[i]; }
};

// One argument of a kernel call; which member holds is told by the kernel's signature.
struct Arg {
  union {
    Array array;
    Arrays list;
    int64_t integer;
    double real;
  };
};

// A row of the kernel table. `spec` names the arguments in order, arrays first:
//   "x, weight, bias? -> y=x, indices:i64=x | stride, negative_slope"
// inputs -> outputs | numbers. `?` may be None; `:i64` fixes a dtype; all other arrays share one of float32 and
// float64, which chooses the function. `=x` says that the shape is x's: the binding checks it, and makes outputs that
// are all so described where the caller has none. `signature` is derived from the C++ function: a = array, l = list of
// arrays, i = integer, d = real number.
struct Kernel {
  const char* name;
  const char* spec;
  const char* signature;
  void (*call[2])(const Arg*);  // float32, float64
};

struct KernelList {
  const Kernel* rows;
  int64_t count;
};

// Raises ValueError in Python. Never inside a chunk of parallel_run.
[[noreturn]] void fail(const char* format, ...) __attribute__((format(printf, 1, 2)));
#define FASTNN_CHECK(condition, ...)               \
  do {                                             \
    if (!(condition)) ::fastnn::fail(__VA_ARGS__); \
  } while (0)

// Runs body(context, chunk) for every chunk in [0, chunks), on the pool. The number of chunks must follow from shapes
// alone, never from the number of threads: that is what keeps the bits the same on any number of threads.
void parallel_run(int64_t chunks, void (*body)(void*, int64_t), void* context);

// Scratch memory of the calling thread, 64-byte aligned, uninitialised, reused: take in a scope, give back at its end.
void* scratch_take(size_t bytes, size_t* mark);
void scratch_give(size_t mark);

template <class T>
class Scratch {
 public:
  FASTNN_INLINE explicit Scratch(int64_t count) {
    data_ = static_cast<T*>(scratch_take(static_cast<size_t>(count) * sizeof(T), &mark_));
  }
  FASTNN_INLINE ~Scratch() { scratch_give(mark_); }
  Scratch(const Scratch&) = delete;
  Scratch& operator=(const Scratch&) = delete;
  FASTNN_INLINE T* get() const { return data_; }
  FASTNN_INLINE T& operator[](int64_t i) const { return data_[i]; }

 private:
  T* data_;
  size_t mark_;
};

}  // namespace fastnn
