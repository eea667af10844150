// The GEMM engine, after BLIS: blocked loops around a micro-kernel that knows nothing of blocking. gemm.cpp drives it
// over plain matrices; convolutions drive it with packers that fetch patches straight into B panels (implicit GEMM).
//
//   gemm_blocks<T>(M, N, K, a, b, store)         C(M x N) = A(M x K) B(K x N), handed to `store` tile by tile
//
//   a(panel, i, rows, k, depth)   packs panel[p * rows + r]  = A(i + r, k + p)   for r < rows,  p < depth
//   b(panel, k, depth, j, cols)   packs panel[p * NR<T> + c] = B(k + p, j + c)   for c < cols <= NR<T>, and 0 beyond
//   cols store.target(i, j, rows, cols, first, last)  -> Target: where the micro-kernel may write the tile itself, or
//   {}: then store(tile, i, j, rows, cols, first, last)   takes the tile from tile[r * NR<T> + c]
//
// K is cut into blocks by K alone: a tile arrives once per block, `first` with the first one (overwrite), `last` with
// the last one (bias, activation), in order. So the bits of an element depend on K and on nothing else: not on M, N,
// threads. Packers and stores are called from many threads at once, for different panels or tiles: they must be const.
#pragma once
#include "simd.h"

namespace fastnn {
namespace FASTNN_ISA {

// The register tile, a row per kind of register file: rows x vectors of accumulators, `vectors` of B and a broadcast
// element of A; without FMA the product takes one register more.
#if FASTNN_VECTOR_BYTES == 64
constexpr int TILE_ROWS = 14, TILE_VECTORS = 2, PRODUCT = 0, REGISTERS = 32;
#elif defined(__aarch64__)
constexpr int TILE_ROWS = 8, TILE_VECTORS = 3, PRODUCT = 0, REGISTERS = 32;
#elif FASTNN_VECTOR_BYTES == 32
constexpr int TILE_ROWS = 6, TILE_VECTORS = 2, PRODUCT = 0, REGISTERS = 16;
#else
constexpr int TILE_ROWS = 6, TILE_VECTORS = 2, PRODUCT = 1, REGISTERS = 16;
#endif
static_assert(TILE_ROWS * TILE_VECTORS + TILE_VECTORS + 1 + PRODUCT <= REGISTERS, "the tile would spill");

template <class T>
constexpr int NR = TILE_VECTORS * W<T>;  // columns of a tile

// K steps of a block. With 512 floats a B panel of 64-byte columns (AVX2) fills L1 by itself, which measures better
// than room to spare: A streams past it once anyway, and C is read and written less often. With 64-byte vectors it is
// the A panel (28 KB) that stays, and B streams.
template <class T>
constexpr int64_t KC = 2048 / int64_t(sizeof(T));
constexpr bool A_STAYS_IN_L1 = FASTNN_VECTOR_BYTES == 64;
constexpr int64_t A_BLOCK = 96 << 10;   // bytes of A panels swept while in L2
constexpr int64_t B_CHUNK = 224 << 10;  // bytes of packed B of a chunk, in L2 too
constexpr int64_t A_PACKED = 4 << 20;   // bytes of A packed at a time, in L3, shared by all chunks
constexpr double SERIAL_WORK = 1.2e5;   // multiply-adds below which a second thread costs more than it gives

// c(rows x vectors * W, ldc) = or += a b over k steps. A is packed (a[p * rows + r]) or read in place (a[r * lda + p]).
template <class T>
using Micro = void (*)(int64_t k, const T* a, int64_t lda, const T* b, int64_t ldb, T* c, int64_t ldc, bool add);
template <class T>
struct Micros {
  static const Micro<T>* const table;  // [A in place][vectors - 1][rows - 1], in gemm.cpp
  static FASTNN_INLINE Micro<T> at(bool a_in_place, int64_t vectors, int64_t rows) {
    return table[(a_in_place * TILE_VECTORS + vectors - 1) * TILE_ROWS + rows - 1];
  }
};
template <>
const Micro<float>* const Micros<float>::table;
template <>
const Micro<double>* const Micros<double>::table;

// Where a tile of C may be written in full vectors, and whether to add to what is there.
template <class T>
struct Target {
  T* c = nullptr;
  int64_t ldc = 0;
  bool add = false;
};

// A matrix stored so that the micro-kernel can read it in place: rows of A (along k), or rows of B (along n).
template <class T>
struct InPlace {
  const T* data = nullptr;
  int64_t ld = 0;
};

// n things in parts as even as can be: 256 rows are 9 x 14 + 10 x 13, never 14 + ... + 4.
struct Split {
  int64_t parts, size, larger;
  FASTNN_INLINE Split(int64_t n, int64_t parts_) : parts(parts_ < 1 ? 1 : parts_), size(n / parts), larger(n % parts) {}
  FASTNN_INLINE int64_t begin(int64_t part) const { return part * size + (part < larger ? part : larger); }
};
FASTNN_INLINE int64_t divide_up(int64_t n, int64_t d) { return (n + d - 1) / d; }
FASTNN_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// One chunk of C: rows of the A panels [p0, p1), columns [j0, j1), over the K blocks [kb0, kb1).
template <class T, class PackB, class Store>
struct Block {
  const Split rows, depths;  // panels of A, blocks of K
  const T* packed_a;         // blocks [kb0, kb1) of rows [row0, row0 + row_count), in [block][panel][k][row]
  int64_t row0, row_count;
  InPlace<T> a_rows, b_rows;
  const PackB& pack_b;
  const Store& store;

  FASTNN_INLINE void tile(const T* b, int64_t ldb, int64_t panel, int64_t j, int64_t cols, int64_t kb0, int64_t kb,
                          T* buffer) const {
    const int64_t i = rows.begin(panel), count = rows.begin(panel + 1) - i;
    const int64_t k = depths.begin(kb), depth = depths.begin(kb + 1) - k;
    const bool first = kb == 0, last = kb + 1 == depths.parts;
    const bool in_place = a_rows.data != nullptr;
    const T* a = in_place ? a_rows.data + i * a_rows.ld + k
                          : packed_a + (k - depths.begin(kb0)) * row_count + (i - row0) * depth;
    const Micro<T> micro = Micros<T>::at(in_place, divide_up(cols, W<T>), count);
    Target<T> target;
    if (cols % W<T> == 0) target = store.target(i, j, count, cols, first, last);
    if (target.c != nullptr) return micro(depth, a, a_rows.ld, b, ldb, target.c, target.ldc, target.add);
    micro(depth, a, a_rows.ld, b, ldb, buffer, NR<T>, false);
    store(buffer, i, j, count, cols, first, last);
  }

  void run(int64_t p0, int64_t p1, int64_t j0, int64_t j1, int64_t kb0, int64_t kb1) const {
    const int64_t most = divide_up(depths.begin(depths.parts), depths.parts);
    const int64_t columns = divide_up(j1 - j0, NR<T>);
    Scratch<T> packed_b(most * NR<T> * (b_rows.data ? 1 : columns));
    alignas(64) T buffer[TILE_ROWS * NR<T>];
    for (int64_t kb = kb0; kb < kb1; ++kb) {
      const int64_t k = depths.begin(kb), depth = depths.begin(kb + 1) - k;
      if (b_rows.data == nullptr)
        for (int64_t c = 0; c < columns; ++c) {
          const int64_t j = j0 + c * NR<T>;
          pack_b(packed_b.get() + c * depth * NR<T>, k, depth, j, least(NR<T>, j1 - j));
        }
      else if ((j1 - j0) % W<T> != 0)  // whole vectors only are read in place
        pack_b(packed_b.get(), k, depth, j0 + (columns - 1) * NR<T>, j1 - j0 - (columns - 1) * NR<T>);
      const int64_t most_panels = depth * TILE_ROWS * int64_t(sizeof(T)) >= A_BLOCK / 2
                                      ? 2
                                      : A_BLOCK / ((depth + 1) * TILE_ROWS * int64_t(sizeof(T)));
      const Split sweeps(p1 - p0, divide_up(p1 - p0, most_panels));
      for (int64_t sweep = 0; sweep < sweeps.parts; ++sweep) {
        const int64_t s0 = p0 + sweeps.begin(sweep), s1 = p0 + sweeps.begin(sweep + 1);
        const int64_t outer = A_STAYS_IN_L1 ? s1 - s0 : columns, inner = A_STAYS_IN_L1 ? columns : s1 - s0;
        for (int64_t o = 0; o < outer; ++o)
          for (int64_t n = 0; n < inner; ++n) {
            const int64_t panel = s0 + (A_STAYS_IN_L1 ? o : n), c = A_STAYS_IN_L1 ? n : o;
            const int64_t j = j0 + c * NR<T>, cols = least(NR<T>, j1 - j);
            if (b_rows.data == nullptr)
              tile(packed_b.get() + c * depth * NR<T>, NR<T>, panel, j, cols, kb0, kb, buffer);
            else if (cols % W<T> != 0)
              tile(packed_b.get(), NR<T>, panel, j, cols, kb0, kb, buffer);
            else
              tile(b_rows.data + k * b_rows.ld + j, b_rows.ld, panel, j, cols, kb0, kb, buffer);
          }
      }
    }
  }
};

// C = A B over tiles; see the head of the file. K = 0 gives tiles of zeros. What can be read in place (`a_rows`,
// `b_rows`) is not packed where packing would cost more than it saves: A against few columns, B against few rows.
template <class T, class PackA, class PackB, class Store>
static void gemm_blocks(int64_t M, int64_t N, int64_t K, const PackA& pack_a, const PackB& pack_b, const Store& store,
                        InPlace<T> a_rows = {}, InPlace<T> b_rows = {}) {
  if (M <= 0 || N <= 0) return;
  const double work = double(M) * double(N) * double(K);
  const Split rows(M, divide_up(M, TILE_ROWS)), depths(K, divide_up(K, KC<T>));
  const int64_t depth = divide_up(K, depths.parts) + 1;
  if (N > 8 * NR<T> && work > SERIAL_WORK) a_rows = {};
  if (!(M <= 28 || (M <= 96 && N <= 256))) b_rows = {};

  // Chunks, 16 at most: of four or more panels of columns where A is long (each chunk streams all of A past its
  // columns); of rows only where columns give too few, because each of those packs the same B again.
  const int64_t columns = divide_up(N, NR<T>);
  const int64_t wanted = work < SERIAL_WORK ? 1 : least(16, 2 + int64_t(work / 5e5));
  int64_t column_chunks = least(wanted, divide_up(columns, M <= 96 ? 1 : 4));
  const int64_t most_columns = B_CHUNK / (depth * NR<T> * int64_t(sizeof(T)));
  const int64_t least_chunks = divide_up(columns, most_columns < 1 ? 1 : most_columns);
  if (column_chunks < least_chunks) column_chunks = least_chunks;
  const Split column_split(columns, column_chunks);

  // Rows and K blocks for which A is packed at a time.
  const int64_t packed_rows = a_rows.data ? M : 2048;
  const Split stripes(rows.parts, divide_up(M, packed_rows));
  const int64_t stripe_bytes = divide_up(M, stripes.parts) * depth * int64_t(sizeof(T));
  const int64_t packed_blocks = a_rows.data || stripe_bytes >= A_PACKED ? 1 : A_PACKED / stripe_bytes;
  const Split rounds(depths.parts, a_rows.data ? 1 : divide_up(depths.parts, packed_blocks));

  for (int64_t stripe = 0; stripe < stripes.parts; ++stripe) {
    const int64_t p0 = stripes.begin(stripe), p1 = stripes.begin(stripe + 1);
    const int64_t row0 = rows.begin(p0), row_count = rows.begin(p1) - row0;
    for (int64_t round = 0; round < rounds.parts; ++round) {
      const int64_t kb0 = rounds.begin(round), kb1 = rounds.begin(round + 1);
      const int64_t k0 = depths.begin(kb0), k1 = depths.begin(kb1);
      Scratch<T> packed_a(a_rows.data ? 0 : row_count * (k1 - k0));
      if (a_rows.data == nullptr)
        parallel_for(p1 - p0, work < SERIAL_WORK ? p1 - p0 : divide_up(65536, (k1 - k0 + 1) * TILE_ROWS),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t kb = kb0; kb < kb1; ++kb) {
                         const int64_t k = depths.begin(kb), count = depths.begin(kb + 1) - k;
                         T* const block = packed_a.get() + (k - k0) * row_count;
                         // In steps of k that leave the lines which neighbouring panels share in L1.
                         for (int64_t s = 0; s < count; s += 64)
                           for (int64_t p = p0 + begin; p < p0 + end; ++p) {
                             const int64_t i = rows.begin(p), height = rows.begin(p + 1) - i;
                             pack_a(block + (i - row0) * count + s * height, i, height, k + s, least(64, count - s));
                           }
                       }
                     });
      const Block<T, PackB, Store> block{rows, depths, packed_a.get(), row0, row_count, a_rows, b_rows, pack_b, store};
      const Split row_split(p1 - p0,
                            column_chunks >= 4 ? 1 : least(divide_up(wanted, column_chunks), divide_up(p1 - p0, 8)));
      parallel_for(column_split.parts * row_split.parts, 1, [&](int64_t chunk, int64_t) {
        const int64_t c = chunk / row_split.parts, r = chunk % row_split.parts;
        block.run(p0 + row_split.begin(r), p0 + row_split.begin(r + 1), column_split.begin(c) * NR<T>,
                  least(column_split.begin(c + 1) * NR<T>, N), kb0, kb1);
      });
    }
  }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
