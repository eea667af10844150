// The one thing an instruction set exports: its lists of kernels. lists.h is written by CMakeLists.txt: an X(stem) for
// every other .cpp file of this folder.
#include "table.h"

#include "lists.h"

namespace fastnn {
namespace FASTNN_ISA {

#define DECLARE(list) extern const KernelList list##_kernels;
FASTNN_LISTS(DECLARE)

const KernelList* kernel_lists(int* count);
const KernelList* kernel_lists(int* count) {
#define ROW(list) list##_kernels,
  static const KernelList lists[] = {FASTNN_LISTS(ROW)};
  *count = sizeof(lists) / sizeof(KernelList);
  return lists;
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
