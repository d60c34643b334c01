// SPDX-License-Identifier: Apache-2.0
// Plan: from the compiler's tuples and dicts to plain data.
#include <optional>

#include "bindings/register.h"
#include "core/error.h"

namespace hotloop {
namespace {

Space space_of(const std::string& kind) {
  if (kind == "input" || kind == "activation" || kind == "scratch") return Space::kArena;
  constexpr const char* kNames[] = {"arena", "parameter", "gradient", "accumulated", "moment1", "moment2",
                                    "ema",   "state",     "counter",  "ema_counter", "metric",  "constant"};
  for (int i = 1; i < kNumSpaces; ++i)
    if (kind == kNames[i]) return static_cast<Space>(i);
  throw InternalError("[plan] unknown buffer kind " + kind);
}

DType dtype_of(const std::string& name) {
  if (name == "real") return DType::kReal;
  if (name == "index") return DType::kIndex;
  if (name == "double") return DType::kDouble;
  if (name == "int64") return DType::kInt64;
  throw InternalError("[plan] unknown element type " + name);
}

using Pair = std::pair<int64, int64>;

FieldValue field_value(const Field& field, const py::handle& value) {
  FieldValue v;
  switch (field.kind) {
    case FieldKind::Dim: {
      const auto [per_row, constant] = value.cast<Pair>();
      v.dim = {per_row, constant};
      break;
    }
    case FieldKind::Int:
      v.integer = value.cast<int64>();
      break;
    case FieldKind::Real:
      v.number = value.cast<double>();
      break;
    default:
      if (!value.is_none()) {
        const auto [buffer, offset] = value.cast<Pair>();
        check(buffer >= 0, "[plan] operand ", field.name, " names buffer ", buffer);
        v.buffer = static_cast<int>(buffer);
        v.offset = offset;
      }
  }
  return v;
}

PlanStep plan_step(const std::string& name, const py::dict& fields) {
  const int kernel = find_kernel(name);
  check(kernel >= 0, "[plan] unknown kernel ", name);
  PlanStep step{static_cast<Kernel>(kernel), {}};
  const KernelInfo& info = kernel_info(step.kernel);
  check(fields.size() == info.fields.size(), "[plan] ", name, " takes ", info.fields.size(), " fields, got ",
        fields.size());
  for (const Field& field : info.fields) {
    const py::str key{std::string(field.name)};
    check(fields.contains(key), "[plan] ", name, " lacks field ", field.name);
    step.fields.push_back(field_value(field, fields[key]));
  }
  return step;
}

using BufferTuple = std::tuple<std::string, std::string, int64, int64, std::size_t>;
using StepTuple = std::pair<std::string, py::dict>;
using StageTuple = std::tuple<bool, int64, int64>;

std::shared_ptr<Plan> make_plan(const std::string& dtype, int64 max_rows, std::size_t arena_bytes,
                                int64 metric_doubles, int64 prepare, const std::vector<double>& constants,
                                int n_groups, int n_dropout, const std::vector<BufferTuple>& buffers,
                                const std::vector<StepTuple>& steps, const std::vector<StageTuple>& stages,
                                int64 update, const std::optional<std::vector<int>>& outputs) {
  auto plan = std::make_shared<Plan>();
  plan->real = real_of(dtype);
  plan->max_rows = max_rows;
  plan->arena_bytes = arena_bytes;
  plan->metric_doubles = metric_doubles;
  plan->prepare = prepare;
  plan->update = update < 0 ? static_cast<int64>(steps.size()) : update;
  plan->constants = constants;
  plan->n_groups = n_groups;
  plan->n_dropout = n_dropout;
  for (const auto& [kind, element, per_row, constant, offset] : buffers)
    plan->buffers.push_back({space_of(kind), dtype_of(element), {per_row, constant}, offset});
  for (const auto& [name, fields] : steps) plan->steps.push_back(plan_step(name, fields));
  plan->knows_outputs = outputs.has_value();
  plan->outputs = outputs.value_or(std::vector<int>());
  for (const auto& [rows, begin, end] : stages) plan->stages.push_back({rows, begin, end});
  return plan;
}

}  // namespace

Real real_of(const std::string& dtype) {
  if (dtype == "float32") return Real::kFloat32;
  check(dtype == "float64", "[plan] dtype must be float32 or float64, got ", dtype);
  return Real::kFloat64;
}

void register_plan(py::module_& m) {
  py::class_<Plan, std::shared_ptr<Plan>>(m, "Plan",
                                          "Steps over a table of buffers; see hotloop.compile.plan.")
      .def(py::init(&make_plan), py::kw_only(), py::arg("dtype"), py::arg("max_rows"), py::arg("arena_bytes"),
           py::arg("metric_doubles"), py::arg("prepare"), py::arg("constants"), py::arg("n_groups"),
           py::arg("n_dropout"), py::arg("buffers"), py::arg("steps"), py::arg("stages"),
           py::arg("update") = -1, py::arg("outputs") = py::none())
      .def_property_readonly("n_steps", [](const Plan& plan) { return plan.steps.size(); })
      .def_property_readonly("params_width", &Plan::params_width);
}

}  // namespace hotloop
