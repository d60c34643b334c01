// SPDX-License-Identifier: Apache-2.0
// A device library opened at run time, its devices, and what is owned there. Loading one touches no driver;
// opening a device makes a context.
#pragma once

#include <cstddef>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "cuda/api.h"
#include "cuda/device_step.h"

namespace hotloop {

// What a device refused or lost. Python's DeviceError.
class DeviceFault : public std::runtime_error {
 public:
  DeviceFault(DeviceStatus status, const std::string& what) : std::runtime_error(what), status_(status) {}
  DeviceStatus status() const { return status_; }

 private:
  DeviceStatus status_;
};

class DeviceLibrary {
 public:
  // Throws DeviceFault if there is no such library, or one for another version of hotloop.
  explicit DeviceLibrary(const std::string& path);
  DeviceLibrary(const DeviceLibrary&) = delete;
  DeviceLibrary& operator=(const DeviceLibrary&) = delete;

  const DeviceApi& api() const { return *api_; }
  // Throws DeviceFault in the library's words unless the status is kDeviceOk.
  void require(int status, const char* doing) const;

 private:
  const DeviceApi* api_ = nullptr;  // the library stays open: kernels may be running when Python ends
};

// One device of a library.
class Device {
 public:
  Device(std::shared_ptr<const DeviceLibrary> library, int number);

  const DeviceLibrary& library() const { return *library_; }
  const DeviceApi& api() const { return library_->api(); }
  const DeviceTraits& traits() const { return traits_; }
  // Makes the calling thread work on this device.
  void use() const { require(api().use(traits_.number), "choose the device"); }
  void require(int status, const char* doing) const { library_->require(status, doing); }
  void require_launches(const char* doing) const { require(api().launch_status(), doing); }

 private:
  std::shared_ptr<const DeviceLibrary> library_;
  DeviceTraits traits_;
};

// Bytes on a device, zeroed, for as long as this lives.
class DeviceBlock {
 public:
  DeviceBlock(std::shared_ptr<const Device> device, std::size_t bytes);
  ~DeviceBlock();
  DeviceBlock(const DeviceBlock&) = delete;
  DeviceBlock& operator=(const DeviceBlock&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<const Device> device_;
  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

// Bytes on the host, zeroed, that a device copies from and to without the host waiting.
class PinnedBlock {
 public:
  PinnedBlock(std::shared_ptr<const Device> device, std::size_t bytes);
  ~PinnedBlock();
  PinnedBlock(const PinnedBlock&) = delete;
  PinnedBlock& operator=(const PinnedBlock&) = delete;

  std::byte* data() const { return data_; }
  std::size_t bytes() const { return bytes_; }

 private:
  std::shared_ptr<const Device> device_;
  std::byte* data_ = nullptr;
  std::size_t bytes_;
};

// A queue of work.
class DeviceQueue {
 public:
  explicit DeviceQueue(std::shared_ptr<const Device> device);
  ~DeviceQueue();
  DeviceQueue(const DeviceQueue&) = delete;
  DeviceQueue& operator=(const DeviceQueue&) = delete;

  const Device& device() const { return *device_; }
  const std::shared_ptr<const Device>& shared_device() const { return device_; }
  DeviceStream stream() const { return stream_; }
  void copy(void* to, const void* from, std::size_t bytes, CopyKind kind) const;
  void fill(void* at, int byte, std::size_t bytes) const;
  void wait() const;  // throws what kernels did wrong

 private:
  std::shared_ptr<const Device> device_;
  DeviceStream stream_ = nullptr;
};

// A place in a queue.
class DeviceMark {
 public:
  explicit DeviceMark(std::shared_ptr<const Device> device);
  ~DeviceMark();
  DeviceMark(const DeviceMark&) = delete;
  DeviceMark& operator=(const DeviceMark&) = delete;

  void set(const DeviceQueue& queue);              // behind all that is in the queue now
  void wait() const;                               // the host waits; at once if it was never set
  void hold_back(const DeviceQueue& queue) const;  // what comes next in that queue waits
  double seconds_until(const DeviceMark& end) const;

 private:
  std::shared_ptr<const Device> device_;
  DeviceEvent event_ = nullptr;
  bool set_ = false;
};

}  // namespace hotloop
