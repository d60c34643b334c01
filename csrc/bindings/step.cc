// SPDX-License-Identifier: Apache-2.0
// DirectCall: a program fed with the caller's own arrays. Between two steps of somebody else's loop stands
// one of these: it looks at the arrays, copies them in, runs, and gives the result. Whatever is not exactly
// as it was when the call was made it leaves to Python's border, which converts, checks and explains.
#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>

#include "bindings/copy_in.h"
#include "bindings/register.h"
#include "core/error.h"

namespace hotloop {
namespace {

// One array of a call: which argument it is, what it must look like, where its rows go.
struct Slot {
  int argument = 0;  // 0: x, 1: y, 2: sample_weight
  py::object key;    // its name where the argument is a dict, else None
  int type_num = 0;
  std::vector<py::ssize_t> row_shape;
  int64 row_size = 1;
  std::byte* to = nullptr;
  Copy copy = nullptr;
  double low = 0.0, high = 0.0;
};

// argument, key, buffer, an array of the right kind, least and largest value
using SlotTuple = std::tuple<int, py::object, int, py::array, double, double>;

class DirectCall {
 public:
  DirectCall(py::object program, py::object team, const std::vector<SlotTuple>& slots,
             std::vector<double> params, std::uint64_t seed, int64 end, int64 min_rows, int64 team_rows,
             bool adaptive, int64 loss, int output, std::vector<py::ssize_t> output_shape,
             std::vector<py::array> batch_counters)
      : program_object_(std::move(program)),
        team_object_(std::move(team)),
        program_(program_object_.cast<Program&>()),
        team_(team_object_.cast<ThreadTeam&>()),
        params_(std::move(params)),
        end_(end),
        min_rows_(min_rows),
        team_rows_(team_rows),
        adaptive_(adaptive),
        loss_(loss),
        output_(output),
        output_shape_(std::move(output_shape)),
        output_dtype_(program_.plan().real == Real::kFloat32 ? py::dtype::of<float>()
                                                             : py::dtype::of<double>()),
        batch_counters_(std::move(batch_counters)) {
    const Plan& plan = program_.plan();
    check(static_cast<int>(params_.size()) == plan.params_width(), "[step] ", params_.size(),
          " step parameters, not ", plan.params_width());
    check(loss_ < plan.metric_doubles && output_ < static_cast<int>(plan.buffers.size()),
          "[step] the result lies outside the plan");
    for (const py::array& counter : batch_counters_)
      check(py::isinstance<py::array_t<int64>>(counter), "[step] a counter of batches is not int64");
    for (const SlotTuple& slot : slots) add(slot);
    held_.resize(slots_.size());
    output_shape_.insert(output_shape_.begin(), 0);
    if (output_ >= 0) check_output();
    ctx_.seed = seed;
    program_.set_params(ctx_, params_.data());
  }

  int64 rows() const { return rows_; }

  // The batch's loss, or the output; None if these arrays have to go the long way.
  py::object call(py::handle x, py::handle y, py::handle weight, py::handle lr, std::uint64_t step) {
    const Memory::Lease lease(program_.memory());
    const Held held(held_);
    if (!set_lr(lr)) return py::none();
    const int64 rows = hold({x, y, weight});
    if (rows < min_rows_ || rows > program_.plan().max_rows) return py::none();
    ctx_.step = step;
    rows_ = rows;
    py::object result;
    std::byte* out = nullptr;
    if (output_ >= 0) {
      output_shape_[0] = rows;
      py::array array(output_dtype_, output_shape_);
      out = static_cast<std::byte*>(array.mutable_data());
      result = std::move(array);
    }
    bool clean = false;
    {
      const py::gil_scoped_release release;  // the arrays are held
      clean = copy_in(rows);
      if (clean) run(rows, out);
    }
    if (!clean) return py::none();
    for (py::array& counter : batch_counters_) *static_cast<int64*>(counter.mutable_data()) += 1;
    return loss_ < 0 ? result : py::float_(program_.metrics()[loss_]);
  }

 private:
  // Lets go of the arrays at the end of a call.
  class Held {
   public:
    explicit Held(std::vector<py::object>& arrays) : arrays_(arrays) {}
    ~Held() { std::fill(arrays_.begin(), arrays_.end(), py::object()); }
    Held(const Held&) = delete;
    Held& operator=(const Held&) = delete;

   private:
    std::vector<py::object>& arrays_;
  };

  bool set_lr(py::handle lr) {
    if (program_.plan().n_groups == 0) return true;
    const double value = PyFloat_CheckExact(lr.ptr()) ? PyFloat_AS_DOUBLE(lr.ptr()) : -1.0;
    for (int group = 0; group < program_.plan().n_groups; ++group)
      params_[2 * static_cast<std::size_t>(group)] = value;
    return value >= 0.0 && std::isfinite(value);
  }

  void add(const SlotTuple& tuple) {
    const auto& [argument, key, buffer, example, low, high] = tuple;
    const Plan& plan = program_.plan();
    check(argument >= 0 && argument < kArguments, "[step] no argument ", argument);
    check(buffer >= 0 && buffer < static_cast<int>(plan.buffers.size()), "[step] no buffer ", buffer);
    const Buffer& b = plan.buffers[static_cast<std::size_t>(buffer)];
    const ElementType type = element_type(example);
    Slot slot{argument, key, example.dtype().num(), {}, 1, program_.address(buffer), nullptr, low, high};
    for (py::ssize_t axis = 1; axis < example.ndim(); ++axis) {
      slot.row_shape.push_back(example.shape(axis));
      slot.row_size *= example.shape(axis);
    }
    check(convertible(type, b.dtype), "[step] an array's element type does not fit its input");
    check(example.ndim() >= 1 && b.size.per_row == slot.row_size && b.size.constant == 0, "[step] ",
          slot.row_size, " elements a row for an input of ", b.size.per_row);
    slot.copy = copy_for(type, b.dtype, plan.real);
    slots_.push_back(std::move(slot));
    given_[argument] = true;
    if (argument == 0 && !slots_.back().key.is_none()) ++names_;
  }

  void check_output() const {
    const Buffer& b = program_.plan().buffers[static_cast<std::size_t>(output_)];
    int64 row = 1;
    for (std::size_t axis = 1; axis < output_shape_.size(); ++axis) row *= output_shape_[axis];
    check(b.dtype == DType::kReal && b.size.constant == 0 && b.size.per_row == row, "[step] ", row,
          " elements a row for an output of ", b.size.per_row);
  }

  static constexpr int kArguments = 3;

  // Takes hold of the arrays; their common number of rows, or -1 if any is not as it must be.
  int64 hold(const std::array<py::handle, kArguments>& arguments) {
    for (int i = 0; i < kArguments; ++i)
      if (arguments[static_cast<std::size_t>(i)].is_none() == given_[i]) return -1;
    const py::handle x = arguments[0];
    if (names_ > 0 && !(PyDict_CheckExact(x.ptr()) && PyDict_Size(x.ptr()) == names_)) return -1;
    int64 rows = -1;
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const Slot& slot = slots_[i];
      py::handle value = arguments[static_cast<std::size_t>(slot.argument)];
      if (!slot.key.is_none()) value = PyDict_GetItemWithError(value.ptr(), slot.key.ptr());
      const int64 n = rows_of(slot, value);
      if (n < 0 || (i > 0 && n != rows)) return -1;
      rows = n;
      held_[i] = py::reinterpret_borrow<py::object>(value);
    }
    return rows;
  }

  static int64 rows_of(const Slot& slot, py::handle value) {
    const auto& numpy = py::detail::npy_api::get();
    if (!value || Py_TYPE(value.ptr()) != numpy.PyArray_Type_) return -1;  // a subclass may mean otherwise
    const auto* array = py::detail::array_proxy(value.ptr());
    constexpr int kNeeded =
        py::detail::npy_api::NPY_ARRAY_C_CONTIGUOUS_ | py::detail::npy_api::NPY_ARRAY_ALIGNED_;
    if ((array->flags & kNeeded) != kNeeded || array->nd != static_cast<int>(slot.row_shape.size()) + 1)
      return -1;
    const auto dtype = py::reinterpret_borrow<py::dtype>(array->descr);
    if (dtype.num() != slot.type_num || (dtype.byteorder() != '=' && dtype.byteorder() != '|')) return -1;
    if (!std::equal(slot.row_shape.begin(), slot.row_shape.end(), array->dimensions + 1)) return -1;
    return array->dimensions[0];
  }

  bool copy_in(int64 rows) const {
    for (std::size_t i = 0; i < slots_.size(); ++i) {
      const Slot& slot = slots_[i];
      const auto* from = reinterpret_cast<const std::byte*>(py::detail::array_proxy(held_[i].ptr())->data);
      if (!slot.copy(from, slot.to, rows * slot.row_size, slot.low, slot.high)) return false;
    }
    return true;
  }

  void run(int64 rows, std::byte* out) {
    const Plan& plan = program_.plan();
    if (rows < team_rows_) {
      program_.run(alone_, rows, 0, end_, ctx_);
    } else {
      run_on_team(program_, team_, rows, 0, end_, ctx_, adaptive_ ? &choice(rows) : nullptr);
    }
    if (out == nullptr) return;
    const std::size_t each = real_bytes(plan.real);
    const int64 row_size = plan.buffers[static_cast<std::size_t>(output_)].size.per_row;
    std::memcpy(out, program_.address(output_), static_cast<std::size_t>(rows * row_size) * each);
  }

  // Only steps of equal size may be compared.
  TeamChoice& choice(int64 rows) {
    const Plan& plan = program_.plan();
    if (rows == plan.max_rows && end_ == static_cast<int64>(plan.steps.size())) return program_.team_choice();
    if (rows != choice_rows_) choice_ = TeamChoice();
    choice_rows_ = rows;
    return choice_;
  }

  py::object program_object_, team_object_;
  Program& program_;
  ThreadTeam& team_;
  ThreadTeam alone_{1};
  std::vector<Slot> slots_;
  bool given_[kArguments] = {};
  py::ssize_t names_ = 0;  // inputs that come in a dict
  std::vector<py::object> held_;
  std::vector<double> params_;
  StepContext ctx_;
  int64 end_;  // the step to stop before
  int64 rows_ = 0;
  int64 min_rows_, team_rows_;  // below team_rows_ one thread does it
  bool adaptive_;
  TeamChoice choice_;
  int64 choice_rows_ = -1;
  int64 loss_;  // where in the metric block; -1: none
  int output_;  // which buffer; -1: none
  std::vector<py::ssize_t> output_shape_;
  py::dtype output_dtype_;
  std::vector<py::array> batch_counters_;  // int64 (), one more per call
};

}  // namespace

void register_step(py::module_& m) {
  py::class_<DirectCall>(m, "DirectCall",
                         "A program fed with the caller's own arrays; see hotloop.runtime.direct.")
      .def(
          py::init<py::object, py::object, const std::vector<SlotTuple>&, std::vector<double>, std::uint64_t,
                   int64, int64, int64, bool, int64, int, std::vector<py::ssize_t>, std::vector<py::array>>(),
          py::arg("program"), py::arg("team"), py::kw_only(), py::arg("slots"), py::arg("params"),
          py::arg("seed"), py::arg("end"), py::arg("min_rows"), py::arg("team_rows"), py::arg("adaptive"),
          py::arg("loss"), py::arg("output"), py::arg("output_shape"), py::arg("batch_counters"))
      .def_property_readonly("rows", &DirectCall::rows, "Of the last call.")
      .def("__call__", &DirectCall::call, py::arg("x"), py::arg("y") = py::none(),
           py::arg("sample_weight") = py::none(), py::arg("lr") = py::none(), py::arg("step") = 0,
           "The batch's loss, or the output; None if these arrays have to go the long way.");
}

}  // namespace hotloop
