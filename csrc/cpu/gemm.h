// The GEMM engine, after BLIS: blocked loops around a micro-kernel that knows nothing of blocking. gemm.cpp drives it
// over plain matrices; convolutions drive it with packers that fetch patches straight into B panels (implicit GEMM).
//
//   gemm_blocks<T>(M, N, K, a, b, store)         C(M x N) = A(M x K) B(K x N), handed to `store` tile by tile
//
//   a(panel, i, rows, k, depth)   packs panel[p * rows + r]  = A(i + r, k + p)   for r < rows,  p < depth; may write W
//                                 elements more: calls for a panel come in the order of k, and its end has room
//   b(panel, k, depth, j, cols)   packs panel[p * NR<T> + c] = B(k + p, j + c)   for c < cols <= NR<T>, and 0 beyond
//   cols store.target(i, j, rows, cols, first, last)  -> Target: where the micro-kernel may write the tile itself, or
//   {}: then store(tile, i, j, rows, cols, first, last)   takes the tile from tile[r * NR<T> + c]
//
// K is cut into blocks by K alone: a tile arrives once per block, `first` with the first one (overwrite), `last` with
// the last one (bias, activation), in order. So the bits of an element depend on K and on nothing else: not on M, N,
// threads. Packers and stores are called from many threads at once, for different panels or tiles: they must be const.
#pragma once
#include "gemm_grid.h"

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
constexpr int64_t A_BLOCK = 96 << 10;  // bytes of A panels swept while in L2
constexpr int64_t A_ALL = 200 << 10;   // bytes of A that stay in L2 beside two groups of B
constexpr int64_t GROUP =
    4;  // panels of B packed together (128 KB): a step of k reads four lines that follow one another
constexpr int64_t B_CHUNK = 224 << 10;   // bytes of packed B of a chunk, in L2 too
constexpr int64_t B_IN_PLACE = 1 << 20;  // bytes of a B that is at home in L2 as it is
constexpr int64_t SHALLOW = 128;         // steps of K for which C is the larger traffic: its rows in order then
constexpr int64_t A_PACKED = 4 << 20;    // bytes of A packed at a time, in L3, shared by all chunks

// c(rows x vectors * W, ldc) = or += a b over k steps. A runs along its rows (a[p * lda + r]; packed: lda = rows) or is
// read in place along k (a[r * lda + p]).
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

// A matrix that the micro-kernel may read in place: A with its rows along k, or `turned`, along m; B with its rows
// along n.
template <class T>
struct InPlace {
  const T* data = nullptr;
  int64_t ld = 0;
  bool turned = false;
};

// The panels of A in one block of K, packed or in place: row i of panel p begins at data + i * row + p * panel.
template <class T>
struct PanelsOfA {
  const T* data;
  int64_t row, panel;
  int64_t ld;  // for the micro-kernel; 0: the panel's height
  bool along_k;
};
// The panels of B there: column j of a panel's beginning lies at data + j * column, counted from the first; a panel
// that holds no whole number of vectors, at `ragged` if that is given.
template <class T>
struct PanelsOfB {
  const T* data;
  int64_t column, ld;
  const T* ragged = nullptr;
};

// The part of C in the panels [p0, p1) of `rows` and the columns [j0, j1), for one block of K, serially. between(n) is
// called before tile n: there something can be made ready meanwhile.
template <class T, class Rows, class Store, class Between>
FASTNN_INLINE void multiply_panels(const Rows& rows, int64_t p0, int64_t p1, int64_t j0, int64_t j1, int64_t depth,
                                   const PanelsOfA<T>& a, const PanelsOfB<T>& b, bool a_stays, const Store& store,
                                   bool first, bool last, const Between& between) {
  alignas(64) T buffer[TILE_ROWS * NR<T>];
  int64_t n = 0;
  const auto tile = [&](int64_t panel, int64_t j) __attribute__((always_inline)) {
    const int64_t i = rows.begin(panel), height = rows.count(panel), cols = least(NR<T>, j1 - j);
    const bool whole = cols % W<T> == 0, ragged = !whole && b.ragged != nullptr;
    const T* from_a = a.data + i * a.row + panel * a.panel;
    const T* from_b = ragged ? b.ragged : b.data + (j - j0) * b.column;
    const int64_t lda = a.ld ? a.ld : height, ldb = ragged ? NR<T> : b.ld;
    const Micro<T> micro = Micros<T>::at(a.along_k, divide_up(cols, W<T>), height);
    between(n++);
    Target<T> target;
    if (whole) target = store.target(i, j, height, cols, first, last);
    if (target.c != nullptr) return micro(depth, from_a, lda, from_b, ldb, target.c, target.ldc, target.add);
    micro(depth, from_a, lda, from_b, ldb, buffer, NR<T>, false);
    store(buffer, i, j, height, cols, first, last);
  };
  if (a_stays) {
    for (int64_t panel = p0; panel < p1; ++panel)
      for (int64_t j = j0; j < j1; j += NR<T>) tile(panel, j);
  } else {
    for (int64_t j = j0; j < j1; j += NR<T>)
      for (int64_t panel = p0; panel < p1; ++panel) tile(panel, j);
  }
}

// Share `part` of `parts` of the work of packing panels [j0, j1) of B: some of the panels. Packers of matrices overload
// it (gemm.cpp).
template <class T, class PackB>
FASTNN_INLINE void pack_share(const PackB& pack_b, T* to, int64_t k, int64_t depth, int64_t j0, int64_t j1,
                              int64_t part, int64_t parts) {
  const int64_t columns = divide_up(j1 - j0, NR<T>);
  for (int64_t c = columns * part / parts; c < columns * (part + 1) / parts; ++c)
    pack_b(to + c * depth * NR<T>, k, depth, j0 + c * NR<T>, least(NR<T>, j1 - j0 - c * NR<T>));
}

template <class T, class PackA, class PackB, class Store>
struct Blocks {
  const Spread rows;   // panels of A
  const Split depths;  // blocks of K
  const PackA& pack_a;
  const PackB& pack_b;
  const Store& store;
  const InPlace<T> a, b;

  FASTNN_INLINE int64_t depth(int64_t kb) const { return depths.count(kb); }
  FASTNN_INLINE int64_t panel_bytes() const { return (depth(0) + 1) * TILE_ROWS * int64_t(sizeof(T)); }

  // A's panels [p0, p1) in the blocks [kb0, kb1): [block][panel][k][row], each panel followed by room for a vector.
  FASTNN_INLINE int64_t size_of_a(int64_t p0, int64_t p1, int64_t kb0, int64_t kb1) const {
    if (a.data) return 0;
    return (rows.begin(p1) - rows.begin(p0)) * (depths.begin(kb1) - depths.begin(kb0)) + (p1 - p0) * (kb1 - kb0) * W<T>;
  }
  FASTNN_INLINE PanelsOfA<T> panels_of_a(const T* packed, int64_t p0, int64_t p1, int64_t kb0, int64_t kb) const {
    const int64_t k = depths.begin(kb);
    if (a.data && a.turned) return {a.data + k * a.ld, 1, 0, a.ld, false};
    if (a.data) return {a.data + k, a.ld, 0, a.ld, true};
    return {packed + size_of_a(p0, p1, kb0, kb) - rows.begin(p0) * depth(kb) - p0 * W<T>, depth(kb), W<T>, 0, false};
  }
  // Packs [begin, end) of them, in steps of k that leave the lines which neighbouring panels share in L1.
  void pack(T* packed, int64_t p0, int64_t p1, int64_t begin, int64_t end, int64_t kb0, int64_t kb1) const {
    for (int64_t kb = kb0; kb < kb1; ++kb) {
      const PanelsOfA<T> to = panels_of_a(packed, p0, p1, kb0, kb);
      for (int64_t s = 0; s < depth(kb); s += 64)
        for (int64_t p = begin; p < end; ++p) {
          const int64_t i = rows.begin(p), height = rows.count(p);
          T* const panel = packed + (to.data - packed) + i * to.row + p * to.panel;
          pack_a(panel + s * height, i, height, depths.begin(kb) + s, least(64, depth(kb) - s));
        }
    }
  }

  // One chunk of C: rows of the panels [p0, p1), columns [j0, j1), over the blocks [kb0, kb1); of(kb) gives A.
  template <class A>
  void run(int64_t p0, int64_t p1, int64_t j0, int64_t j1, int64_t kb0, int64_t kb1, const A& of) const {
    if (b.data)
      run_in_place(p0, p1, j0, j1, kb0, kb1, of);
    else if ((p1 - p0) * panel_bytes() <= A_ALL)
      run_once(p0, p1, j0, j1, kb0, kb1, of);
    else
      run_in_sweeps(p0, p1, j0, j1, kb0, kb1, of);
  }

  // B in place; columns that are no whole number of vectors are packed.
  template <class A>
  FASTNN_INLINE void run_in_place(int64_t p0, int64_t p1, int64_t j0, int64_t j1, int64_t kb0, int64_t kb1,
                                  const A& of) const {
    const int64_t over = (j1 - j0) % NR<T>;
    Scratch<T> packed(over % W<T> ? depth(0) * NR<T> : 0);
    for (int64_t kb = kb0; kb < kb1; ++kb) {
      const int64_t k = depths.begin(kb);
      if (over % W<T>) pack_b(packed.get(), k, depth(kb), j1 - over, over);
      multiply_panels<T>(rows, p0, p1, j0, j1, depth(kb), of(kb), {b.data + k * b.ld + j0, 1, b.ld, packed.get()},
                         depth(kb) <= SHALLOW, store, kb == 0, kb + 1 == depths.parts, [](int64_t) {});
    }
  }

  // All of A's panels stay in L2: a group of panels of B is used up while the next one is packed beside it, a share
  // between two tiles. So B is read exactly once, and the reading hides behind the arithmetic.
  template <class A>
  FASTNN_INLINE void run_once(int64_t p0, int64_t p1, int64_t j0, int64_t j1, int64_t kb0, int64_t kb1,
                              const A& of) const {
    const int64_t groups = divide_up(j1 - j0, GROUP * NR<T>), size = GROUP * NR<T> * depth(0);
    Scratch<T> packed(size * (groups * (kb1 - kb0) > 1 ? 2 : 1));
    const int64_t steps = groups * (kb1 - kb0);  // a group in a block of K
    const auto prepare = [&](int64_t step, int64_t part, int64_t parts) __attribute__((always_inline)) {
      const int64_t kb = kb0 + step / groups, j = j0 + step % groups * GROUP * NR<T>;
      pack_share(pack_b, packed.get() + step % 2 * size, depths.begin(kb), depth(kb), j, least(j1, j + GROUP * NR<T>),
                 part, parts);
    };
    const int64_t parts = divide_up(depth(kb0), 16);
    for (int64_t part = 0; part < parts; ++part) prepare(0, part, parts);
    for (int64_t step = 0; step < steps; ++step) {
      const int64_t kb = kb0 + step / groups, j = j0 + step % groups * GROUP * NR<T>,
                    end = least(j1, j + GROUP * NR<T>);
      const int64_t shares = least((p1 - p0) * divide_up(end - j, NR<T>), divide_up(depth(kb), 16));
      multiply_panels<T>(rows, p0, p1, j, end, depth(kb), of(kb), {packed.get() + step % 2 * size, depth(kb), NR<T>},
                         false, store, kb == 0, kb + 1 == depths.parts, [&](int64_t n) __attribute__((always_inline)) {
                           if (n < shares && step + 1 < steps) prepare(step + 1, n, shares);
                         });
    }
  }

  // A in sweeps that stay in L2 beside all of the chunk's B.
  template <class A>
  FASTNN_INLINE void run_in_sweeps(int64_t p0, int64_t p1, int64_t j0, int64_t j1, int64_t kb0, int64_t kb1,
                                   const A& of) const {
    const Split sweeps(p1 - p0, divide_up(p1 - p0, most(2, A_BLOCK / panel_bytes())));
    Scratch<T> packed(depth(0) * NR<T> * divide_up(j1 - j0, NR<T>));
    for (int64_t kb = kb0; kb < kb1; ++kb) {
      const int64_t parts = divide_up(depth(kb), 16);
      for (int64_t part = 0; part < parts; ++part)
        pack_share(pack_b, packed.get(), depths.begin(kb), depth(kb), j0, j1, part, parts);
      for (int64_t sweep = 0; sweep < sweeps.parts; ++sweep)
        multiply_panels<T>(rows, p0 + sweeps.begin(sweep), p0 + sweeps.begin(sweep + 1), j0, j1, depth(kb), of(kb),
                           {packed.get(), depth(kb), NR<T>}, A_STAYS_IN_L1, store, kb == 0, kb + 1 == depths.parts,
                           [](int64_t) {});
    }
  }
};

// Whether packing A costs less than reading it in place: as much as some 8 columns of C, measured. Rows of 4 KB or more
// share few places in L1, so for those it pays from 8 panels of columns on; for others from 40 (N = 512 gains 4 % in
// place). Along m each step of k is a line of its own: in place only where all is small.
template <class T>
FASTNN_INLINE bool worth_packing_a(const InPlace<T>& a, int64_t N, int64_t chunks) {
  if (a.turned) return N > 4 * NR<T> && chunks > 1;
  return N > 40 * NR<T> || (N > 8 * NR<T> && a.ld >= 4096 / int64_t(sizeof(T)));
}

// Whether packing B costs less. What fits L2 is read there as fast as packed, 2 KB or more apart too with vectors as
// wide as lines; narrower ones live on a panel in L1, of which rows 2 KB apart share few places.
template <class T>
FASTNN_INLINE bool worth_packing_b(const InPlace<T>& b, int64_t M, int64_t size) {
  const bool shares_places = !A_STAYS_IN_L1 && b.ld % (2048 / int64_t(sizeof(T))) == 0;
  return M > 28 && (size * int64_t(sizeof(T)) > B_IN_PLACE || (M > 96 && shares_places));
}

// C = A B over tiles; see the head of the file. K = 0 gives tiles of zeros. What can be read in place is not packed
// where packing would cost more than it saves: A against few columns, B against few rows.
template <class T, class PackA, class PackB, class Store>
static void gemm_blocks(int64_t M, int64_t N, int64_t K, const PackA& pack_a, const PackB& pack_b, const Store& store,
                        InPlace<T> a = {}, InPlace<T> b = {}) {
  if (M <= 0 || N <= 0) return;
  const Split depths(K, divide_up(K, KC<T>));
  const int64_t depth = depths.count(0), chunks = chunks_wanted(double(M) * double(N) * double(K));
  const int64_t pack_rows = b.data ? 6 : 8;  // packing a panel of B costs what so many rows of A do, measured
  if (worth_packing_a(a, N, chunks)) a = {};
  if (worth_packing_b(b, M, N * K)) b = {};

  // A is packed for a stripe of rows and a round of K blocks at a time.
  const int64_t stripes = divide_up(M, a.data ? M : 2048), height = divide_up(M, stripes);
  const int64_t stripe_bytes = height * (depth + 1) * int64_t(sizeof(T));
  const Split rounds(depths.parts, a.data ? 1 : divide_up(depths.parts, most(1, A_PACKED / stripe_bytes)));

  const int64_t columns = divide_up(N, NR<T>);
  const int64_t most_columns = most(1, B_CHUNK / ((depth + 1) * NR<T> * int64_t(sizeof(T))));
  const Grid grid = cheapest_grid(height, columns, chunks, divide_up(columns, most_columns), b.data ? 1 : pack_rows);
  const Split column_split(columns, grid.columns);
  const int64_t chunk_panels = divide_up(divide_up(height, grid.rows), TILE_ROWS), panels = chunk_panels * grid.rows;
  const Spread rows{M, stripes * panels};
  const Blocks<T, PackA, PackB, Store> blocks{rows, depths, pack_a, pack_b, store, a, b};

  for (int64_t p0 = 0; p0 < rows.parts; p0 += panels)
    for (int64_t round = 0; round < rounds.parts; ++round) {
      const int64_t kb0 = rounds.begin(round), kb1 = rounds.begin(round + 1), p1 = p0 + panels;
      Scratch<T> packed_a(blocks.size_of_a(p0, p1, kb0, kb1));
      if (a.data == nullptr) {
        const int64_t most_panels = divide_up(65536, (kb1 - kb0) * (depth + 1) * TILE_ROWS);
        parallel_for(panels, least(most_panels, divide_up(panels, chunks)), [&](int64_t begin, int64_t end) {
          blocks.pack(packed_a.get(), p0, p1, p0 + begin, p0 + end, kb0, kb1);
        });
      }
      // In the order of rows: a thread then mostly reads what it packed of A itself, which another core's cache would
      // give it at a tenth of the speed.
      parallel_for(grid.rows * grid.columns, 1, [&](int64_t chunk, int64_t) {
        const int64_t p = p0 + chunk / grid.columns * chunk_panels, c = chunk % grid.columns;
        blocks.run(p, p + chunk_panels, column_split.begin(c) * NR<T>, least(column_split.begin(c + 1) * NR<T>, N), kb0,
                   kb1, [&](int64_t kb) { return blocks.panels_of_a(packed_a.get(), p0, p1, kb0, kb); });
      });
    }
}

}  // namespace FASTNN_ISA
}  // namespace fastnn
