// How C is cut: things in even parts, and the grid of chunks that threads claim. By shape alone, never by the number of
// threads. Used by gemm.h; the arithmetic of a GEMM's cost stands here and nowhere else.
#pragma once
#include "simd.h"

namespace fastnn {
namespace FASTNN_ISA {

// n things in parts as even as can be: 256 rows are 9 x 14 + 10 x 13, never 14 + ... + 4.
struct Split {
  int64_t parts, size, larger;
  FASTNN_INLINE Split(int64_t n, int64_t parts_) : parts(parts_ < 1 ? 1 : parts_), size(n / parts), larger(n % parts) {}
  FASTNN_INLINE int64_t begin(int64_t part) const { return part * size + (part < larger ? part : larger); }
  FASTNN_INLINE int64_t count(int64_t part) const { return size + (part < larger); }
};

// The same with the larger parts spread among the others, so that runs of as many parts are even too.
struct Spread {
  int64_t n, parts;
  FASTNN_INLINE int64_t begin(int64_t part) const { return n * part / parts; }
  FASTNN_INLINE int64_t count(int64_t part) const { return begin(part + 1) - begin(part); }
};

constexpr double SERIAL_WORK = 1.2e5;  // multiply-adds below which a second thread costs more than it gives

// Chunks wanted of so many multiply-adds. One takes 10 us or more: fewer pack less, more even out threads of which one
// came late.
FASTNN_INLINE int64_t chunks_wanted(double work) {
  return work < SERIAL_WORK ? 1 : work < 2e6 ? 2 : work < 5e6 ? 4 : work < 3e7 ? 8 : 16;
}

// Rows times columns of chunks.
struct Grid {
  int64_t rows, columns;
};

// The cheapest grid of at least `chunks` chunks and `least_columns` columns of them, for M rows and so many panels of
// columns. A step of k costs a chunk its panels times its rows; packing a panel of B costs what `pack` rows do, and
// reading a row of A as much as an eighth of a panel. Two threads share the chunks.
FASTNN_INLINE Grid cheapest_grid(int64_t M, int64_t panels, int64_t chunks, int64_t least_columns, int64_t pack) {
  Grid best{1, most(chunks, least_columns)};
  double least_cost = 0;
  for (int64_t r = 1; r <= chunks && (r == 1 || 4 * r <= M); ++r) {
    const int64_t c = least(panels, most(divide_up(chunks, r), least_columns));
    const int64_t rows = divide_up(M, r), columns = divide_up(panels, c);
    const double cost = double(divide_up(r * c, 2)) * (double(columns) * double(rows + pack) + 0.125 * double(rows));
    if (r == 1 || cost < least_cost) best = {r, c}, least_cost = cost;
  }
  return best;
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
