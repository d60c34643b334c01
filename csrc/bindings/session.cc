// SPDX-License-Identifier: Apache-2.0
// Memory and Program: what a Python session owns, and single steps on it, with the GIL released.
#include <chrono>

#include "bindings/register.h"
#include "core/error.h"
#include "runtime/program.h"

namespace hotloop {
namespace {

using DoubleArray = py::array_t<double, py::array::c_style>;

// A one-dimensional view of a space or buffer of `real` elements.
py::array real_view(std::byte* data, int64 size, Real real, py::handle owner) {
  if (real == Real::kFloat32) return view(reinterpret_cast<float*>(data), size, owner);
  return view(reinterpret_cast<double*>(data), size, owner);
}

// What a view of a space is based on. NumPy bases every view of that view on it in turn, so it lives as long
// as anybody can write through one.
py::object loan(const std::shared_ptr<Memory>& memory, Space space, bool writes) {
  return py::capsule(new Memory::Loan(memory, space, writes),
                     [](void* held) { delete static_cast<Memory::Loan*>(held); });
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
               std::uint32_t run, std::uint64_t step, const DoubleArray& params, bool first, bool last,
               bool adaptive, int64 times) {
  check(params.size() == program.plan().params_width(), "[program] ", params.size(), " step parameters, not ",
        program.plan().params_width());
  StepContext ctx;
  ctx.seed = seed;
  ctx.run = run;
  ctx.first = first;
  ctx.last = last;
  program.set_params(ctx, params.data());
  if (end < 0) end = static_cast<int64>(program.plan().steps.size());
  const Memory::Lease lease(program.memory());
  const py::gil_scoped_release release;  // the step touches native memory only
  const bool choose = adaptive && rows == program.plan().max_rows;
  for (int64 i = 0; i < times; ++i) {
    ctx.step = step + static_cast<std::uint64_t>(i);
    run_on_team(program, team, rows, begin, end, ctx, choose ? &program.team_choice() : nullptr);
  }
}

// Whether a space that a memory may lack is part of this one.
bool is_there(const Memory& memory, Space space) {
  switch (space) {
    case Space::kGradient:
      return memory.has_gradients();
    case Space::kAccumulated:
      return memory.sizes().accumulated;
    case Space::kMoment1:
      return memory.sizes().moments >= 1;
    case Space::kMoment2:
      return memory.sizes().moments >= 2;
    case Space::kEma:
      return memory.sizes().ema;
    default:
      return true;
  }
}

// A view of a space of a memory; one that does not write cannot be made to, since its base lends no buffer.
py::array lend(const std::shared_ptr<Memory>& memory, Space space, bool writes) {
  const MemorySizes& sizes = memory->sizes();
  std::byte* data = memory->space(space);
  const py::object base = loan(memory, space, writes);
  py::array found;
  if (space == Space::kCounter || space == Space::kEmaCounter) {
    const int64 n = space == Space::kCounter ? sizes.counters : sizes.ema ? 1 : 0;
    found = view(reinterpret_cast<int64*>(data), n, base);
  } else {
    const int64 n = space == Space::kState ? sizes.state : is_there(*memory, space) ? sizes.parameters : 0;
    found = real_view(data, n, memory->real(), base);
  }
  if (!writes) found.attr("flags").attr("writeable") = false;
  return found;
}

constexpr std::pair<const char*, Space> kSpaces[] = {
    {"parameters", Space::kParameter}, {"gradients", Space::kGradient}, {"accumulated", Space::kAccumulated},
    {"moment1", Space::kMoment1},      {"moment2", Space::kMoment2},    {"ema", Space::kEma},
    {"state", Space::kState},          {"counters", Space::kCounter},   {"ema_counter", Space::kEmaCounter},
};

void register_memory(py::module_& m) {
  py::class_<Memory, std::shared_ptr<Memory>> memory(m, "Memory", "The flat buffers of one session.");
  memory.def(py::init([](int64 parameters, int64 state, int64 counters, int moments, const std::string& dtype,
                         bool gradients) {
               const MemorySizes sizes{parameters, state, counters, moments};
               return std::make_shared<Memory>(sizes, real_of(dtype), gradients);
             }),
             py::kw_only(), py::arg("parameters"), py::arg("state"), py::arg("counters"), py::arg("moments"),
             py::arg("dtype"), py::arg("gradients") = true);
  memory.def("copy_from", &Memory::copy_from, py::arg("other"), py::call_guard<py::gil_scoped_release>(),
             "Take over parameters, moments, state and counters of a memory of the same sizes.");
  memory.def("reserve", &Memory::reserve, py::kw_only(), py::arg("accumulated"), py::arg("ema"),
             "Make room for sums of gradients and for an average of the parameters; what is there stays.");
  memory.def("begin_ema", &Memory::begin_ema, "Begin an average at the parameters as they are.");
  memory.def("exchange_ema", &Memory::exchange_ema, py::call_guard<py::gil_scoped_release>(),
             "Parameters and their average change places.");
  memory.def("square_norm", &Memory::square_norm, py::arg("n"), py::call_guard<py::gil_scoped_release>(),
             "The sum of the squares of the first n parameters, in double.");
  memory.def("is_finite", &Memory::is_finite, py::call_guard<py::gil_scoped_release>(),
             "Whether no parameter and no state is NaN or infinite.");
  for (const auto& [name, which] : kSpaces)
    memory.def_property_readonly(
        name, [which = which](const std::shared_ptr<Memory>& self) { return lend(self, which, true); });
  memory.def(
      "look",
      [](const std::shared_ptr<Memory>& self, const std::string& name) {
        for (const auto& [known, which] : kSpaces)
          if (name == known) return lend(self, which, false);
        throw py::key_error("[memory] no space " + name);
      },
      py::arg("space"),
      "A view of the space of that name that cannot be written through: a device need not be told of it.");
  memory.def("attach", &Memory::attach, py::arg("device"), py::call_guard<py::gil_scoped_release>(),
             "Make room for the same on a device, where programs may run from now on. What is newer there is "
             "fetched by whoever looks at it, and what is being looked at follows every run.");
  memory.def_property_readonly("device_nbytes", &Memory::n_device_bytes, "Bytes on a device; 0 without one.");
  memory.def_property_readonly("snapshot_nbytes", &Memory::n_snapshot_bytes,
                               "Bytes of a copy for a rollback: parameters, moments, state and counters.");
  memory.def_property_readonly("nbytes", &Memory::n_bytes, "Bytes of all buffers on the host together.");
}

}  // namespace

ElementType element_type(const py::array& array) {
  if (py::isinstance<py::array_t<float>>(array)) return ElementType::kFloat32;
  if (py::isinstance<py::array_t<double>>(array)) return ElementType::kFloat64;
  if (py::isinstance<py::array_t<std::uint8_t>>(array)) return ElementType::kUint8;
  if (py::isinstance<py::array_t<std::int32_t>>(array)) return ElementType::kInt32;
  if (py::isinstance<py::array_t<std::int64_t>>(array)) return ElementType::kInt64;
  throw py::type_error("[source] unsupported dtype " + py::str(array.dtype()).cast<std::string>());
}

void run_on_team(Program& program, ThreadTeam& team, int64 rows, int64 begin, int64 end,
                 const StepContext& ctx, TeamChoice* choice) {
  if (choice == nullptr || team.threads() == 1) return program.run(team, rows, begin, end, ctx);
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  ThreadTeam alone(1);
  choice->set_worthwhile(TeamChoice::kSavesAThird);  // as an epoch does where nobody asked for the team
  program.run(choice->team() ? team : alone, rows, begin, end, ctx);
  choice->took(std::chrono::duration<double>(Clock::now() - start).count());
}

void register_session(py::module_& m) {
  register_memory(m);
  py::class_<Program>(m, "Program", "A plan bound to a session's memory and an arena of its own.")
      .def(py::init<std::shared_ptr<const Plan>, std::shared_ptr<Memory>, const std::string&>(),
           py::arg("plan"), py::arg("memory"), py::arg("isa") = "")
      .def_property_readonly("isa", [](const Program& p) { return std::string(p.isa()); })
      .def_property_readonly("nbytes", &Program::n_bytes, "Bytes of arena, constants and metrics.")
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
           py::arg("params"), py::arg("first") = true, py::arg("last") = true, py::arg("adaptive") = false,
           py::arg("times") = 1,
           "Run steps [begin, end) on what the input buffers hold, so many times. `first`, `last`: where the "
           "batch stands among those that share an update.");
}

}  // namespace hotloop
