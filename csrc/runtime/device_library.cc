// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_library.h"

#include <dlfcn.h>

#include <cstring>

#include "kernels/table.h"

namespace hotloop {

DeviceLibrary::DeviceLibrary(const std::string& path) {
  // Whole or not at all: what is missing is told here. Nobody else sees its symbols.
  void* handle = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (handle == nullptr) throw DeviceFault(kNoDevice, "cannot open " + path + ": " + dlerror());
  const auto entry = reinterpret_cast<DeviceApiFunction>(dlsym(handle, kDeviceApiSymbol));
  api_ = entry == nullptr ? nullptr : entry(kDeviceApiVersion);
  if (api_ == nullptr || api_->n_kernels != static_cast<std::uint32_t>(kNumKernels)) {
    api_ = nullptr;
    throw DeviceFault(kNoDevice, path + " belongs to another version of hotloop; install both anew");
  }
}

void DeviceLibrary::require(int status, const char* doing) const {
  if (status == kDeviceOk) return;
  std::string what = std::string("[device] could not ") + doing + ": " + api_->last_error();
  if (status == kDeviceMemory)
    what += "; take a smaller batch, or end what else uses that memory";
  else if (status == kDeviceFault)
    what +=
        "; what is in the device's memory is lost: make the trainer or step anew from a model file or "
        "checkpoint, in a new process if the device does not answer any more";
  throw DeviceFault(static_cast<DeviceStatus>(status), what);
}

Device::Device(std::shared_ptr<const DeviceLibrary> library, int number) : library_(std::move(library)) {
  require(api().open(number, &traits_), "open the device");
}

DeviceBlock::DeviceBlock(std::shared_ptr<const Device> device, std::size_t bytes)
    : device_(std::move(device)), bytes_(bytes) {
  if (bytes_ == 0) return;
  device_->use();
  void* address = nullptr;
  const std::string doing = "get " + std::to_string(bytes_) + " bytes of device memory";
  device_->require(device_->api().allocate(bytes_, &address), doing.c_str());
  data_ = static_cast<std::byte*>(address);
  // On the default stream, and waited for: nobody else knows the address yet.
  int status = device_->api().fill(data_, 0, bytes_, nullptr);
  if (status == kDeviceOk) status = device_->api().stream_wait(nullptr);
  if (status == kDeviceOk) return;
  (void)device_->api().release(data_);
  device_->require(status, "clear device memory");
}

DeviceBlock::~DeviceBlock() {
  if (data_ != nullptr) (void)device_->api().release(data_);
}

PinnedBlock::PinnedBlock(std::shared_ptr<const Device> device, std::size_t bytes)
    : device_(std::move(device)), bytes_(bytes) {
  if (bytes_ == 0) return;
  device_->use();
  void* address = nullptr;
  const std::string doing = "get " + std::to_string(bytes_) + " bytes of pinned memory";
  device_->require(device_->api().allocate_pinned(bytes_, &address), doing.c_str());
  data_ = static_cast<std::byte*>(address);
  std::memset(data_, 0, bytes_);
}

PinnedBlock::~PinnedBlock() {
  if (data_ != nullptr) (void)device_->api().release_pinned(data_);
}

DeviceQueue::DeviceQueue(std::shared_ptr<const Device> device) : device_(std::move(device)) {
  device_->use();
  device_->require(device_->api().stream_create(&stream_), "make a stream");
}

DeviceQueue::~DeviceQueue() { (void)device_->api().stream_release(stream_); }

void DeviceQueue::copy(void* to, const void* from, std::size_t bytes, CopyKind kind) const {
  if (bytes > 0) device_->require(device_->api().copy(to, from, bytes, kind, stream_), "copy");
}

void DeviceQueue::fill(void* at, int byte, std::size_t bytes) const {
  if (bytes > 0) device_->require(device_->api().fill(at, byte, bytes, stream_), "fill");
}

void DeviceQueue::wait() const {
  device_->require_launches("launch");
  device_->require(device_->api().stream_wait(stream_), "run");
}

DeviceMark::DeviceMark(std::shared_ptr<const Device> device) : device_(std::move(device)) {
  device_->use();
  device_->require(device_->api().event_create(&event_), "make an event");
}

DeviceMark::~DeviceMark() { (void)device_->api().event_release(event_); }

void DeviceMark::set(const DeviceQueue& queue) {
  device_->require(device_->api().event_record(event_, queue.stream()), "mark a place in a stream");
  set_ = true;
}

void DeviceMark::wait() const {
  if (set_) device_->require(device_->api().event_wait(event_), "run");
}

void DeviceMark::hold_back(const DeviceQueue& queue) const {
  if (set_) device_->require(device_->api().stream_wait_event(queue.stream(), event_), "order two streams");
}

double DeviceMark::seconds_until(const DeviceMark& end) const {
  double seconds = 0.0;
  device_->require(device_->api().event_seconds(event_, end.event_, &seconds), "time a launch");
  return seconds;
}

}  // namespace hotloop
