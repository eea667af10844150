// Cross-entropy of logits (N, C, S) fused with softmax, for class labels and for class probabilities, and nll_loss.
// Forward keeps, for each of the N * S rows, its largest logit and the sum of exp(x - largest): all that the gradient
// needs besides x. A label out of range reads nothing: its row's loss and gradient are NaN, and so are sum and mean.
// Losses are summed in double, in fixed pieces: a small batch is one block, which sums at its end; else `partial` takes
// the sums of pieces of PIECE rows, and finish_losses adds them up. Next: rows.cuh for the teams.
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

// y = the sum of the losses, divided by that of their weights if `mean`; without y the losses stay as they are.
template <class T>
FASTNN_INLINE void deliver_sum(double total, double weights, T* y, double* divisor, int mean) {
  if (threadIdx.x > 0) return;
  if (y) *y = T(mean ? total / weights : total);
  *divisor = y && mean ? weights : 1.0;
}

// What each row adds to the two sums: its loss and its label's weight (1 where the target is probabilities).
template <class T>
struct Losses {
  const T* loss;
  const int64_t* target;
  const T* weight;
  int64_t C, ignore_index;
  // The sums over [begin, end), in every thread of the block.
  FASTNN_INLINE void add_up(int64_t begin, int64_t end, double& total, double& weights) const {
    total = weights = 0;
    for (int64_t r = begin + threadIdx.x; r < end; r += blockDim.x) {
      total += double(loss[r]);
      weights += target ? double(Label(target[r], C, ignore_index).weight(weight)) : 1.0;
    }
    total = block_reduce(total, Sum{}, 0.0);
    weights = block_reduce(weights, Sum{}, 0.0);
  }
  // At the end of a kernel whose one block has computed all losses.
  FASTNN_INLINE void finish(int64_t rows, T* y, double* divisor, int mean) const {
    if (gridDim.x > 1) return;
    __syncthreads();
    double total = 0, weights = 0;
    if (y) add_up(0, rows, total, weights);
    deliver_sum(total, weights, y, divisor, mean);
  }
};

// partial (pieces, 2) = sums of losses and weights; one block a piece.
template <class T>
__global__ void sum_losses(const T* loss, const int64_t* target, const T* weight, double* partial, int64_t rows,
                           int64_t C, int64_t ignore_index) {
  double total, weights;
  const int64_t begin = blockIdx.x * PIECE, end = begin + PIECE < rows ? begin + PIECE : rows;
  Losses<T>{loss, target, weight, C, ignore_index}.add_up(begin, end, total, weights);
  if (threadIdx.x == 0) {
    partial[2 * blockIdx.x] = total;
    partial[2 * blockIdx.x + 1] = weights;
  }
}

// One block; pieces may be 0.
template <class T>
__global__ void finish_losses(const double* partial, T* y, double* divisor, int64_t pieces, int mean) {
  double total = 0, weights = 0;
  for (int64_t i : block_stride(pieces)) {
    total += partial[2 * i];
    weights += partial[2 * i + 1];
  }
  total = block_reduce(total, Sum{}, 0.0);
  weights = block_reduce(weights, Sum{}, 0.0);
  deliver_sum(total, weights, y, divisor, mean);
}

// loss = (1 - e) w_t (-log p_t) + e / C sum_c w_c (-log p_c), p = softmax(x), t the label; keep = 1 - e, share = e / C.
template <class T, int TEAM, int ITEMS>
__global__ void cross_entropy(const T* x, const int64_t* target, const T* weight, T* loss, T* stats, T* y,
                              double* divisor, int64_t N, int64_t C, int64_t S, int mean, int64_t ignore_index, T keep,
                              T share) {
  const Row<TEAM> row(N, C, S);
  const Share<T, TEAM, ITEMS> xs(x, row);
  const T top = xs.top();
  T sum = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) { sum += exp_negative(xs(i, k) - top); });
  sum = row.sum(sum);
  const T shift = log(sum);
  T spread = 0;
  if (share > 0) {
    each_own<ITEMS>(row, [&](int64_t i, int k) { spread += (shift - (xs(i, k) - top)) * (weight ? weight[i] : T(1)); });
    spread = share * row.sum(spread);
  }
  if (row.there && row.lane == 0) {
    const Label label(target[row.number], C, ignore_index);
    const T nll = label.valid ? shift - (x[row.at(label.c)] - top) : T(0);
    loss[row.number] = label.ignored ? T(0) : keep * (label.weight(weight) * nll) + spread;
    stats[row.number] = top;
    stats[N * S + row.number] = sum;
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

template <class T, int TEAM, int ITEMS>
__global__ void cross_entropy_soft(const T* x, const T* target, const T* weight, T* loss, T* stats, T* y,
                                   double* divisor, int64_t N, int64_t C, int64_t S, int mean, T keep, T share) {
  const Row<TEAM> row(N, C, S);
  const Share<T, TEAM, ITEMS> xs(x, row);
  const T top = xs.top();
  T sum = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) { sum += exp_negative(xs(i, k) - top); });
  sum = row.sum(sum);
  const T shift = log(sum);
  T total = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) {
    total += amount(target[row.at(i)], weight, i, keep, share) * (shift - (xs(i, k) - top));
  });
  total = row.sum(total);
  if (row.there && row.lane == 0) {
    loss[row.number] = total;
    stats[row.number] = top;
    stats[N * S + row.number] = sum;
  }
  Losses<T>{loss, nullptr, nullptr, C, 0}.finish(N * S, y, divisor, mean);
}

// dx_c = g (p_c sum(a) - a_c), g = dy / divisor.
template <class T, int TEAM, int ITEMS>
__global__ void cross_entropy_soft_backward(const T* dy, const T* x, const T* target, const T* weight, const T* stats,
                                            const double* divisor, T* dx, int64_t N, int64_t C, int64_t S, int each,
                                            T keep, T share) {
  const Row<TEAM> row(N, C, S);
  const Share<T, TEAM, ITEMS> ts(target, row);
  T sum = 0;
  each_own<ITEMS>(row, [&](int64_t i, int k) { sum += amount(ts(i, k), weight, i, keep, share); });
  sum = row.sum(sum);
  if (!row.there) return;
  const T g = T(double(dy[each ? row.number : 0]) / *divisor), top = stats[row.number];
  const T factor = g / stats[N * S + row.number] * sum;
  each_own<ITEMS>(row, [&](int64_t i, int k) {
    dx[row.at(i)] = factor * exp_negative(x[row.at(i)] - top) - g * amount(ts(i, k), weight, i, keep, share);
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
