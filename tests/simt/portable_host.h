// SPDX-License-Identifier: Apache-2.0
// The host half of portable.h: the same names, carried out by the emulator. Everything that can wait or fail
// takes the place of its call by default arguments, so that a report can name it. Twins of mbarrier, TMA and
// wgmma would stand beside copy_async and mma here, with their state in the block (machine.h): a barrier's
// phase and pending bytes, a tile copy that lands when somebody waits, products that are formed at the wait.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

#include "simt/emulator.h"

#define HL_KERNEL void
#define HL_DEVICE inline
#define HL_BOUNDS(threads, blocks)
#define HL_SHARED(T, name, dims)                                                                \
  using name##_shared_type = T dims;                                                            \
  static constinit ::hotloop::simt::Zone name##_shared_zone{#name, sizeof(name##_shared_type)}; \
  auto& name = *static_cast<name##_shared_type*>(::hotloop::simt::shared(name##_shared_zone))
#define HL_DYNAMIC_SHARED(T, name) T* const name = static_cast<T*>(::hotloop::simt::dynamic_shared())
#define HL_UNROLL
#define HL_NO_UNROLL

// The place of a call, as default arguments and as what they make.
#define HL_AT const char *file = __builtin_FILE(), int line = __builtin_LINE()
#define HL_SITE(what) \
  ::hotloop::simt::Site { what, file, line }

namespace hotloop::cuda {

using Dim3 = simt::Dim3;
using Stream = simt::Queue*;
struct alignas(16) Float4 {
  float x, y, z, w;
};
struct alignas(8) Float2 {
  float x, y;
};

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
constexpr std::size_t kPlainShared = 48 * 1024;

inline const Dim3& threadIdx = simt::thread_index;
inline const Dim3& blockIdx = simt::block_index;
inline const Dim3& blockDim = simt::block_dim;
inline const Dim3& gridDim = simt::grid_dim;

// A stream, and who launches in it.
struct LaunchSite {
  Stream stream;
  const char *name, *file;
  int line;
  LaunchSite(Stream s, const char* n = __builtin_FUNCTION(), const char* f = __builtin_FILE(),
             int l = __builtin_LINE())
      : stream(s), name(n), file(f), line(l) {}
};

template <class... Params, class... Args>
void launch(LaunchSite at, void (*kernel)(Params...), Dim3 grid, Dim3 block, std::size_t shared_bytes,
            const Args&... args) {
  simt::submit(at.stream, {{at.name, at.file, at.line, grid, block, shared_bytes},
                           [=] { kernel(static_cast<Params>(args)...); }});
}

HL_DEVICE int lane_id() { return simt::lane; }
HL_DEVICE int warp_id() { return simt::warp; }

HL_DEVICE void sync(HL_AT) { simt::block_barrier(HL_SITE("sync")); }
HL_DEVICE bool sync_or(bool any, HL_AT) { return simt::block_barrier_or(HL_SITE("sync_or"), any); }
HL_DEVICE void sync_warp(unsigned mask = kAllLanes, HL_AT) { simt::warp_barrier(HL_SITE("sync_warp"), mask); }

// What a lane gives, whose value it wants, and what it gets: bits that are no number if that lane gives none.
template <class T>
struct Shuffle {
  T in;
  int from;
  T out;
};
template <class T>
void shuffle_all(simt::Lanes mine) {
  for (void* const p : mine) {
    if (!p) continue;
    auto& to = *static_cast<Shuffle<T>*>(p);
    if (const void* q = mine[to.from & 31])
      to.out = static_cast<const Shuffle<T>*>(q)->in;
    else
      std::memset(&to.out, 0xFF, sizeof to.out);
  }
}
template <class T>
T shuffle(const simt::Site& site, unsigned mask, T v, int from) {
  static_assert((sizeof(T) == 4 || sizeof(T) == 8) && std::is_trivially_copyable_v<T>);
  Shuffle<T> mine{v, from, v};
  simt::warp_collective(site, mask, &mine, shuffle_all<T>);
  return mine.out;
}
template <class T>
HL_DEVICE T shfl(T v, int lane, unsigned mask = kAllLanes, HL_AT) {
  return shuffle(HL_SITE("shfl"), mask, v, lane);
}
template <class T>
HL_DEVICE T shfl_xor(T v, int lanes, unsigned mask = kAllLanes, HL_AT) {
  return shuffle(HL_SITE("shfl_xor"), mask, v, simt::lane ^ lanes);
}
// Past the last lane a thread keeps its own value.
template <class T>
HL_DEVICE T shfl_down(T v, int lanes, unsigned mask = kAllLanes, HL_AT) {
  return shuffle(HL_SITE("shfl_down"), mask, v, simt::lane + lanes < kWarp ? simt::lane + lanes : simt::lane);
}
unsigned ballot(bool v, unsigned mask = kAllLanes, HL_AT);

HL_DEVICE int count_bits(unsigned v) { return __builtin_popcount(v); }
HL_DEVICE int lowest_bit(unsigned v) { return __builtin_ffs(static_cast<int>(v)) - 1; }
HL_DEVICE int atomic_add(int* p, int v) { return simt::atomic_add(p, v); }
HL_DEVICE void fence() { simt::fence(); }

HL_DEVICE Float4 load4(const float* p, HL_AT) {
  simt::check_aligned(HL_SITE("load4"), p, 16);
  return {p[0], p[1], p[2], p[3]};
}
HL_DEVICE void store4(float* p, Float4 v, HL_AT) {
  simt::check_aligned(HL_SITE("store4"), p, 16);
  p[0] = v.x, p[1] = v.y, p[2] = v.z, p[3] = v.w;
}
HL_DEVICE void store_words(void* p, const std::uint32_t (&v)[4], HL_AT) {
  simt::check_aligned(HL_SITE("store_words"), p, 16);
  for (int i = 0; i < 4; ++i) static_cast<std::uint32_t*>(p)[i] = v[i];
}
HL_DEVICE Float2 load2(const float* p, HL_AT) {
  simt::check_aligned(HL_SITE("load2"), p, 8);
  return {p[0], p[1]};
}
HL_DEVICE void store2(float* p, Float2 v, HL_AT) {
  simt::check_aligned(HL_SITE("store2"), p, 8);
  p[0] = v.x, p[1] = v.y;
}
HL_DEVICE float load_stream(const float* p) { return *p; }
HL_DEVICE Float4 load_stream(const Float4* p, HL_AT) { return load4(&p->x, file, line); }
HL_DEVICE void store_stream(float* p, float v) { *p = v; }
HL_DEVICE void store_stream(Float4* p, Float4 v, HL_AT) { store4(&p->x, v, file, line); }

template <int bytes>
HL_DEVICE void copy_async(void* shared, const void* global, bool ok = true, HL_AT) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  simt::copy_async(HL_SITE("copy_async"), shared, global, bytes, ok);
}
HL_DEVICE void cp_commit() { simt::commit_copies(); }
template <int groups>
HL_DEVICE void cp_wait() {
  simt::wait_copies(groups);
}

void ldmatrix_x4(std::uint32_t (&r)[4], const void* p, HL_AT);
void ldmatrix_x2(std::uint32_t (&r)[2], const void* p, HL_AT);
void ldmatrix_x4_trans(std::uint32_t (&r)[4], const void* p, HL_AT);
void ldmatrix_x2_trans(std::uint32_t (&r)[2], const void* p, HL_AT);
void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], HL_AT);
void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2], HL_AT);
std::uint32_t to_tf32(float x);
std::uint32_t pack_bf16(float lo, float hi);

}  // namespace hotloop::cuda

#undef HL_AT
#undef HL_SITE
