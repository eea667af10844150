// A gather as a GEMM of rows (q, u, c) and columns (n, i, j), the positions: where a tile's sums go, and what brings
// its operands to shared memory, for the main loops of gemm_simt.cuh and gemm_mma.cuh. There, loader(panel, k) starts
// the copies of columns k to k + BK - 1 of a panel of A (of B transposed), with k = 0, BK, ..., and 0 for what is not
// there; PANEL::at(row, k) says where in the panel a number goes. For gathers whose sizes, offsets inside an image, and
// number of positions fit int.
#pragma once
#include "conv.cuh"

// Four numbers that were made side by side, 16 bytes at a time.
template <class T>
FASTNN_INLINE void store_four(T* to, const T (&from)[4]) {
  constexpr int V = 16 / sizeof(T);
#pragma unroll
  for (int e = 0; e < 4; e += V) {
    Pack<T, V> pack;
#pragma unroll
    for (int v = 0; v < V; ++v) pack.v[v] = from[e + v];
    store_pack(to + e, pack);
  }
}

// Where the block's positions stand in a channel of dst, for all of them at once: a thread's sums would ask again and
// again. -1: there is no such position.
template <int POSITIONS>
FASTNN_INLINE void read_places(int64_t* places, const Gather& g, int first) {
  const int P = int(g.Ho * g.Wo), Wo = int(g.Wo);
  for (int64_t i : block_stride(POSITIONS)) {
    const int at = first + int(i), n = at / P, p = at % P;
    places[i] = n < g.N ? n * g.yn + p / Wo * g.yi + p % Wo * g.yj + g.y0 : -1;
  }
  __syncthreads();
}

// Sums out to dst: four neighbouring positions of channel m of the group, at once where they lie side by side.
template <class T>
struct GatherOutput {
  T* dst;
  const T* bias;
  const int64_t* places;
  int64_t yc;
  int relu, M;
  bool whole;

  FASTNN_INLINE GatherOutput(const Gather& g, T* y, const T* b, int relu_, const int64_t* places_)
      : dst(y + blockIdx.z * g.M * g.yc),
        bias(b == nullptr ? b : b + blockIdx.z * g.M),
        places(places_),
        yc(g.yc),
        relu(relu_),
        M(int(g.M)) {
    const int V = 16 / sizeof(T), P = int(g.Ho * g.Wo);
    whole = g.yj == 1 && g.yi == g.Wo && g.y0 == 0 && P % 4 == 0 && yc % V == 0 && g.yn % V == 0 &&
            reinterpret_cast<uint64_t>(dst) % 16 == 0;
  }
  FASTNN_INLINE void store(int m, int position, const T (&sum)[4]) const {
    if (m >= M) return;
    const T shift = bias == nullptr ? T(0) : bias[m];
    const int64_t* const to = places + position;
    T* const out = dst + m * yc;
    T y[4];
#pragma unroll
    for (int e = 0; e < 4; ++e) y[e] = relu ? relu_of(sum[e] + shift) : sum[e] + shift;
    if (whole) {
      if (to[0] >= 0) store_four(out + to[0], y);
      return;
    }
#pragma unroll
    for (int e = 0; e < 4; ++e)
      if (to[e] >= 0) out[to[e]] = y[e];
  }
};

template <class T>
FASTNN_INLINE void copy_number(T* to, const T* from, bool inside, const T* somewhere) {
  cp_async<sizeof(T)>(to, inside ? from : somewhere, inside ? sizeof(T) : 0);
}

// The row (q, u, c) of a gather that comes next; behind the last one q = R. `channels` may be more than the gather has.
struct GatherRow {
  int c, u, q;
  FASTNN_INLINE GatherRow(int row, int channels, int S)
      : c(row % channels), u(row / channels % S), q(row / channels / S) {}
  FASTNN_INLINE void advance(int rows, int channels, int S) {
    c += rows;
    while (c >= channels) {
      c -= channels;
      if (++u == S) u = 0, ++q;
    }
  }
};

// A: weights packed by conv_pack, whose tiles are all whole: row m, column k at base[k * columns + m].
template <class T, class PANEL, int ROWS, int BK, int THREADS>
struct PackedLoader {
  typedef PANEL Panel;
  static constexpr int V = 16 / sizeof(T), PACKS = ROWS / V;
  static_assert(PACKS * BK % THREADS == 0, "as many packs for every thread");
  const T* base;
  int columns;

  FASTNN_INLINE void operator()(T* panel, int64_t k) const {
#pragma unroll
    for (int i = 0; i < PACKS * BK / THREADS; ++i) {
      const int at = threadIdx.x + i * THREADS, row = at % PACKS * V, column = at / PACKS;
      cp_async<16>(panel + PANEL::at(row, column), base + (k + column) * columns + row);
    }
  }
};

// B: patches. A thread brings PER numbers of one position; `channels` is rounded up to RUN, so that RUN rows have one
// tap, whose address and bounds are reckoned once.
template <class T, class PANEL, int ROWS, int BK, int THREADS, int RUN>
struct PatchLoader {
  typedef PANEL Panel;
  static constexpr int PER = ROWS * BK / THREADS;
  static_assert(THREADS % ROWS == 0 && PER % RUN == 0, "one position to a thread, and whole runs");
  const T* src;  // the position's image and group
  int h0, v0, H, W, C, channels, R, S, dq, du, area;
  GatherRow row;

  FASTNN_INLINE PatchLoader(const Gather& g, const T* x, int position, int channels_)
      : W(int(g.W)),
        C(int(g.C)),
        channels(channels_),
        R(int(g.R)),
        S(int(g.S)),
        dq(int(g.dq)),
        du(int(g.du)),
        area(int(g.H * g.W)),
        row(threadIdx.x / ROWS * PER, channels_, int(g.S)) {
    position += threadIdx.x % ROWS;
    const int P = int(g.Ho * g.Wo), Wo = int(g.Wo), n = position / P, p = position % P;
    H = n < g.N ? int(g.H) : 0;  // no row is inside
    h0 = p / Wo * int(g.si) + int(g.oi), v0 = p % Wo * int(g.sj) + int(g.oj);
    src = x + (int64_t(n < g.N ? n : 0) * g.groups + blockIdx.z) * C * area;
  }
  FASTNN_INLINE void operator()(T* panel, int64_t) {
#pragma unroll 4
    for (int i = 0; i < PER; i += RUN) {
      const int h = h0 + row.q * dq, v = v0 + row.u * du;
      const bool inside = row.q < R && unsigned(h) < unsigned(H) && unsigned(v) < unsigned(W);
      const T* const from = src + (inside ? row.c * area + h * W + v : 0);
#pragma unroll
      for (int r = 0; r < RUN; ++r)
        copy_number(panel + PANEL::at(threadIdx.x % ROWS, threadIdx.x / ROWS * PER + i + r), from + r * area,
                    inside && row.c + r < C, src);
      row.advance(i + RUN < PER ? RUN : RUN + BK - PER, channels, S);  // behind the last: to the next step's first
    }
  }
};

// What a block of the weights' gradient works on: block (rows / BN, M / BM, split * groups + group) sums the split's
// `part` positions, to parts (splits, groups, M, columns).
template <class T>
struct WeightWork {
  int row, column, rows, first, count;  // the tile's corner, rows from it on that there are; positions
  const T *dy, *x;                      // of the corner's channel; of the group
  T* to;
  int64_t columns;

  FASTNN_INLINE WeightWork(const Gather& g, const T* dy_, const T* x_, T* parts, int columns_, int part, int BM, int BN)
      : row(blockIdx.y * BM), column(blockIdx.x * BN), rows(int(g.M) - row), columns(columns_) {
    const int64_t group = blockIdx.z % g.groups;
    first = int(blockIdx.z / g.groups) * part;
    count = min(part, int(g.N * g.Ho * g.Wo) - first);
    dy = dy_ + (group * g.M + row) * g.yc;
    x = x_ + group * g.C * g.H * g.W;
    to = parts + (blockIdx.z * g.M + row) * columns + column;
  }
  FASTNN_INLINE void store(int m, int n, const T (&sum)[4]) const {
    if (m < rows) store_four(to + m * columns + n, sum);
  }
};

// A walk over positions (n, i, j) in steps, each digit with its carry; `left` of them are still to come.
struct GatherPosition {
  int n, i, j, dn, di, dj, Ho, Wo, left;
  FASTNN_INLINE GatherPosition(const Gather& g, int position, int step, int count)
      : Ho(int(g.Ho)), Wo(int(g.Wo)), left(count) {
    n = position / (Ho * Wo), i = position / Wo % Ho, j = position % Wo;
    dn = step / (Ho * Wo), di = step / Wo % Ho, dj = step % Wo;
  }
  FASTNN_INLINE void advance(int step) {
    left -= step;
    j += dj, i += di, n += dn;
    if (j >= Wo) j -= Wo, ++i;
    if (i >= Ho) i -= Ho, ++n;
  }
};

// How the operands of the weights' gradient, along whose rows positions lie side by side, are shared out: BK
// neighbouring threads take a row's BK positions, the others of a warp the next rows.
template <int ROWS, int BK, int THREADS>
struct AlongPositions {
  static constexpr int GROUPS = WARP / BK, PER = ROWS * BK / THREADS;
  static_assert(WARP % BK == 0 && PER * THREADS == ROWS * BK, "as much for every thread");
  static FASTNN_INLINE int position() { return threadIdx.x % BK; }
  template <class T>
  static FASTNN_INLINE GatherPosition first(const Gather& g, const WeightWork<T>& work) {
    return GatherPosition(g, work.first + position(), BK, work.count - position());
  }
  static FASTNN_INLINE int row(int i) {
    return threadIdx.x / WARP * GROUPS * PER + i * GROUPS + threadIdx.x % WARP / BK;
  }
};

// A: dy, rows m, at the position that the loader of B, which comes after it, moves on.
template <class T, class PANEL, int ROWS, int BK, int THREADS>
struct GradientLoader {
  typedef PANEL Panel;
  typedef AlongPositions<ROWS, BK, THREADS> Share;
  const T* dy;
  int64_t yn, yc;
  int rows;
  const GatherPosition& at;

  FASTNN_INLINE GradientLoader(const Gather& g, const WeightWork<T>& work, const GatherPosition& at_)
      : dy(work.dy), yn(g.yn), yc(g.yc), rows(work.rows), at(at_) {}
  FASTNN_INLINE void operator()(T* panel, int64_t) const {
    const T* from = dy + at.n * yn + (at.i * at.Wo + at.j) + Share::row(0) * yc;
#pragma unroll 4
    for (int i = 0; i < Share::PER; ++i) {
      const int row = Share::row(i);
      copy_number(panel + PANEL::at(row, Share::position()), from, at.left > 0 && row < rows, dy);
      from += Share::GROUPS * yc;
    }
  }
};

// The same, four positions at a time: at once where maps begin at multiples of 16 bytes.
template <class PANEL, int ROWS, int BK, int THREADS>
struct GradientPackLoader {
  typedef PANEL Panel;
  static constexpr int PACKS = BK / 4, LINES = THREADS / PACKS;  // of a row; rows that all threads copy at a time
  static_assert(ROWS % LINES == 0, "as much for every thread");
  const float *dy, *from;  // the thread's first number of the next step, position p of its image
  int64_t yc, next_image;  // next_image: from behind an image's last position to the next one's first
  int rows, left, p, P;
  bool wide;

  FASTNN_INLINE GradientPackLoader(const Gather& g, const WeightWork<float>& work)
      : dy(work.dy),
        yc(g.yc),
        next_image(g.yn - g.yc),
        rows(work.rows - row()),
        P(int(g.yc)),
        wide(P % 4 == 0 && reinterpret_cast<uint64_t>(dy) % 16 == 0) {
    const int position = work.first + threadIdx.x % PACKS * 4;
    left = work.first + work.count - position;
    p = position % P;
    from = dy + position / P * g.yn + p + row() * yc;
  }
  static FASTNN_INLINE int row() { return threadIdx.x / PACKS; }
  FASTNN_INLINE void operator()(float* panel, int64_t) {
    const float* next = from;
#pragma unroll
    for (int i = 0; i < ROWS; i += LINES) {
      float* const to = panel + PANEL::at(row() + i, threadIdx.x % PACKS * 4);
      if (wide) {
        const bool inside = left > 0 && i < rows;
        cp_async<16>(to, inside ? next : dy, inside ? 16 : 0);
      } else {
        one_by_one(to, next, i < rows ? left : 0);
      }
      next += LINES * yc;
    }
    left -= BK;
    p += BK % P;
    from += BK + BK / P * next_image;
    if (p >= P) p -= P, from += next_image;
  }
  FASTNN_INLINE void one_by_one(float* to, const float* next, int count) const {
    int position = p;
#pragma unroll 1
    for (int e = 0; e < 4; ++e) {
      copy_number(to + e, next, e < count, dy);
      ++next;
      if (++position == P) position = 0, next += next_image;
    }
  }
};

// What a row (q, u, c) adds to a position: to its offset inside an image, and to h and v. Behind the last row h leads
// out of any image.
struct __align__(16) Tap {
  int at, h, v;
};
template <int ROWS>
FASTNN_INLINE void read_taps(Tap* taps, const Gather& g, int first) {
  for (int64_t i : block_stride(ROWS)) {
    const GatherRow r(first + int(i), int(g.C), int(g.S));
    const int h = r.q * int(g.dq), v = r.u * int(g.du);
    taps[i] = {(r.c * int(g.H) + h) * int(g.W) + v, r.q < g.R ? h : -(1 << 30), v};
  }
  __syncthreads();
}

// B: patches, of rows (q, u, c) as `taps`, in shared memory, say.
template <class T, class PANEL, int ROWS, int BK, int THREADS>
struct WindowLoader {
  typedef PANEL Panel;
  typedef AlongPositions<ROWS, BK, THREADS> Share;
  const T* x;
  const Tap* taps;
  int64_t image;
  int si, sj, oi, oj, H, W;
  GatherPosition& at;  // of this thread; moved on

  FASTNN_INLINE WindowLoader(const Gather& g, const WeightWork<T>& work, const Tap* taps_, GatherPosition& at_)
      : x(work.x),
        taps(taps_),
        image(g.groups * g.C * g.H * g.W),
        si(int(g.si)),
        sj(int(g.sj)),
        oi(int(g.oi)),
        oj(int(g.oj)),
        H(int(g.H)),
        W(int(g.W)),
        at(at_) {}
  FASTNN_INLINE void operator()(T* panel, int64_t) {
    const int h = at.i * si + oi, v = at.j * sj + oj, rows = at.left > 0 ? H : 0;
    const T* const from = x + at.n * image + (h * W + v);
#pragma unroll 4
    for (int i = 0; i < Share::PER; ++i) {
      const int row = Share::row(i);
      const Tap tap = taps[row];
      const bool inside = unsigned(h + tap.h) < unsigned(rows) && unsigned(v + tap.v) < unsigned(W);
      copy_number(panel + PANEL::at(row, Share::position()), from + tap.at, inside, x);
    }
    at.advance(BK);
  }
};
