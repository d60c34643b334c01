// SPDX-License-Identifier: Apache-2.0
// Memory, Program, Source and the epoch: what a Python session drives, with the GIL released.
#include <chrono>
#include <exception>
#include <optional>

#include "bindings/register.h"
#include "core/error.h"
#include "runtime/epoch.h"

namespace hotloop {
namespace {

using DoubleArray = py::array_t<double, py::array::c_style>;

// Keeps the arrays alive next to the pointers into them.
class Source {
 public:
  explicit Source(std::vector<py::array> arrays) : owned_(std::move(arrays)) {
    for (const py::array& array : owned_) arrays_.push_back(describe(array));
  }
  const std::vector<SourceArray>& arrays() const { return arrays_; }
  int64 rows() const { return arrays_.empty() ? 0 : arrays_[0].rows; }

 private:
  static ElementType type_of(const py::array& array) {
    if (py::isinstance<py::array_t<float>>(array)) return ElementType::kFloat32;
    if (py::isinstance<py::array_t<double>>(array)) return ElementType::kFloat64;
    if (py::isinstance<py::array_t<std::uint8_t>>(array)) return ElementType::kUint8;
    if (py::isinstance<py::array_t<std::int32_t>>(array)) return ElementType::kInt32;
    if (py::isinstance<py::array_t<std::int64_t>>(array)) return ElementType::kInt64;
    throw py::type_error("[source] unsupported dtype " + py::str(array.dtype()).cast<std::string>());
  }

  static SourceArray describe(const py::array& array) {
    check(array.ndim() >= 1, "[source] an array has no rows");
    check((array.flags() & py::array::c_style) != 0, "[source] an array is not C-contiguous");
    SourceArray out{static_cast<const std::byte*>(array.data()), type_of(array), array.shape(0), 1};
    for (py::ssize_t axis = 1; axis < array.ndim(); ++axis) out.row_size *= array.shape(axis);
    return out;
  }

  std::vector<py::array> owned_;
  std::vector<SourceArray> arrays_;
};

struct StopFlag {
  std::atomic<bool> value{false};
};

// A one-dimensional view of a space or buffer of `real` elements.
py::array real_view(std::byte* data, int64 size, Real real, py::handle owner) {
  if (real == Real::kFloat32) return view(reinterpret_cast<float*>(data), size, owner);
  return view(reinterpret_cast<double*>(data), size, owner);
}

py::array buffer_view(Program& program, int buffer, int64 rows, py::handle owner) {
  const Plan& plan = program.plan();
  check(buffer >= 0 && buffer < static_cast<int>(plan.buffers.size()), "[program] no buffer ", buffer);
  check(rows >= 0 && rows <= plan.max_rows, "[program] ", rows, " rows of at most ", plan.max_rows);
  const Buffer& b = plan.buffers[static_cast<std::size_t>(buffer)];
  std::byte* data = program.address(buffer);
  const int64 size = b.size.at(rows);
  switch (b.dtype) {
    case DType::kReal:
      return real_view(data, size, plan.real, owner);
    case DType::kIndex:
      return view(reinterpret_cast<index*>(data), size, owner);
    case DType::kDouble:
      return view(reinterpret_cast<double*>(data), size, owner);
    case DType::kInt64:
      return view(reinterpret_cast<int64*>(data), size, owner);
  }
  throw InternalError("[program] unknown element type");
}

void run_steps(Program& program, ThreadTeam& team, int64 rows, int64 begin, int64 end, std::uint64_t seed,
               std::uint32_t run, std::uint64_t step, const DoubleArray& params, bool adaptive) {
  check(params.size() == program.plan().params_width(), "[program] ", params.size(), " step parameters, not ",
        program.plan().params_width());
  StepContext ctx;
  ctx.seed = seed;
  ctx.run = run;
  ctx.step = step;
  program.set_params(ctx, params.data());
  if (end < 0) end = static_cast<int64>(program.plan().steps.size());
  const Memory::Lease lease(program.memory());
  const py::gil_scoped_release release;  // the step touches native memory only
  if (!adaptive || rows != program.plan().max_rows) return program.run(team, rows, begin, end, ctx);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  ThreadTeam alone(1);
  program.run(program.team_choice().team() ? team : alone, rows, begin, end, ctx);
  program.team_choice().took(std::chrono::duration<double>(Clock::now() - start).count());
}

EpochOutput epoch_output(const Program& program, const Source& source, int buffer, const py::array& out) {
  const Plan& plan = program.plan();
  check(buffer >= 0 && buffer < static_cast<int>(plan.buffers.size()), "[epoch] output names buffer ",
        buffer);
  const Buffer& b = plan.buffers[static_cast<std::size_t>(buffer)];
  check(b.size.constant == 0 && b.dtype == DType::kReal, "[epoch] output buffer ", buffer, " is not per row");
  check(static_cast<std::size_t>(out.itemsize()) == real_bytes(plan.real) && out.dtype().kind() == 'f' &&
            out.writeable() && (out.flags() & py::array::c_style) != 0 &&
            out.size() == source.rows() * b.size.per_row,
        "[epoch] an output array does not fit its buffer");
  return {buffer, static_cast<std::byte*>(const_cast<void*>(out.data()))};
}

using Outputs = std::vector<std::pair<int, py::array>>;

std::pair<int64, std::string> epoch(Program& program, const Source& source, ThreadTeam& team,
                                    const std::vector<int>& inputs, int64 batch_size, bool shuffle,
                                    std::uint64_t seed, std::uint32_t run, std::uint32_t epoch_number,
                                    std::uint64_t step, int64 first_batch, int64 batches,
                                    const DoubleArray& params, int64 begin, int64 end, const Outputs& outputs,
                                    const StopFlag* stop, std::optional<double> deadline_s, bool adaptive,
                                    bool check_finite) {
  check(params.ndim() == 2 && params.shape(1) == program.plan().params_width(),
        "[epoch] step parameters must be (steps, ", program.plan().params_width(), ")");
  EpochOptions options;
  options.inputs = inputs;
  for (const auto& [buffer, array] : outputs)
    options.outputs.push_back(epoch_output(program, source, buffer, array));
  options.batch_size = batch_size;
  options.shuffle = shuffle;
  options.seed = seed;
  options.run = run;
  options.epoch = epoch_number;
  options.step = step;
  options.first_batch = first_batch;
  options.batches = batches;
  options.params = params.data();
  options.n_params = params.shape(0);
  options.begin = begin;
  options.end = end < 0 ? static_cast<int64>(program.plan().steps.size()) : end;
  options.deadline_s = deadline_s.value_or(-1.0);
  options.adaptive = adaptive;
  options.check_finite = check_finite;
  options.stop = stop == nullptr ? nullptr : &stop->value;

  // Python's signal handlers run here; what one of them raises ends the epoch after the step in hand.
  std::exception_ptr raised;
  options.poll = [&raised] {
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() != 0) raised = std::make_exception_ptr(py::error_already_set());
    return raised != nullptr;
  };
  EpochResult result;
  {
    const py::gil_scoped_release
        release;  // arrays are held by Source and by the caller; nothing else is touched
    result = run_epoch(program, source.arrays(), team, options);
  }
  if (raised) std::rethrow_exception(raised);
  constexpr const char* kStatus[] = {"done", "stopped", "time", "diverged", "paused"};
  return {result.steps, kStatus[static_cast<int>(result.status)]};
}

void register_memory(py::module_& m) {
  py::class_<Memory, std::shared_ptr<Memory>> memory(m, "Memory", "The flat buffers of one session.");
  memory.def(
      py::init([](int64 parameters, int64 state, int64 counters, int moments, const std::string& dtype) {
        return std::make_shared<Memory>(MemorySizes{parameters, state, counters, moments}, real_of(dtype));
      }),
      py::kw_only(), py::arg("parameters"), py::arg("state"), py::arg("counters"), py::arg("moments"),
      py::arg("dtype"));
  const auto space = [&](const char* name, Space which, int64 MemorySizes::* size, int moment) {
    memory.def_property_readonly(name, [which, size, moment](const py::object& self) {
      const Memory& owner = self.cast<const Memory&>();
      const int64 n = owner.sizes().moments >= moment ? owner.sizes().*size : 0;
      return real_view(owner.space(which), n, owner.real(), self);
    });
  };
  space("parameters", Space::kParameter, &MemorySizes::parameters, 0);
  space("gradients", Space::kGradient, &MemorySizes::parameters, 0);
  space("moment1", Space::kMoment1, &MemorySizes::parameters, 1);
  space("moment2", Space::kMoment2, &MemorySizes::parameters, 2);
  space("state", Space::kState, &MemorySizes::state, 0);
  memory.def_property_readonly("counters", [](const py::object& self) {
    const Memory& owner = self.cast<const Memory&>();
    return view(reinterpret_cast<int64*>(owner.space(Space::kCounter)), owner.sizes().counters, self);
  });
}

}  // namespace

void register_session(py::module_& m) {
  register_memory(m);
  py::class_<Program>(m, "Program", "A plan bound to a session's memory and an arena of its own.")
      .def(py::init<std::shared_ptr<const Plan>, std::shared_ptr<Memory>, const std::string&>(),
           py::arg("plan"), py::arg("memory"), py::arg("isa") = "")
      .def_property_readonly("isa", [](const Program& p) { return std::string(p.isa()); })
      .def(
          "buffer",
          [](const py::object& self, int buffer, int64 rows) {
            return buffer_view(self.cast<Program&>(), buffer, rows, self);
          },
          py::arg("index"), py::arg("rows"), "The elements of a buffer for that many rows, as a flat view.")
      .def_property_readonly("metrics",
                             [](const py::object& self) {
                               Program& p = self.cast<Program&>();
                               return view(p.metrics(), p.plan().metric_doubles, self);
                             })
      .def("run", &run_steps, py::arg("team"), py::arg("rows"), py::kw_only(), py::arg("begin") = 0,
           py::arg("end") = -1, py::arg("seed") = 0, py::arg("run") = 0, py::arg("step") = 0,
           py::arg("params"), py::arg("adaptive") = false,
           "Run steps [begin, end) on what the input buffers hold.");
  py::class_<Source>(m, "Source", "Arrays of equal row count that batches are gathered from.")
      .def(py::init<std::vector<py::array>>(), py::arg("arrays"))
      .def_property_readonly("rows", &Source::rows);
  py::class_<StopFlag>(m, "StopFlag", "Ends an epoch after the step in hand; may be set from any thread.")
      .def(py::init<>())
      .def("set", [](StopFlag& flag) { flag.value.store(true); })
      .def("clear", [](StopFlag& flag) { flag.value.store(false); })
      .def("is_set", [](const StopFlag& flag) { return flag.value.load(); });
  m.def(
      "run_epoch", &epoch, py::arg("program"), py::arg("source"), py::arg("team"), py::kw_only(),
      py::arg("inputs"), py::arg("batch_size"), py::arg("shuffle"), py::arg("seed") = 0, py::arg("run") = 0,
      py::arg("epoch") = 0, py::arg("step") = 0, py::arg("first_batch") = 0, py::arg("batches") = -1,
      py::arg("params"), py::arg("begin") = 0, py::arg("end") = -1, py::arg("outputs") = Outputs(),
      py::arg("stop") = py::none(), py::arg("deadline_s") = py::none(), py::arg("adaptive") = false,
      py::arg("check_finite") = false,
      "One pass over the source, or `batches` of it from `first_batch` on: (steps run, 'done' | 'stopped' | "
      "'time' | 'diverged' | 'paused'). Metrics are zeroed first, unless it begins in mid-epoch.");
  m.def(
      "permutation",
      [](int64 n, std::uint64_t seed, std::uint32_t run, std::uint32_t epoch_number) {
        py::array_t<int64> order(n);
        const Permutation permutation(static_cast<std::uint64_t>(n), seed, run, epoch_number);
        for (int64 i = 0; i < n; ++i)
          order.mutable_at(i) = static_cast<int64>(permutation(static_cast<std::uint64_t>(i)));
        return order;
      },
      py::arg("n"), py::kw_only(), py::arg("seed"), py::arg("run"), py::arg("epoch"),
      "The order in which an epoch reads its rows.");
}

}  // namespace hotloop
