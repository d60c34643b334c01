// SPDX-License-Identifier: Apache-2.0
// Every instruction of portable.h by itself, on given words: what a device answers is what the emulator's
// twin of the instruction must answer. One warp each; inputs and outputs are so many words for each lane,
// lane by lane. Compiled by nvcc into a library of its own, and into the emulator's; conformance.py runs both
// and compares.
#include "cuda/portable.h"
#include "simt/conformance_memory.h"

namespace hotloop::cuda {
namespace {

using Word = std::uint32_t;

HL_DEVICE float as_float(Word w) {
  union {
    Word word;
    float value;
  } both;
  both.word = w;
  return both.value;
}
HL_DEVICE Word as_word(float f) {
  union {
    float value;
    Word word;
  } both;
  both.value = f;
  return both.word;
}

// in: a value, a lane. out: shfl from that lane, shfl_xor by 1, 2, 4, 8, 16 and 21, shfl_down by 1, 5 and 16.
HL_KERNEL shuffles(const Word* in, Word* out) {
  const int lane = lane_id();
  const Word v = in[2 * lane];
  Word* const mine = out + 10 * lane;
  mine[0] = shfl(v, static_cast<int>(in[2 * lane + 1]));
  mine[1] = shfl_xor(v, 1);
  mine[2] = shfl_xor(v, 2);
  mine[3] = shfl_xor(v, 4);
  mine[4] = shfl_xor(v, 8);
  mine[5] = shfl_xor(v, 16);
  mine[6] = shfl_xor(v, 21);
  mine[7] = shfl_down(v, 1);
  mine[8] = shfl_down(v, 5);
  mine[9] = shfl_down(v, 16);
}

// The same for 64 bits; out: shfl_xor by 9, shfl_down by 3, as two words each.
HL_KERNEL shuffles_wide(const Word* in, Word* out) {
  const int lane = lane_id();
  const std::uint64_t v = in[2 * lane] | static_cast<std::uint64_t>(in[2 * lane + 1]) << 32;
  const std::uint64_t found[2] = {shfl_xor(v, 9), shfl_down(v, 3)};
  for (int i = 0; i < 2; ++i) {
    out[4 * lane + 2 * i] = static_cast<Word>(found[i]);
    out[4 * lane + 2 * i + 1] = static_cast<Word>(found[i] >> 32);
  }
}

// Even lanes among themselves, odd lanes among themselves; out: shfl_xor by 2, the ballot of odd values.
HL_KERNEL masks(const Word* in, Word* out) {
  const int lane = lane_id();
  const Word v = in[lane];
  if (lane % 2 == 0) {
    out[2 * lane] = shfl_xor(v, 2, 0x55555555u);
    out[2 * lane + 1] = ballot(v % 2 == 1, 0x55555555u);
  } else {
    out[2 * lane] = shfl_xor(v, 2, 0xAAAAAAAAu);
    out[2 * lane + 1] = ballot(v % 2 == 1, 0xAAAAAAAAu);
  }
}

// out: the ballot of odd values, sync_or of zero values, the sum of all by atomic_add, seen after a barrier.
HL_KERNEL votes(const Word* in, Word* out) {
  HL_SHARED(int, sum, [1]);
  const int lane = lane_id();
  if (lane == 0) sum[0] = 0;
  sync();
  atomic_add(&sum[0], static_cast<int>(in[lane] & 0xFFFFu));
  const Word odd = ballot(in[lane] % 2 == 1);
  const bool any_zero = sync_or(in[lane] == 0);
  out[3 * lane] = odd;
  out[3 * lane + 1] = any_zero ? 1 : 0;
  out[3 * lane + 2] = static_cast<Word>(sum[0]);
}

// in: eight words. out: four of them by load4 and store4, two by load2 and store2, two as streams, and the
// first four again by store_words.
HL_KERNEL wide_access(const Word* in, Word* out) {
  const float* const x = reinterpret_cast<const float*>(in) + 8 * lane_id();
  float* const y = reinterpret_cast<float*>(out) + 12 * lane_id();
  const Float4 four = load4(x);
  store4(y, Float4{four.w, four.z, four.y, four.x});
  const Float2 two = load2(x + 4);
  store2(y + 4, Float2{two.y, two.x});
  store_stream(y + 6, load_stream(x + 7));
  store_stream(y + 7, load_stream(x + 6));
  const Word* const words = in + 8 * lane_id();
  const Word turned[4] = {words[2], words[3], words[0], words[1]};
  store_words(y + 8, turned);
}

// in: 4, 2 and 1 words to copy, and whether to. out: the same after the copies.
HL_KERNEL copies(const Word* in, Word* out) {
  HL_SHARED(Word, four, [kWarp][4]);
  HL_SHARED(Word, two, [kWarp][2]);
  HL_SHARED(Word, one, [kWarp]);
  const int lane = lane_id();
  // Three planes of words, so that each lane's lie where the copy wants them aligned.
  const Word* const twos = in + 4 * kWarp;
  const Word* const ones = in + 6 * kWarp;
  const bool ok = in[7 * kWarp + lane] % 2 == 1;
  copy_async<16>(four[lane], in + 4 * lane, ok);
  cp_commit();
  copy_async<8>(two[lane], twos + 2 * lane, ok);
  copy_async<4>(&one[lane], ones + lane, ok);
  cp_commit();
  cp_wait<1>();
  sync_warp();
  const int other = lane ^ 1;
  for (int i = 0; i < 4; ++i) out[7 * lane + i] = four[other][i];
  cp_wait<0>();
  sync_warp();
  for (int i = 0; i < 2; ++i) out[7 * lane + 4 + i] = two[other][i];
  out[7 * lane + 6] = one[other];
}

// in: a row of 8 elements of 16 bits. out: ldmatrix_x4, _x4_trans, _x2, _x2_trans.
HL_KERNEL matrix_loads(const Word* in, Word* out) {
  HL_SHARED(Word, rows, [kWarp][4]);
  const int lane = lane_id();
  for (int i = 0; i < 4; ++i) rows[lane][i] = in[4 * lane + i];
  sync_warp();
  Word r[4], t[4], r2[2], t2[2];
  ldmatrix_x4(r, rows[lane]);
  ldmatrix_x4_trans(t, rows[lane]);
  ldmatrix_x2(r2, rows[lane % 16]);
  ldmatrix_x2_trans(t2, rows[lane % 16]);
  Word* const mine = out + 12 * lane;
  for (int i = 0; i < 4; ++i) mine[i] = r[i];
  for (int i = 0; i < 4; ++i) mine[4 + i] = t[i];
  for (int i = 0; i < 2; ++i) mine[8 + i] = r2[i];
  for (int i = 0; i < 2; ++i) mine[10 + i] = t2[i];
}

// in: four words of d, four of a, two of b. out: d.
template <bool bf16>
HL_KERNEL matrix_product(const Word* in, Word* out) {
  const Word* const mine = in + 10 * lane_id();
  float d[4];
  Word a[4], b[2];
  for (int i = 0; i < 4; ++i) d[i] = as_float(mine[i]);
  for (int i = 0; i < 4; ++i) a[i] = mine[4 + i];
  for (int i = 0; i < 2; ++i) b[i] = mine[8 + i];
  if constexpr (bf16)
    mma_bf16(d, a, b);
  else
    mma_tf32(d, a, b);
  for (int i = 0; i < 4; ++i) out[4 * lane_id() + i] = as_word(d[i]);
}

// in: two floats. out: to_tf32 of each, pack_bf16 of both.
HL_KERNEL roundings(const Word* in, Word* out) {
  const int lane = lane_id();
  const float lo = as_float(in[2 * lane]), hi = as_float(in[2 * lane + 1]);
  out[3 * lane] = to_tf32(lo);
  out[3 * lane + 1] = to_tf32(hi);
  out[3 * lane + 2] = pack_bf16(lo, hi);
}

struct Case {
  const char* name;
  void (*kernel)(const Word*, Word*);
  int in, out;  // words of a lane
};
constexpr Case kCases[] = {
    {"shuffles", shuffles, 2, 10},
    {"shuffles_wide", shuffles_wide, 2, 4},
    {"masks", masks, 1, 2},
    {"votes", votes, 1, 3},
    {"wide_access", wide_access, 8, 12},
    {"copies", copies, 8, 7},
    {"matrix_loads", matrix_loads, 4, 12},
    {"mma_bf16", matrix_product<true>, 10, 4},
    {"mma_tf32", matrix_product<false>, 10, 4},
    {"roundings", roundings, 2, 3},
};

}  // namespace
}  // namespace hotloop::cuda

// How many cases; the name and the words of a lane of one.
extern "C" __attribute__((visibility("default"))) int hotloop_conformance_count() {
  return static_cast<int>(sizeof(hotloop::cuda::kCases) / sizeof(hotloop::cuda::kCases[0]));
}
extern "C" __attribute__((visibility("default"))) const char* hotloop_conformance_case(int number, int* in,
                                                                                       int* out) {
  const auto& c = hotloop::cuda::kCases[number];
  *in = c.in;
  *out = c.out;
  return c.name;
}
// Runs one on 32 lanes; what went wrong, or null.
extern "C" __attribute__((visibility("default"))) const char* hotloop_conformance_run(int number,
                                                                                      const std::uint32_t* in,
                                                                                      std::uint32_t* out) {
  using namespace hotloop::cuda;
  const Case& c = kCases[number];
  DeviceWords x(static_cast<std::size_t>(c.in) * kWarp), y(static_cast<std::size_t>(c.out) * kWarp);
  x.put(in);
  launch(nullptr, c.kernel, 1, kWarp, 0, x.data(), y.data());
  y.get(out);
  return what_went_wrong();
}
