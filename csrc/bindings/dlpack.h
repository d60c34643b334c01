// SPDX-License-Identifier: Apache-2.0
// What of DLPack 1.x (github.com/dmlc/dlpack, dlpack.h) a borrower and lender of tensors needs: the layout of
// its structs, so that a tensor's pointer, shape and strides are read by one C call instead of several in
// Python, and a tensor over memory of ours is made by one.
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

// A tensor with what keeps it alive: whoever takes it calls `deleter` once, on any thread.
struct Managed {
  std::uint32_t major, minor;
  void* context;
  void (*deleter)(Managed*);
  std::uint64_t flags;
  Tensor tensor;
};

// The table behind `type(tensor).__dlpack_c_exchange_api__`. Two of its functions are called, which wait for
// no stream.
struct ExchangeApi {
  struct {
    std::uint32_t major, minor;
    void* previous;
  } header;
  void (*allocate)();
  void (*give)();
  int (*take)(Managed* tensor, void** object);  // 0 and a new object, or -1 with a Python error set
  int (*lend)(void* object, Tensor* out);       // 0, or -1 with a Python error set; may be null
  void (*work_stream)();
};

}  // namespace hotloop::dlpack
