// How a kernel gets into the table: at the end of its file, a row in a list,
//   FASTNN_KERNELS(elementwise, FASTNN_KERNEL(relu, "x -> y"), ...)
// The list is named as the file (CMakeLists.txt collects the names). A kernel is a function of arrays, then numbers:
// template <class T> void relu(const Array& x, const Array& y), or void f(const Array&, int64_t, double) for
// FASTNN_KERNEL_ANY.
#pragma once
#include "../kernels.h"

namespace fastnn {
namespace FASTNN_ISA {

template <class P>
struct Read;
template <>
struct Read<const Array&> {
  static constexpr char code = 'a';
  static FASTNN_INLINE const Array& from(const Arg& arg) { return arg.array; }
};
template <>
struct Read<const Arrays&> {
  static constexpr char code = 'l';
  static FASTNN_INLINE const Arrays& from(const Arg& arg) { return arg.list; }
};
template <>
struct Read<int64_t> {
  static constexpr char code = 'i';
  static FASTNN_INLINE int64_t from(const Arg& arg) { return arg.integer; }
};
template <>
struct Read<double> {
  static constexpr char code = 'd';
  static FASTNN_INLINE double from(const Arg& arg) { return arg.real; }
};

template <int... I>
struct Indices {};
template <int N, int... I>
struct Count : Count<N - 1, N - 1, I...> {};
template <int... I>
struct Count<0, I...> {
  using type = Indices<I...>;
};

template <auto F>
struct Adapt;
template <class... P, void (*F)(P...)>
struct Adapt<F> {
  static constexpr char signature[] = {Read<P>::code..., 0};
  template <int... I>
  static FASTNN_INLINE void unpack(const Arg* args, Indices<I...>) {
    F(Read<P>::from(args[I])...);
  }
  static void call(const Arg* args) { unpack(args, typename Count<sizeof...(P)>::type{}); }
};

#define FASTNN_KERNEL(name, spec)                                                                       \
  {                                                                                                     \
    #name, spec, Adapt<name<float>>::signature, { Adapt<name<float>>::call, Adapt<name<double>>::call } \
  }
#define FASTNN_KERNEL_ANY(name, spec)                                             \
  {                                                                               \
    #name, spec, Adapt<name>::signature, { Adapt<name>::call, Adapt<name>::call } \
  }
#define FASTNN_KERNELS(list, ...)                    \
  static const Kernel list##_rows[] = {__VA_ARGS__}; \
  extern const KernelList list##_kernels;            \
  const KernelList list##_kernels = {list##_rows, sizeof(list##_rows) / sizeof(Kernel)};

}  // namespace FASTNN_ISA
}  // namespace fastnn
