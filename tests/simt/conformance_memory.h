// SPDX-License-Identifier: Apache-2.0
// Words of device memory for conformance.cu, on a device and on the emulator: no more than it needs, so that
// it is one file to compile on a machine that has a GPU and little else.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>

#ifdef __CUDACC__
#include <cuda_runtime.h>
#else
#include "simt/device_memory.h"
#include "simt/emulator.h"
#endif

namespace hotloop::cuda {

#ifdef __CUDACC__
class DeviceWords {
 public:
  explicit DeviceWords(std::size_t n) : bytes_(n * sizeof(std::uint32_t)) {
    cudaMalloc(reinterpret_cast<void**>(&p_), bytes_);
  }
  ~DeviceWords() { cudaFree(p_); }
  DeviceWords(const DeviceWords&) = delete;
  DeviceWords& operator=(const DeviceWords&) = delete;
  std::uint32_t* data() { return p_; }
  void put(const std::uint32_t* from) { cudaMemcpy(p_, from, bytes_, cudaMemcpyHostToDevice); }
  void get(std::uint32_t* to) { cudaMemcpy(to, p_, bytes_, cudaMemcpyDeviceToHost); }

 private:
  std::size_t bytes_;
  std::uint32_t* p_ = nullptr;
};

// The first error since the last question, of whichever call.
inline const char* what_went_wrong() {
  const cudaError_t status = cudaGetLastError();
  return status == cudaSuccess ? nullptr : cudaGetErrorString(status);
}
#else
class DeviceWords {
 public:
  explicit DeviceWords(std::size_t n)
      : bytes_(n * sizeof(std::uint32_t)), p_(static_cast<std::uint32_t*>(simt::allocate(bytes_))) {}
  ~DeviceWords() { simt::release(p_); }
  DeviceWords(const DeviceWords&) = delete;
  DeviceWords& operator=(const DeviceWords&) = delete;
  std::uint32_t* data() { return p_; }
  void put(const std::uint32_t* from) { std::memcpy(p_, from, bytes_); }
  void get(std::uint32_t* to) { std::memcpy(to, p_, bytes_); }

 private:
  std::size_t bytes_;
  std::uint32_t* p_;
};

inline const char* what_went_wrong() {
  static thread_local std::string text;
  text = simt::take_fault();
  return text.empty() ? nullptr : text.c_str();
}
#endif

}  // namespace hotloop::cuda
