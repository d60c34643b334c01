// SPDX-License-Identifier: Apache-2.0
// The device half of portable.h: every intrinsic and every line of PTX there is.
#pragma once

#include <cuda_runtime.h>

#include <cstddef>
#include <cstdint>

#define HL_KERNEL __global__ void
#define HL_DEVICE __device__ __forceinline__
#define HL_BOUNDS(threads, blocks) \
  __launch_bounds__(threads, ::hotloop::cuda::blocks_at_once(threads, blocks))
#define HL_SHARED(T, name, dims) __shared__ __align__(128) T name dims
#define HL_DYNAMIC_SHARED(T, name)                                    \
  extern __shared__ __align__(128) unsigned char hl_dynamic_shared[]; \
  T* const name = reinterpret_cast<T*>(hl_dynamic_shared)
#define HL_UNROLL _Pragma("unroll")
#define HL_NO_UNROLL _Pragma("unroll 1")

namespace hotloop::cuda {

using Dim3 = dim3;
using Stream = cudaStream_t;
using Float4 = float4;
using Float2 = float2;

// The blocks that a kernel was written for, less where the compiler's target runs fewer threads at once. For
// sm_120 the compiler wants some registers more than for others: what fits into 128 of them there spills.
constexpr int blocks_at_once(int threads, int blocks) {
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ / 100 == 12
  if (blocks > 1 && threads * blocks >= 512) --blocks;
#endif
#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ == 800 || __CUDA_ARCH__ / 100 == 9 || __CUDA_ARCH__ / 100 == 10
  constexpr int kMost = 2048;
#elif __CUDA_ARCH__ < 800
  constexpr int kMost = 1024;
#else
  constexpr int kMost = 1536;
#endif
  return threads * blocks <= kMost ? blocks : kMost / threads;
}

constexpr int kWarp = 32;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;
// Shared memory that a kernel may ask for without an opt-in.
constexpr std::size_t kPlainShared = 48 * 1024;

// What went wrong is left in the runtime for the table's caller to fetch.
template <class... Params, class... Args>
void launch(Stream stream, void (*kernel)(Params...), Dim3 grid, Dim3 block, std::size_t shared_bytes,
            const Args&... args) {
  if (shared_bytes > kPlainShared &&
      cudaFuncSetAttribute(reinterpret_cast<const void*>(kernel), cudaFuncAttributeMaxDynamicSharedMemorySize,
                           static_cast<int>(shared_bytes)) != cudaSuccess)
    return;
  kernel<<<grid, block, shared_bytes, stream>>>(static_cast<Params>(args)...);
}

HL_DEVICE int lane_id() { return static_cast<int>(threadIdx.x % kWarp); }
HL_DEVICE int warp_id() { return static_cast<int>(threadIdx.x / kWarp); }

HL_DEVICE void sync() { __syncthreads(); }
HL_DEVICE bool sync_or(bool any) { return __syncthreads_or(any) != 0; }
HL_DEVICE void sync_warp(unsigned mask = kAllLanes) { __syncwarp(mask); }
template <class T>
HL_DEVICE T shfl(T v, int lane, unsigned mask = kAllLanes) {
  return __shfl_sync(mask, v, lane);
}
template <class T>
HL_DEVICE T shfl_xor(T v, int lanes, unsigned mask = kAllLanes) {
  return __shfl_xor_sync(mask, v, lanes);
}
template <class T>
HL_DEVICE T shfl_down(T v, int lanes, unsigned mask = kAllLanes) {
  return __shfl_down_sync(mask, v, static_cast<unsigned>(lanes));
}
HL_DEVICE unsigned ballot(bool v, unsigned mask = kAllLanes) { return __ballot_sync(mask, v); }
HL_DEVICE int count_bits(unsigned v) { return __popc(v); }
HL_DEVICE int lowest_bit(unsigned v) { return __ffs(static_cast<int>(v)) - 1; }
HL_DEVICE int atomic_add(int* p, int v) { return atomicAdd(p, v); }
HL_DEVICE void fence() { __threadfence(); }

HL_DEVICE Float4 load4(const float* p) { return *reinterpret_cast<const float4*>(p); }
HL_DEVICE void store4(float* p, Float4 v) { *reinterpret_cast<float4*>(p) = v; }
HL_DEVICE void store_words(void* p, const std::uint32_t (&w)[4]) {
  asm volatile("st.global.v4.b32 [%0], {%1,%2,%3,%4};" ::"l"(__cvta_generic_to_global(p)), "r"(w[0]),
               "r"(w[1]), "r"(w[2]), "r"(w[3])
               : "memory");
}
HL_DEVICE Float2 load2(const float* p) { return *reinterpret_cast<const float2*>(p); }
HL_DEVICE void store2(float* p, Float2 v) { *reinterpret_cast<float2*>(p) = v; }
HL_DEVICE float load_stream(const float* p) { return __ldcs(p); }
HL_DEVICE Float4 load_stream(const Float4* p) { return __ldcs(p); }
HL_DEVICE void store_stream(float* p, float v) { __stcs(p, v); }
HL_DEVICE void store_stream(Float4* p, Float4 v) { __stcs(p, v); }

HL_DEVICE std::uint32_t shared_address(const void* p) {
  return static_cast<std::uint32_t>(__cvta_generic_to_shared(p));
}

#if __CUDA_ARCH__ >= 800 || !defined(__CUDA_ARCH__)
template <int bytes>
HL_DEVICE void copy_async(void* shared, const void* global, bool ok = true) {
  static_assert(bytes == 4 || bytes == 8 || bytes == 16);
  const int size = ok ? bytes : 0;
  if constexpr (bytes == 16)
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(shared_address(shared)), "l"(global),
                 "r"(size)
                 : "memory");
  else
    asm volatile("cp.async.ca.shared.global [%0], [%1], %2, %3;" ::"r"(shared_address(shared)), "l"(global),
                 "n"(bytes), "r"(size)
                 : "memory");
}
HL_DEVICE void cp_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int groups>
HL_DEVICE void cp_wait() {
  asm volatile("cp.async.wait_group %0;" ::"n"(groups) : "memory");
}

#define HL_LDMATRIX(suffix, form)                                                        \
  HL_DEVICE void ldmatrix_x4##suffix(std::uint32_t (&r)[4], const void* p) {             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x4" form ".shared.b16 {%0,%1,%2,%3}, [%4];" \
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3])                        \
                 : "r"(shared_address(p))                                                \
                 : "memory");                                                            \
  }                                                                                      \
  HL_DEVICE void ldmatrix_x2##suffix(std::uint32_t (&r)[2], const void* p) {             \
    asm volatile("ldmatrix.sync.aligned.m8n8.x2" form ".shared.b16 {%0,%1}, [%2];"       \
                 : "=r"(r[0]), "=r"(r[1])                                                \
                 : "r"(shared_address(p))                                                \
                 : "memory");                                                            \
  }
HL_LDMATRIX(, "")
HL_LDMATRIX(_trans, ".trans")
#undef HL_LDMATRIX

HL_DEVICE void mma_bf16(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
HL_DEVICE void mma_tf32(float (&d)[4], const std::uint32_t (&a)[4], const std::uint32_t (&b)[2]) {
  asm volatile(
      "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 {%0,%1,%2,%3},{%4,%5,%6,%7},{%8,%9},{%0,%1,%2,%3};"
      : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
      : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
HL_DEVICE std::uint32_t to_tf32(float x) {
  std::uint32_t bits;
  asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(bits) : "f"(x));
  return bits;
}
HL_DEVICE std::uint32_t pack_bf16(float lo, float hi) {
  std::uint32_t bits;
  asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(bits) : "f"(hi), "f"(lo));
  return bits;
}
#else
// Of sm_75: never launched there, but a kernel's text must compile.
template <int bytes>
HL_DEVICE void copy_async(void*, const void*, bool = true) {
  __trap();
}
HL_DEVICE void cp_commit() { __trap(); }
template <int groups>
HL_DEVICE void cp_wait() {
  __trap();
}
HL_DEVICE void ldmatrix_x4(std::uint32_t (&)[4], const void*) { __trap(); }
HL_DEVICE void ldmatrix_x2(std::uint32_t (&)[2], const void*) { __trap(); }
HL_DEVICE void ldmatrix_x4_trans(std::uint32_t (&)[4], const void*) { __trap(); }
HL_DEVICE void ldmatrix_x2_trans(std::uint32_t (&)[2], const void*) { __trap(); }
HL_DEVICE void mma_bf16(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]) { __trap(); }
HL_DEVICE void mma_tf32(float (&)[4], const std::uint32_t (&)[4], const std::uint32_t (&)[2]) { __trap(); }
HL_DEVICE std::uint32_t to_tf32(float) {
  __trap();
  return 0;
}
HL_DEVICE std::uint32_t pack_bf16(float, float) {
  __trap();
  return 0;
}
#endif

}  // namespace hotloop::cuda
