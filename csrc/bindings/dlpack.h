// SPDX-License-Identifier: Apache-2.0
// What of DLPack 1.x (github.com/dmlc/dlpack, dlpack.h) a borrower of tensors needs: the layout of its
// structs, so that a tensor's pointer, shape and strides are read by one C call instead of several in Python.
#pragma once

#include <cstdint>

namespace hotloop::dlpack {

constexpr std::int32_t kCpu = 1;
constexpr std::uint8_t kInt = 0, kFloat = 2;
constexpr std::uint32_t kMajorVersion = 1;

struct Device {
  std::int32_t type, number;
};

struct DataType {
  std::uint8_t code, bits;
  std::uint16_t lanes;
};

// Lent by its owner until control goes back to it. Strides count elements.
struct Tensor {
  void* data;
  Device device;
  std::int32_t ndim;
  DataType dtype;
  std::int64_t* shape;
  std::int64_t* strides;
  std::uint64_t byte_offset;
};

// The table behind `type(tensor).__dlpack_c_exchange_api__`. Of its functions only the lending one is called.
struct ExchangeApi {
  struct {
    std::uint32_t major, minor;
    void* previous;
  } header;
  void (*allocate)();
  void (*to_managed)();
  void (*from_managed)();
  int (*lend)(void* object, Tensor* out);  // 0, or -1 with a Python error set; may be null
  void (*work_stream)();
};

}  // namespace hotloop::dlpack
