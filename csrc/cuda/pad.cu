// Padding of one axis by a table of indices, arguments as in csrc/cpu/pad.cpp: y[o, j, i] = x[o, index[j], i], or the
// constant where index[j] is -1. x (outer, from, inner), y (outer, to, inner); V elements of `inner` are moved at once.
// A launch covers less than 2^31 elements of both. Next: python/fastnn/cuda/pad.py, which makes the tables.
#include "divide.cuh"

// A thread a pack of the array that is written, (outer, rows, packs); `by_*` divide by its sides.
struct PadAxis {
  int total, rows, packs;
  int64_t by_rows, by_packs;
};
struct PadPlace {
  int outer, row, pack;
};
FASTNN_INLINE PadPlace place(int i, const PadAxis& p) {
  const int line = divide(i, p.by_packs), outer = divide(line, p.by_rows);
  return {outer, line - outer * p.rows, i - line * p.packs};
}

template <class T, int V>
__global__ void pad_axis(const T* x, const int* index, T* y, PadAxis p, int from, T value) {
  Pack<T, V> constant;
#pragma unroll
  for (int j = 0; j < V; ++j) constant.v[j] = value;
  const int i = own_number();
  if (!below(i, p.total)) return;
  const PadPlace at = place(i, p);
  const int row = index[at.row];
  store_pack(y + int64_t(i) * V,
             row < 0 ? constant : load_pack<V>(x + int64_t((at.outer * from + row) * p.packs + at.pack) * V));
}

// dx[o, k, i] = sum of dy[o, j, i] over j = sources[begins[k]], ..., sources[begins[k + 1] - 1], which rise.
template <class T, int V>
__global__ void pad_axis_backward(const T* dy, const int* begins, const int* sources, T* dx, PadAxis p, int to) {
  const int i = own_number();
  if (!below(i, p.total)) return;
  const PadPlace at = place(i, p);
  const int end = begins[at.row + 1];
  Pack<T, V> sum{};
  for (int j = begins[at.row]; j < end; ++j) {
    const Pack<T, V> v = load_pack<V>(dy + int64_t((at.outer * to + sources[j]) * p.packs + at.pack) * V);
#pragma unroll
    for (int k = 0; k < V; ++k) sum.v[k] += v.v[k];
  }
  store_pack(dx + int64_t(i) * V, sum);
}
