// Products on tensor cores (sm_80 and up): the main loop of GEMM and of implicit-GEMM convolution, C(M x N) = A(M x K)
// B(K x N), float in, float sums, in three precisions. It knows nothing of where operands come from or sums go to:
// loaders (matrix.cuh for plain matrices) copy the block's panels of A and B to shared memory with cp.async, four
// stages ahead; the kernel takes the sums from Sums::each.
//
//   MmaTile<BM, BN, WM, WN>    the block's tile and its warps' tiles
//   AlongK<ROWS>, AlongRows<ROWS>   how a stage keeps a panel of 16 columns of A (or of B transposed: rows are then n)
//   a loader L                 typedef L::Panel, one of these; l(panel, k) starts the copies of columns k to k + 15
//   into
//                              the panel, 0 where they end. All threads call it, with k = first, first + 16, ...
//   multiply_tiles<Precision, Tile>(sums, load_a, load_b, first, end)     sums = A B over columns first to end
#pragma once
#include "common.cuh"

// The block's tile, the tile of each of its warps. Sums take WM WN / 32 registers of a thread, operands 16 for every 32
// rows and columns: 64 x 64 leaves no room for more than 8 warps of an SM, and reads shared memory least.
template <int BM_, int BN_, int WM_, int WN_>
struct MmaTile {
  static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_;
  static constexpr int BK = 16, STAGES = 4;
  static constexpr int WARPS_N = BN / WN, THREADS = (BM / WM) * WARPS_N * WARP;
  static constexpr int STAGE = (BM + BN) * BK;       // floats
  static constexpr int SHARED = STAGES * STAGE * 4;  // bytes
};

template <bool FIRST, class A, class B>
struct Choose {
  typedef A Type;
};
template <class A, class B>
struct Choose<false, A, B> {
  typedef B Type;
};

// Panels. A lane reads 4 x 4 blocks of numbers, four 16-byte loads: rows 4p to 4p + 3 of 32, columns 4t to 4t + 3,
// where t = lane % 4 and p runs over 0, 4, 1, 5, 2, 6, 3, 7 as lane / 4 does. Shared memory serves eight lanes (two p,
// four t) at a time, if their eight packs lie in different sixteenths-byte columns of its 128-byte lines. That decides
// where pack c of a row is kept (tests/test_cuda_gemm.py counts the conflicts of all accesses: none).
//
// Columns of K next to each other, 16 to a row, two rows to a line. The lanes read rows 4p + j: p and p + 4 differ in
// bit 4 of the row, which swaps the halves of a line. A copy of 16-byte packs fills lines in order.
template <int ROWS>
struct AlongK {
  static constexpr bool ALONG_K = true;
  static FASTNN_INLINE int at(int row, int k) {
    return row / 2 * 32 + (((row % 2 * 4 + k / 4) ^ (row / 16 % 2 * 4)) * 4) + k % 4;
  }
};
// Rows next to each other. The lanes read columns 4t + j, packs p and p + 4: exclusive-or with a number whose two low
// bits are different for every t. Its other bits make single numbers that come along K (columns 0 to 7 of four rows)
// land in different banks too.
template <int ROWS>
struct AlongRows {
  static constexpr bool ALONG_K = false;
  static FASTNN_INLINE int at(int row, int k) {
    return k * ROWS + (((row / 4) ^ (((k / 4 ^ k) & 3) | (k & 4))) * 4) + row % 4;
  }
};

// This lane's block of the 32 rows from `row` on (a multiple of 32): x[j][i] is row + 4p + j, column 4t + i.
template <class PANEL>
FASTNN_INLINE void read_block(float (&x)[4][4], const float* panel, int row) {
  const int lane = threadIdx.x % WARP, t = lane % 4, p = lane / 8 + lane / 4 % 2 * 4;
#pragma unroll
  for (int i = 0; i < 4; ++i) {
    const Pack<float, 4> pack =
        load_pack<4>(panel + (PANEL::ALONG_K ? PANEL::at(row + 4 * p + i, 4 * t) : PANEL::at(row + 4 * p, 4 * t + i)));
#pragma unroll
    for (int j = 0; j < 4; ++j) (PANEL::ALONG_K ? x[i][j] : x[j][i]) = pack.v[j];
  }
}

// A warp's sums of 32 x 32 outputs, as four 16 x 8 products in each half h. The instruction's rows g and g + 8 are rows
// 4p + 2h and 4p + 2h + 1 (p as above, of g), its column g in product j is column 4p + j: a lane then owns four columns
// next to each other. Its columns k of A and B are ours in an order that both share.
struct Square {
  float c[2][4][4];  // [h][j][register]

  // Calls f(row, column, four sums) for the lane's packs; `row` and `column` are those of the square's corner.
  template <class F>
  FASTNN_INLINE void each(int row, int column, F f) const {
#pragma unroll
    for (int pack = 0; pack < 8; ++pack) {
      const int h = pack / 4, half = pack / 2 % 2, right = pack % 2;
      const float sums[4] = {c[h][0][2 * half + right], c[h][1][2 * half + right], c[h][2][2 * half + right],
                             c[h][3][2 * half + right]};
      f(row + row_of(pack), column + column_of(pack), sums);
    }
  }
  static FASTNN_INLINE int row_of(int pack) {
    const int g = threadIdx.x % WARP / 4;
    return 4 * (g / 2 + g % 2 * 4) + pack / 2;
  }
  static FASTNN_INLINE int column_of(int pack) { return 4 * (threadIdx.x % 4) + pack % 2 * 16; }
};

// Precisions: how a block of 16 columns of A or B is rounded, and square += A B.
//
// TF32: 11 bits of the operands.
struct Tf32 {
  struct Operand {
    uint32_t x[4][4];
  };
  static FASTNN_INLINE void round(Operand& to, const float (&x)[4][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) to.x[j][i] = to_tf32(x[j][i]);
  }
  static FASTNN_INLINE void product(float (&c)[4], const uint32_t (&a)[4][4], const uint32_t (&b)[4][4], int h, int j,
                                    int s) {
    const uint32_t rows[4] = {a[2 * h][2 * s], a[2 * h + 1][2 * s], a[2 * h][2 * s + 1], a[2 * h + 1][2 * s + 1]};
    const uint32_t columns[2] = {b[j][2 * s], b[j][2 * s + 1]};
    mma_tf32(c, rows, columns);
  }
  static FASTNN_INLINE void multiply(Square& square, const Operand& a, const Operand& b) {
#pragma unroll
    for (int s = 0; s < 2; ++s)
#pragma unroll
      for (int h = 0; h < 2; ++h)
#pragma unroll
        for (int j = 0; j < 4; ++j) product(square.c[h][j], a.x, b.x, h, j, s);
  }
};

// 3xTF32: x = big + small, 11 bits each (small keeps 11 of the 12 that remain, its last bit cut off by the
// instruction); big big + big small + small big is what float would give within 2^-22. The instruction's own sums are
// cut, not rounded, and so drift: those of 16 columns are made apart and added by an ordinary addition. An infinity
// becomes NaN (inf - inf), and so does what rounds to one.
struct Tf32x3 {
  struct Operand {
    uint32_t big[4][4], small[4][4];
  };
  static FASTNN_INLINE void round(Operand& to, const float (&x)[4][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int i = 0; i < 4; ++i) {
        to.big[j][i] = to_tf32(x[j][i]);
        to.small[j][i] = __float_as_uint(x[j][i] - __uint_as_float(to.big[j][i]));
      }
  }
  static FASTNN_INLINE void multiply(Square& square, const Operand& a, const Operand& b) {
#pragma unroll
    for (int h = 0; h < 2; ++h) {
      float sums[4][4] = {};
#pragma unroll
      for (int s = 0; s < 2; ++s) {
#pragma unroll
        for (int j = 0; j < 4; ++j) Tf32::product(sums[j], a.small, b.big, h, j, s);
#pragma unroll
        for (int j = 0; j < 4; ++j) Tf32::product(sums[j], a.big, b.small, h, j, s);
#pragma unroll
        for (int j = 0; j < 4; ++j) Tf32::product(sums[j], a.big, b.big, h, j, s);
      }
#pragma unroll
      for (int j = 0; j < 4; ++j)
#pragma unroll
        for (int r = 0; r < 4; ++r) square.c[h][j][r] += sums[j][r];
    }
  }
};

// bf16: 8 bits of the operands, the range of float; two columns to a register.
struct Bf16 {
  struct Operand {
    uint32_t x[4][2];
  };
  static FASTNN_INLINE void round(Operand& to, const float (&x)[4][4]) {
#pragma unroll
    for (int j = 0; j < 4; ++j)
#pragma unroll
      for (int i = 0; i < 2; ++i) to.x[j][i] = to_bf16x2(x[j][2 * i], x[j][2 * i + 1]);
  }
  static FASTNN_INLINE void multiply(Square& square, const Operand& a, const Operand& b) {
#pragma unroll
    for (int h = 0; h < 2; ++h)
#pragma unroll
      for (int j = 0; j < 4; ++j) {
        const uint32_t rows[4] = {a.x[2 * h][0], a.x[2 * h + 1][0], a.x[2 * h][1], a.x[2 * h + 1][1]};
        mma_bf16(square.c[h][j], rows, b.x[j]);
      }
  }
};

// A thread's sums of its block's tile.
template <class TILE>
struct Sums {
  Square square[TILE::WM / 32][TILE::WN / 32];

  static FASTNN_INLINE int warp_row() { return threadIdx.x / WARP / TILE::WARPS_N * TILE::WM; }
  static FASTNN_INLINE int warp_column() { return threadIdx.x / WARP % TILE::WARPS_N * TILE::WN; }

  // Calls f(row, column, const float (&sums)[4]): sums of columns `column` to `column` + 3, a multiple of 4, of the
  // block's tile. Unrolled: f should be short.
  template <class F>
  FASTNN_INLINE void each(F f) const {
#pragma unroll
    for (int i = 0; i < TILE::WM / 32; ++i)
#pragma unroll
      for (int j = 0; j < TILE::WN / 32; ++j) square[i][j].each(warp_row() + 32 * i, warp_column() + 32 * j, f);
  }
  // Calls f(row, column) for the same packs, in a rolled loop.
  template <class F>
  static FASTNN_INLINE void places(F f) {
#pragma unroll 1
    for (int pack = 0; pack < TILE::WM * TILE::WN / 128; ++pack) {
      const int i = pack / 8 / (TILE::WN / 32), j = pack / 8 % (TILE::WN / 32);
      f(warp_row() + 32 * i + Square::row_of(pack % 8), warp_column() + 32 * j + Square::column_of(pack % 8));
    }
  }
};

// sums = A B over columns `first` to `end`, through TILE::SHARED bytes of dynamic shared memory. Three stages are on
// their way while one is multiplied; one barrier for each.
template <class PRECISION, class TILE, class LOAD_A, class LOAD_B>
FASTNN_INLINE void multiply_tiles(Sums<TILE>& sums, LOAD_A& load_a, LOAD_B& load_b, int64_t first, int64_t end) {
  typedef typename LOAD_A::Panel PanelA;
  typedef typename LOAD_B::Panel PanelB;
  constexpr int ROWS = TILE::WM / 32, COLUMNS = TILE::WN / 32, AHEAD = TILE::STAGES - 1;
  float* const memory = dynamic_shared<float>();
  const int row = Sums<TILE>::warp_row(), column = Sums<TILE>::warp_column();

  int64_t next = first;
  const auto start = [&](int stage) {
    if (next < end) {
      load_a(memory + stage * TILE::STAGE, next);
      load_b(memory + stage * TILE::STAGE + TILE::BM * TILE::BK, next);
    }
    next += TILE::BK;
    cp_async_commit();  // an empty group too: the count of groups is what wait goes by
  };

#pragma unroll
  for (int i = 0; i < ROWS; ++i)
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) sums.square[i][j] = Square{};
#pragma unroll 1
  for (int stage = 0; stage < AHEAD; ++stage) start(stage);

  int stage = 0;
#pragma unroll 1
  for (int64_t k = first; k < end; k += TILE::BK) {
    cp_async_wait<AHEAD - 1>();
    __syncthreads();  // this stage has landed for all, and all have left the one before, which is filled again
    start(stage == 0 ? AHEAD : stage - 1);
    const float* const panel_a = memory + stage * TILE::STAGE;
    const float* const panel_b = panel_a + TILE::BM * TILE::BK;
    typename PRECISION::Operand a[ROWS], b;
    float x[4][4];
#pragma unroll
    for (int i = 0; i < ROWS; ++i) {
      read_block<PanelA>(x, panel_a, row + 32 * i);
      PRECISION::round(a[i], x);
    }
#pragma unroll
    for (int j = 0; j < COLUMNS; ++j) {
      read_block<PanelB>(x, panel_b, column + 32 * j);
      PRECISION::round(b, x);
#pragma unroll
      for (int i = 0; i < ROWS; ++i) PRECISION::multiply(sums.square[i][j], a[i], b);
    }
    stage = stage == AHEAD ? 0 : stage + 1;
  }
  cp_async_wait<0>();
}
