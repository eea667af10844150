// Reductions over the middle of (outer, n, inner): sums, for Tensor.sum, Tensor.mean and the gradients of biases, and
// the place of the largest or smallest element. A long row is cut into pieces of `length` by shape alone; a second
// launch reduces what they gave. Next: rows.cuh for the teams of threads, python/fastnn/cuda/reduce.py for the cuts.
#include "rows.cuh"

// This team's piece of a row of x: piece p of row (o, i) is row (o, p, i) of what the launch writes.
template <int TEAM>
FASTNN_INLINE Row<TEAM> piece_of(int64_t outer, int64_t n, int64_t inner, int64_t length, int64_t pieces) {
  Row<TEAM> row(outer * pieces, length, inner);
  const int64_t unit = row.number / inner, begin = unit % pieces * length;
  row.first -= unit / pieces * (pieces * length - n) * inner;
  if (row.n > n - begin) row.n = n - begin;
  return row;
}

// y (outer, pieces, inner) = sums of the pieces of x (outer, n, inner), in A.
template <class T, class A, int TEAM>
__global__ void sum_middle(const T* x, A* y, int64_t outer, int64_t n, int64_t inner, int64_t length, int64_t pieces) {
  const Row<TEAM> row = piece_of<TEAM>(outer, n, inner, length, pieces);
  A sum = 0;
  each_own<0>(row, [&](int64_t i, int) { sum += A(x[row.at(i)]); });
  sum = row.sum(sum);
  if (row.there && row.lane == 0) y[row.number] = sum;
}

// The better of two candidates: a NaN before any number, of equals the first; index -1 is none.
template <class V>
struct Better {
  bool lowest;
  FASTNN_INLINE Indexed<V> operator()(Indexed<V> a, Indexed<V> b) const {
    const bool a_nan = a.value != a.value, b_nan = b.value != b.value;
    const bool tie = (a_nan && b_nan) || a.value == b.value, wins = lowest ? b.value < a.value : b.value > a.value;
    const bool b_better = tie ? b.index < a.index : b_nan || (!a_nan && wins);
    return a.index < 0 || (b.index >= 0 && b_better) ? b : a;
  }
};

// place (outer, pieces, inner) = where in its row of x (outer, total, inner) the largest element of a piece stands, or
// the smallest. The pieces are of n elements: of x itself, or, with `candidates` (outer, n, inner), of those of its
// elements. V is what T is compared as.
template <class T, class V, int TEAM>
__global__ void place_of_extreme(const T* x, const int64_t* candidates, int64_t* place, int64_t outer, int64_t total,
                                 int64_t n, int64_t inner, int64_t length, int64_t pieces, int lowest) {
  const Row<TEAM> row = piece_of<TEAM>(outer, n, inner, length, pieces);
  const Better<V> better{lowest != 0};
  const int64_t unit = row.number / inner, start = unit / pieces * total * inner + row.number % inner;
  const int64_t begin = unit % pieces * length;
  Indexed<V> best{V(0), -1};
  each_own<0>(row, [&](int64_t i, int) {
    const int64_t index = candidates ? candidates[row.at(i)] : begin + i;
    best = better(best, Indexed<V>{V(x[start + index * inner]), index});
  });
  best = row.combine(best, better, Indexed<V>{V(0), -1});
  if (row.there && row.lane == 0) place[row.number] = best.index;
}

// x[taken[i]] += values[i] for i < n: `order` sorts `taken` and keeps the order of equals, so that one thread adds all
// that one element gets, from the first to the last.
template <class T>
__global__ void add_at(const int64_t* order, const int64_t* taken, const T* values, T* x, int64_t n) {
  for (int64_t i : grid_stride(n)) {
    const int64_t element = taken[order[i]];
    if (i > 0 && taken[order[i - 1]] == element) continue;
    T sum = x[element];
    for (int64_t j = i; j < n && taken[order[j]] == element; ++j) sum += values[order[j]];
    x[element] = sum;
  }
}
