// SPDX-License-Identifier: Apache-2.0
// The counterpart of passes.cc on a device: a network inside somebody else's automatic differentiation, whose
// tensors lie there. The owner keeps parameters, state and gradients in flat memory of his own; they are
// copied to and from the program's on the device, which takes less time than a launch and asks nothing of
// his memory. Work comes after what is in his stream; the host waits for the end of each pass.
#include "bindings/register.h"
#include "core/error.h"
#include "runtime/device_program.h"

namespace hotloop {
namespace {

using Address = std::uintptr_t;

void* pointer(Address address) { return reinterpret_cast<void*>(address); }

class DevicePasses;

// One forward pass that waits for its gradients.
class OpenPass {
 public:
  OpenPass(std::shared_ptr<DevicePasses> owner, std::unique_ptr<DeviceProgram> program, int64 rows,
           std::uint64_t seed)
      : owner_(std::move(owner)), program_(std::move(program)), rows_(rows), seed_(seed) {}
  ~OpenPass() { close(); }
  OpenPass(const OpenPass&) = delete;
  OpenPass& operator=(const OpenPass&) = delete;

  bool is_open() const { return program_ != nullptr; }
  void close();
  void backward(Address stream, Address parameters, Address doutput, const std::vector<Address>& dinputs,
                Address gradients);

 private:
  std::shared_ptr<DevicePasses> owner_;
  std::unique_ptr<DeviceProgram> program_;
  int64 rows_;
  std::uint64_t seed_;
};

class DevicePasses : public std::enable_shared_from_this<DevicePasses> {
 public:
  DevicePasses(py::object program, std::vector<int> inputs, std::vector<double> params, int64 middle,
               int output, int doutput, std::vector<int> dinputs)
      : program_object_(std::move(program)),
        first_(&program_object_.cast<const DeviceProgram&>()),
        inputs_(std::move(inputs)),
        params_(std::move(params)),
        middle_(middle),
        output_(output),
        doutput_(doutput),
        dinputs_(std::move(dinputs)) {
    const Plan& plan = first_->plan();
    check(static_cast<int>(params_.size()) == plan.params_width(), "[passes] ", params_.size(),
          " step parameters, not ", plan.params_width());
    check(0 <= middle_ && middle_ <= n_steps(), "[passes] the forward section ends outside the plan");
    const auto known = [&](int b) { return b >= 0 && b < static_cast<int>(plan.buffers.size()); };
    bool good = known(output_) && (doutput_ < 0 || known(doutput_));
    for (const int b : inputs_) good = good && known(b);
    for (const int b : dinputs_) good = good && known(b);
    check(good, "[passes] there is no such buffer");
  }

  // Forward from these addresses to those; state that it changes goes back unless it is the repetition of a
  // pass. Null if nothing is to be kept.
  std::unique_ptr<OpenPass> start(Address stream, int64 rows, const std::vector<Address>& inputs,
                                  Address parameters, Address state, Address output, std::uint64_t seed,
                                  bool keep, bool again) {
    check(inputs.size() == inputs_.size(), "[passes] ", inputs.size(), " inputs of ", inputs_.size());
    check(0 <= rows && rows <= first_->plan().max_rows, "[passes] ", rows, " rows");
    std::unique_ptr<DeviceProgram> program = take();
    {
      const py::gil_scoped_release release;  // native memory, and tensors that the caller holds
      begin(*program, stream, parameters, state);
      for (std::size_t i = 0; i < inputs.size(); ++i)
        copy(*program, program->address(inputs_[i]), pointer(inputs[i]), bytes(inputs_[i], rows));
      run(*program, rows, 0, middle_, seed);
      copy(*program, pointer(output), program->address(output_), bytes(output_, rows));
      const Memory& memory = program->memory();
      if (state != 0 && !again)
        copy(*program, pointer(state), memory.mirror()->address(Space::kState),
             static_cast<std::size_t>(memory.sizes().state) * sizeof(float));
      program->queue().wait();
    }
    if (keep) return std::make_unique<OpenPass>(shared_from_this(), std::move(program), rows, seed);
    give_back(std::move(program));
    return nullptr;
  }

  // Writes the gradients by inputs to their addresses, and all of the flat buffer.
  void backward(DeviceProgram& program, int64 rows, std::uint64_t seed, Address stream, Address parameters,
                Address doutput, const std::vector<Address>& dinputs, Address gradients) {
    check(doutput_ >= 0 && dinputs.size() == dinputs_.size(), "[passes] no such backward pass");
    const py::gil_scoped_release release;  // native memory, and tensors that the caller holds
    begin(program, stream, parameters, 0);
    copy(program, program.address(doutput_), pointer(doutput), bytes(doutput_, rows));
    run(program, rows, middle_, n_steps(), seed);
    for (std::size_t i = 0; i < dinputs_.size(); ++i)
      copy(program, pointer(dinputs[i]), program.address(dinputs_[i]), bytes(dinputs_[i], rows));
    const Memory& memory = program.memory();
    copy(program, pointer(gradients), memory.mirror()->address(Space::kGradient),
         static_cast<std::size_t>(memory.sizes().parameters) * sizeof(float));
    program.queue().wait();
  }

  std::unique_ptr<DeviceProgram> take() {
    if (free_.empty()) return first_->twin();
    std::unique_ptr<DeviceProgram> program = std::move(free_.back());
    free_.pop_back();
    return program;
  }
  void give_back(std::unique_ptr<DeviceProgram> program) {
    if ((free_.size() + 1) * program->n_bytes() <= kKeptBytes || free_.empty())
      free_.push_back(std::move(program));
  }

 private:
  // Arenas that wait for the next pass; one is always kept.
  static constexpr std::size_t kKeptBytes = std::size_t{256} << 20;

  int64 n_steps() const { return static_cast<int64>(first_->plan().steps.size()); }
  // Real numbers and indices are four bytes each.
  std::size_t bytes(int buffer, int64 rows) const {
    static_assert(sizeof(float) == sizeof(index));
    const Buffer& b = first_->plan().buffers[static_cast<std::size_t>(buffer)];
    return static_cast<std::size_t>(b.size.at(rows)) * sizeof(float);
  }

  static void copy(const DeviceProgram& program, void* to, const void* from, std::size_t n_bytes) {
    if (n_bytes > 0) program.queue().copy(to, from, n_bytes, CopyKind::kOnDevice);
  }

  // Our queue goes on after the owner's stream, with his parameters and state.
  static void begin(const DeviceProgram& program, Address stream, Address parameters, Address state) {
    const Device& device = *program.device();
    device.use();
    const DeviceApi& api = device.api();
    DeviceEvent event = nullptr;
    device.require(api.event_create(&event), "make an event");
    int status = api.event_record(event, pointer(stream));
    if (status == kDeviceOk) status = api.stream_wait_event(program.queue().stream(), event);
    (void)api.event_release(event);
    device.require(status, "wait for a stream");
    DeviceMirror& mirror = *program.memory().mirror();
    program.memory().parameters_changed();
    if (parameters != 0) mirror.adopt(Space::kParameter, pointer(parameters), program.queue());
    if (state != 0) mirror.adopt(Space::kState, pointer(state), program.queue());
  }
  void run(DeviceProgram& program, int64 rows, int64 begin, int64 end, std::uint64_t seed) const {
    DeviceStep like;
    like.seed = seed;
    like.first = like.last = true;
    program.run(rows, begin, end, like, params_.data(), 1);
  }

  py::object program_object_;
  const DeviceProgram* first_;  // never run: its plan and memory are what others are made from
  std::vector<int> inputs_;
  std::vector<double> params_;
  int64 middle_;  // the step that backward begins with
  int output_, doutput_;
  std::vector<int> dinputs_;
  std::vector<std::unique_ptr<DeviceProgram>> free_;  // touched with the GIL held only
};

void OpenPass::close() {
  if (program_ != nullptr) owner_->give_back(std::move(program_));
}

void OpenPass::backward(Address stream, Address parameters, Address doutput,
                        const std::vector<Address>& dinputs, Address gradients) {
  check(is_open(), "[passes] this pass was gone back from");
  owner_->backward(*program_, rows_, seed_, stream, parameters, doutput, dinputs, gradients);
  close();
}

}  // namespace

void register_gpu_passes(py::module_& m) {
  py::class_<OpenPass>(m, "DevicePass", "A forward pass on a device that waits for its gradients.")
      .def_property_readonly("is_open", &OpenPass::is_open, "Whether its gradients were not taken yet.")
      .def("backward", &OpenPass::backward, py::arg("stream"), py::arg("parameters"), py::arg("doutput"),
           py::arg("dinputs"), py::arg("gradients"),
           "From the gradient by the output at an address: writes those by inputs to theirs, and the flat "
           "buffer of those by parameters. Serves once.");
  py::class_<DevicePasses, std::shared_ptr<DevicePasses>>(
      m, "DevicePasses", "Forward passes on a device that may wait for their gradients.")
      .def(py::init<py::object, std::vector<int>, std::vector<double>, int64, int, int, std::vector<int>>(),
           py::arg("program"), py::kw_only(), py::arg("inputs"), py::arg("params"), py::arg("middle"),
           py::arg("output"), py::arg("doutput"), py::arg("dinputs"))
      .def("start", &DevicePasses::start, py::arg("stream"), py::arg("rows"), py::arg("inputs"),
           py::arg("parameters"), py::arg("state"), py::arg("output"), py::arg("seed"), py::arg("keep"),
           py::arg("again") = false,
           "Forward from and to addresses on the device, after what is in a stream; the host waits for it. A "
           "pass to go back from, if it is to be kept.");
}

}  // namespace hotloop
