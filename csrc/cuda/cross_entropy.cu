// Cross-entropy of logits (N, C, S) fused with softmax, for class labels and for class probabilities, and nll_loss.
// Forward keeps, for each of the N * S rows, its largest logit and the sum of exp(x - largest): all that the gradient
// needs besides x. A label out of range reads nothing: its row's loss and gradient are NaN, and so are sum and mean.
// Losses are summed in double, in an order fixed by the shape: a small batch is one block, which sums at its end; else
// sum_losses does, and finish_losses what that gives for many rows. Next: rows.cuh for the teams.
#include "rows.cuh"

constexpr int64_t PIECE = 8192;

template <class T>
FASTNN_INLINE T not_a_number() {
  return T(__int_as_float(0x7fc00000));
}

// The label of a row: whether it counts, and whether anything may be read by it.
struct Label {
  int64_t c;
  bool ignored, valid;
  FASTNN_INLINE Label(int64_t label, int64_t C, int64_t ignore_index)
      : c(label), ignored(label == ignore_index), valid(!ignored && label >= 0 && label < C) {}
  template <class T>
  FASTNN_INLINE T weight(const T* w) const {
    return ignored ? T(0) : !valid ? not_a_number<T>() : w ? w[c] : T(1);
  }
};

// The losses of some rows and the weights of their labels, added up.
struct Sums {
  double losses, weights;
  FASTNN_INLINE Sums of_block() const { return {block_reduce(losses, Sum{}, 0.0), block_reduce(weights, Sum{}, 0.0)}; }
};

// y = the sum of the losses, divided by that of their weights if `mean`; without y the losses stay as they are.
template <class T>
FASTNN_INLINE void deliver(Sums sums, T* y, double* divisor, int mean) {
  if (threadIdx.x > 0) return;
  if (y) *y = T(mean ? sums.losses / sums.weights : sums.losses);
  *divisor = y && mean ? sums.weights : 1.0;
}

// What each row adds: its loss and its label's weight, 1 where the target is probabilities.
template <class T>
struct Losses {
  const T* loss;
  const int64_t* target;
  const T* weight;
  int64_t C, ignore_index;
  // The sums over rows [begin, end), in every thread of the block.
  FASTNN_INLINE Sums add_up(int64_t begin, int64_t end) const {
    Sums sums{0, 0};
    for (int64_t r = begin + threadIdx.x; r < end; r += blockDim.x) {
      sums.losses += double(loss[r]);
      sums.weights += target ? double(Label(target[r], C, ignore_index).weight(weight)) : 1.0;
    }
    return sums.of_block();
  }
  // At the end of a kernel whose one block has computed all losses; of several, none writes y or divisor.
  FASTNN_INLINE void finish(int64_t rows, T* y, double* divisor, int mean) const {
    if (gridDim.x > 1) return;
    __syncthreads();
    deliver(y ? add_up(0, rows) : Sums{0, 0}, y, divisor, mean);
  }
};

// partial (pieces, 2) = sums of losses and weights, one block a piece; a single piece goes to y and divisor at once.
template <class T>
__global__ void sum_losses(const T* loss, const int64_t* target, const T* weight, double* partial, T* y,
                           double* divisor, int64_t rows, int64_t C, int mean, int64_t ignore_index) {
  const int64_t begin = blockIdx.x * PIECE, end = begin + PIECE < rows ? begin + PIECE : rows;
  const Sums sums = Losses<T>{loss, target, weight, C, ignore_index}.add_up(begin, end);
  if (gridDim.x == 1) {
    deliver(sums, y, divisor, mean);
  } else if (threadIdx.x == 0) {
    partial[2 * blockIdx.x] = sums.losses;
    partial[2 * blockIdx.x + 1] = sums.weights;
  }
}

// One block; pieces may be 0.
template <class T>
__global__ void finish_losses(const double* partial, T* y, double* divisor, int64_t pieces, int mean) {
  Sums sums{0, 0};
  for (int64_t i : block_stride(pieces)) sums = {sums.losses + partial[2 * i], sums.weights + partial[2 * i + 1]};
  deliver(sums.of_block(), y, divisor, mean);
}

// A row's softmax, as what its elements need: -log p(x) = shift - (x - top).
template <class T>
struct SoftmaxOf {
  T top, sum, shift;
  template <int TEAM, int ITEMS>
  FASTNN_INLINE SoftmaxOf(const Share<T, TEAM, ITEMS>& xs, const Row<TEAM>& row) : top(xs.top()), sum(0) {
    each_own<ITEMS>(row, [&](int64_t c, int k) { sum += exp_negative(xs(c, k) - top); });
    sum = row.sum(sum);
    shift = log(sum);
  }
  FASTNN_INLINE T nll(T x) const { return shift - (x - top); }
};

// loss = (1 - e) w_t (-log p_t) + e / C sum_c w_c (-log p_c), p = softmax(x), t the label; keep = 1 - e, share = e / C.
// A block takes `turns` groups of rows, one after the other.
template <class T, int TEAM, int ITEMS>
__global__ void cross_entropy(const T* x, const int64_t* target, const T* weight, T* loss, T* stats, T* y,
                              double* divisor, int64_t N, int64_t C, int64_t S, int64_t turns, int mean,
                              int64_t ignore_index, T keep, T share) {
  for (int64_t turn = 0; turn < turns; ++turn) {
    const Row<TEAM> row(N, C, S, turn);
    const Share<T, TEAM, ITEMS> xs(x, row);
    const SoftmaxOf<T> p(xs, row);
    T spread = 0;
    if (share > 0) {
      each_own<ITEMS>(row, [&](int64_t c, int k) { spread += p.nll(xs(c, k)) * (weight ? weight[c] : T(1)); });
      spread = share * row.sum(spread);
    }
    if (row.there && row.lane == 0) {
      const Label label(target[row.number], C, ignore_index);
      const T nll = label.valid ? p.nll(x[row.at(label.c)]) : T(0);
      loss[row.number] = label.ignored ? T(0) : keep * (label.weight(weight) * nll) + spread;
      stats[row.number] = p.top;
      stats[N * S + row.number] = p.sum;
    }
  }
  Losses<T>{loss, target, weight, C, ignore_index}.finish(N * S, y, divisor, mean);
}

// dx_c = g (p_c (k w_t + h sum(w)) - h w_c - k w_t [c = t]), g = dy / divisor, k = keep, h = share; 0 where ignored.
template <class T, int TEAM>
__global__ void cross_entropy_backward(const T* dy, const T* x, const int64_t* target, const T* weight, const T* stats,
                                       const double* divisor, T* dx, int64_t N, int64_t C, int64_t S, int each,
                                       int64_t ignore_index, T keep, T share) {
  const Row<TEAM> row(N, C, S);
  T common = share * T(C);
  if (weight && share > 0) {  // the same for all rows, and cheap beside them
    common = 0;
    for (int64_t c = row.lane; c < C; c += row.lanes) common += weight[c];
    common = share * row.sum(common);
  }
  if (!row.there) return;
  const Label label(target[row.number], C, ignore_index);
  const T g = T(double(dy[each ? row.number : 0]) / *divisor), at = keep * label.weight(weight);
  const T top = stats[row.number], factor = g * (at + common) / stats[N * S + row.number];
  each_own<0>(row, [&](int64_t c, int) {
    T d = 0;
    if (!label.ignored) {
      d = factor * exp_negative(x[row.at(c)] - top) - g * share * (weight ? weight[c] : T(1));
      if (c == label.c) d -= g * at;
    }
    dx[row.at(c)] = d;
  });
}

// The target as probabilities q (N, C, S): a_c = w_c (keep q_c + share), loss = sum_c a_c (-log p_c).
template <class T>
FASTNN_INLINE T amount(T q, const T* weight, int64_t c, T keep, T share) {
  return (q * keep + share) * (weight ? weight[c] : T(1));
}

template <class T, int TEAM>
__global__ void cross_entropy_soft(const T* x, const T* target, const T* weight, T* loss, T* stats, T* y,
                                   double* divisor, int64_t N, int64_t C, int64_t S, int mean, T keep, T share) {
  const Row<TEAM> row(N, C, S);
  const Share<T, TEAM, 0> xs(x, row);
  const SoftmaxOf<T> p(xs, row);
  T total = 0;
  each_own<0>(
      row, [&](int64_t c, int) { total += amount(target[row.at(c)], weight, c, keep, share) * p.nll(x[row.at(c)]); });
  total = row.sum(total);
  if (row.there && row.lane == 0) {
    loss[row.number] = total;
    stats[row.number] = p.top;
    stats[N * S + row.number] = p.sum;
  }
  Losses<T>{loss, nullptr, nullptr, C, 0}.finish(N * S, y, divisor, mean);
}

// dx_c = g (p_c sum(a) - a_c), g = dy / divisor.
template <class T, int TEAM>
__global__ void cross_entropy_soft_backward(const T* dy, const T* x, const T* target, const T* weight, const T* stats,
                                            const double* divisor, T* dx, int64_t N, int64_t C, int64_t S, int each,
                                            T keep, T share) {
  const Row<TEAM> row(N, C, S);
  T sum = 0;
  each_own<0>(row, [&](int64_t c, int) { sum += amount(target[row.at(c)], weight, c, keep, share); });
  sum = row.sum(sum);
  if (!row.there) return;
  const T g = T(double(dy[each ? row.number : 0]) / *divisor), top = stats[row.number];
  const T factor = g / stats[N * S + row.number] * sum;
  each_own<0>(row, [&](int64_t c, int) {
    const T a = amount(target[row.at(c)], weight, c, keep, share);
    dx[row.at(c)] = factor * exp_negative(x[row.at(c)] - top) - g * a;
  });
}

// loss = -w_t x_t of log-probabilities x; 0 where ignored. A thread a row.
template <class T>
__global__ void nll_loss(const T* x, const int64_t* target, const T* weight, T* loss, T* y, double* divisor, int64_t N,
                         int64_t C, int64_t S, int mean, int64_t ignore_index) {
  for (int64_t r : grid_stride(N * S)) {
    const Label label(target[r], C, ignore_index);
    loss[r] = label.valid ? -x[(r / S * C + label.c) * S + r % S] * label.weight(weight) : label.weight(weight);
  }
  Losses<T>{loss, target, weight, C, ignore_index}.finish(N * S, y, divisor, mean);
}

template <class T, int TEAM>
__global__ void nll_loss_backward(const T* dy, const int64_t* target, const T* weight, const double* divisor, T* dx,
                                  int64_t N, int64_t C, int64_t S, int each, int64_t ignore_index) {
  const Row<TEAM> row(N, C, S);
  if (!row.there) return;
  const Label label(target[row.number], C, ignore_index);
  const T w = label.weight(weight);
  const bool broken = !label.ignored && !label.valid;
  const T d = label.ignored ? T(0) : T(-double(dy[each ? row.number : 0]) / *divisor) * w;
  each_own<0>(row, [&](int64_t c, int) { dx[row.at(c)] = broken ? w : c == label.c ? d : T(0); });
}
