// SPDX-License-Identifier: Apache-2.0
// Kernels of the list on arrays that lie on a device, for hotloop.ops: a stream of our own, and its order
// beside the streams of others. Addresses and streams are numbers here; Python has checked shapes, dtypes and
// bounds.
#include <array>
#include <cstring>
#include <mutex>

#include "bindings/gpu_memory.h"
#include "bindings/register.h"

namespace hotloop {
namespace {

using DevicePtr = std::shared_ptr<Device>;

void* pointer(std::uintptr_t address) { return reinterpret_cast<void*>(address); }
std::uintptr_t number(const void* p) { return reinterpret_cast<std::uintptr_t>(p); }

// An event for the length of a call.
class Event {
 public:
  explicit Event(const Device& device) : device_(device) {
    device_.require(device_.api().event_create(&event_), "make an event");
  }
  ~Event() { (void)device_.api().event_release(event_); }
  Event(const Event&) = delete;
  Event& operator=(const Event&) = delete;
  DeviceEvent get() const { return event_; }

 private:
  const Device& device_;
  DeviceEvent event_ = nullptr;
};

// One device and a stream on it. Several Python threads may call: what they launch is one behind the other.
class DeviceEager {
 public:
  explicit DeviceEager(DevicePtr device)
      : device_(std::move(device)), queue_(device_), pool_(std::make_shared<ArrayPool>(device_)) {}

  std::uintptr_t stream() const { return number(queue_.stream()); }
  int device_number() const { return device_->traits().number; }

  std::shared_ptr<ArrayMemory> allocate(std::size_t bytes) const {
    return std::make_shared<ArrayMemory>(pool_, bytes);
  }

  // What we launch from now on comes after what is in that stream.
  void after(std::uintptr_t stream) const {
    device_->use();
    const Event event(*device_);
    require(api().event_record(event.get(), foreign(stream)), "look at a stream");
    require(api().stream_wait_event(queue_.stream(), event.get()), "wait for a stream");
  }
  // What is put into that stream from now on comes after what we have launched.
  void before(std::uintptr_t stream) const {
    device_->use();
    const Event event(*device_);
    require(api().event_record(event.get(), queue_.stream()), "look at a stream");
    require(api().stream_wait_event(foreign(stream), event.get()), "make a stream wait");
  }
  void wait() const {
    const py::gil_scoped_release release;
    device_->use();
    queue_.wait();
  }

  void upload(std::uintptr_t to, const py::array& from) const {
    device_->use();
    queue_.copy(pointer(to), from.data(), static_cast<std::size_t>(from.nbytes()), CopyKind::kToDevice);
  }
  void download(py::array to, std::uintptr_t from) const {
    device_->use();
    queue_.copy(to.mutable_data(), pointer(from), static_cast<std::size_t>(to.nbytes()), CopyKind::kToHost);
    wait();
  }

  // `fields` in the order of the schema: operands are addresses or None.
  void launch(const std::string& name, const py::tuple& fields, std::uint64_t seed, std::uint64_t step,
              const std::vector<double>& dropout) {
    const int kernel = kernel_number(name);
    const Arguments bound = bind(kernel, fields);
    const std::byte* const args = bound.bytes;
    const std::lock_guard lock(guard_);
    device_->use();
    const DeviceKernel& entry = api().kernels[kernel];
    reserve(entry.workspace(args, device_->traits(), Precision::kFloat32));
    DeviceStep ctx;
    ctx.seed = seed;
    ctx.step = step;
    const DeviceStep* at = dropout.empty() ? nullptr : write_step(ctx, dropout);
    entry.launch(args, {queue_.stream(), at, workspace_->data(), &device_->traits(), Precision::kFloat32});
    device_->require_launches(name.c_str());
  }

  // The product of fields as of matmul for each matrix of a batch: (outer, inner), then of a, b and out the
  // elements to the next outer and inner one.
  void multiply(const py::tuple& fields, const std::array<int64, 8>& batch, const std::string& precision) {
    const Precision wanted = precision_of(precision);
    const Arguments bound = bind(kernel_number("matmul"), fields);
    const MatmulBatch all{
        batch[0], batch[1], {batch[2], batch[3]}, {batch[4], batch[5]}, {batch[6], batch[7]}};
    const std::lock_guard lock(guard_);
    device_->use();
    reserve(api().matmul_batch_workspace(bound.bytes, all, device_->traits(), wanted));
    api().matmul_batch(bound.bytes, all,
                       {queue_.stream(), nullptr, workspace_->data(), &device_->traits(), wanted});
    device_->require_launches("matmul");
  }

  // One update of an optimiser for each row of fields, of which scalars are NumPy's.
  void update_list(const std::string& name, const py::list& rows) {
    const int kernel = kernel_number(name);
    std::vector<Arguments> bound;
    bound.reserve(rows.size());
    std::vector<const void*> args;
    for (const py::handle row : rows)
      args.push_back(bound.emplace_back(bind(kernel, row.cast<py::tuple>())).bytes);
    const std::lock_guard lock(guard_);
    device_->use();
    const Launch how = {queue_.stream(), nullptr, nullptr, &device_->traits(), Precision::kFloat32};
    if (!api().update_list(kernel, args.data(), args.size(), how))
      throw py::key_error("[eager] no list of " + name);
    device_->require_launches(name.c_str());
  }

  // out (n) of int32 = x (n), of a type of FeedType, which is known to fit.
  void to_index(std::uintptr_t x, int type, int64 n, std::uintptr_t out) {
    const std::lock_guard lock(guard_);
    device_->use();
    DeviceStep ctx;
    ctx.place = 0;
    ctx.batch_size = ctx.rows = 1;
    ctx.feeds.n = 1;
    ctx.feeds.at[0] = {pointer(x), pointer(out), n, static_cast<FeedType>(type), 1};
    api().gather(write_step(ctx, {}), 1, n, queue_.stream());
    device_->require_launches("convert indices");
  }

  // The first i with x[i] outside of [low, high], or -1; waits.
  int64 first_outside(std::uintptr_t x, int type, int64 n, double low, double high) {
    const std::shared_ptr<ArrayMemory> at = allocate(sizeof(std::int64_t));
    std::int64_t first = n;
    {
      const py::gil_scoped_release release;
      const std::lock_guard lock(guard_);
      device_->use();
      queue_.copy(at->data(), &first, sizeof first, CopyKind::kToDevice);
      api().find_outside(pointer(x), type, n, low, high, static_cast<std::int64_t*>(at->data()),
                         queue_.stream());
      queue_.copy(&first, at->data(), sizeof first, CopyKind::kToHost);
      queue_.wait();
    }
    return first == n ? -1 : first;
  }

 private:
  const DeviceApi& api() const { return device_->api(); }
  void require(int status, const char* doing) const { device_->require(status, doing); }

  struct Arguments {
    alignas(8) std::byte bytes[kMaxArgsBytes] = {};
  };

  static int kernel_number(const std::string& name) {
    const int kernel = find_kernel(name);
    if (kernel < 0) throw py::key_error("[eager] no kernel " + name);
    return kernel;
  }

  // Operands are addresses, arrays of the host, or None.
  static Arguments bind(int kernel, const py::tuple& fields) {
    const KernelInfo& info = kernel_info(static_cast<Kernel>(kernel));
    if (fields.size() != info.fields.size())
      throw py::value_error("[eager] wrong number of fields for " + std::string(info.name));
    Arguments args;
    for (std::size_t i = 0; i < info.fields.size(); ++i) {
      const Field& f = info.fields[i];
      const auto put = [&](auto v) { std::memcpy(args.bytes + f.offset, &v, sizeof v); };
      const py::handle value = fields[i];
      if (f.kind == FieldKind::Real) {
        put(value.cast<double>());
      } else if (f.kind == FieldKind::Dim || f.kind == FieldKind::Int) {
        put(value.cast<int64>());
      } else if (py::isinstance<py::array>(value)) {
        put(static_cast<const void*>(value.cast<py::array>().data()));
      } else {
        put(value.is_none() ? nullptr : pointer(value.cast<std::uintptr_t>()));
      }
    }
    return args;
  }

  // A stream as the array interface writes it: 0 and 1 are the default stream, 2 that of the thread, which
  // the emulator has not.
  DeviceStream foreign(std::uintptr_t stream) const {
    if (stream == 2 && std::strcmp(api().backend, "cuda") != 0) return nullptr;
    return stream <= 1 ? nullptr : pointer(stream);
  }

  // Counters and parts of one launch; those of the next come behind it in the stream.
  void reserve(std::size_t bytes) {
    const std::size_t wanted = kWorkspaceCounters + bytes;
    if (workspace_ != nullptr && workspace_->bytes() >= wanted) return;
    auto larger = allocate(wanted);
    queue_.fill(larger->data(), 0, larger->bytes());
    workspace_ = std::move(larger);
  }

  const DeviceStep* write_step(DeviceStep ctx, const std::vector<double>& dropout) {
    constexpr std::size_t kNumbers = 8;
    if (dropout.size() > kNumbers) throw py::value_error("[eager] too many drop probabilities");
    if (step_ == nullptr) step_ = allocate(sizeof ctx + kNumbers * sizeof(double));
    auto* at = static_cast<std::byte*>(step_->data());
    ctx.dropout = reinterpret_cast<const double*>(at + sizeof ctx);
    queue_.copy(at, &ctx, sizeof ctx, CopyKind::kToDevice);
    queue_.copy(at + sizeof ctx, dropout.data(), dropout.size() * sizeof(double), CopyKind::kToDevice);
    return reinterpret_cast<const DeviceStep*>(at);
  }

  DevicePtr device_;
  DeviceQueue queue_;
  std::shared_ptr<ArrayPool> pool_;
  std::mutex guard_;
  std::shared_ptr<ArrayMemory> workspace_, step_;
};

}  // namespace

void register_gpu_arrays(py::module_& m) {
  py::class_<DeviceEager>(m, "DeviceEager", "Kernels on arrays of a device, in a stream of its own.")
      .def(py::init<DevicePtr>(), py::arg("device"))
      .def_property_readonly("stream", &DeviceEager::stream)
      .def_property_readonly("number", &DeviceEager::device_number)
      .def("allocate", &DeviceEager::allocate, py::arg("bytes"))
      .def("after", &DeviceEager::after, py::arg("stream"))
      .def("before", &DeviceEager::before, py::arg("stream"))
      .def("wait", &DeviceEager::wait)
      .def("upload", &DeviceEager::upload, py::arg("to"), py::arg("array"))
      .def("download", &DeviceEager::download, py::arg("array"), py::arg("at"))
      .def("launch", &DeviceEager::launch, py::arg("name"), py::arg("fields"), py::arg("seed") = 0,
           py::arg("step") = 0, py::arg("dropout") = std::vector<double>())
      .def("multiply", &DeviceEager::multiply, py::arg("fields"), py::arg("batch"),
           py::arg("precision") = "float32",
           "matmul for each matrix of a batch: (outer, inner), then of a, b and out the elements to the next "
           "outer and inner one.")
      .def("update_list", &DeviceEager::update_list, py::arg("name"), py::arg("rows"),
           "One update of an optimiser for each row of fields, of which scalars are NumPy's.")
      .def("to_index", &DeviceEager::to_index, py::arg("x"), py::arg("type"), py::arg("n"), py::arg("out"))
      .def("first_outside", &DeviceEager::first_outside, py::arg("x"), py::arg("type"), py::arg("n"),
           py::arg("low"), py::arg("high"));
}

}  // namespace hotloop
