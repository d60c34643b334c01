// SPDX-License-Identifier: Apache-2.0
// Passes: a network inside somebody else's automatic differentiation. Each forward pass keeps an arena of
// its own until its gradients are taken, so that several may wait; what is read and written are addresses,
// because tensors of other libraries have no type here. The caller checks shapes and keeps tensors alive.
#include <cstring>

#include "bindings/copy_in.h"
#include "bindings/register.h"

namespace hotloop {
namespace {

using Address = std::uintptr_t;

std::byte* pointer(Address address) { return reinterpret_cast<std::byte*>(address); }

// element type, buffer, least and largest value of integers
using InputTuple = std::tuple<std::string, int, double, double>;
// where a parameter's gradient begins in the flat buffer, and its shape
using GradientTuple = std::pair<int64, std::vector<py::ssize_t>>;

ElementType type_named(const std::string& name) {
  if (name == "float32") return ElementType::kFloat32;
  if (name == "float64") return ElementType::kFloat64;
  if (name == "uint8") return ElementType::kUint8;
  if (name == "int32") return ElementType::kInt32;
  if (name == "int64") return ElementType::kInt64;
  throw py::type_error("[passes] unsupported dtype " + name);
}

struct Input {
  int buffer = 0;
  int64 row_size = 0;
  bool checked = false;  // real numbers may be anything
  Copy copy = nullptr;
  double low = 0.0, high = 0.0;
};

class Passes;

// One forward pass that waits for its gradients. Gives its arena back when they are taken, or with its death.
class Pass {
 public:
  Pass(std::shared_ptr<Passes> owner, std::unique_ptr<Program> program, int64 rows, std::uint64_t seed)
      : owner_(std::move(owner)), program_(std::move(program)), rows_(rows), seed_(seed) {}
  ~Pass() { close(); }
  Pass(const Pass&) = delete;
  Pass& operator=(const Pass&) = delete;

  bool is_open() const { return program_ != nullptr; }
  void close();
  std::vector<py::array> backward(Address doutput, const std::vector<Address>& dinputs);

 private:
  std::shared_ptr<Passes> owner_;
  std::unique_ptr<Program> program_;
  int64 rows_;
  std::uint64_t seed_;
};

class Passes : public std::enable_shared_from_this<Passes> {
 public:
  Passes(py::object program, py::object team, const std::vector<InputTuple>& inputs,
         std::vector<double> params, int64 middle, int output, int doutput, std::vector<int> dinputs,
         std::vector<GradientTuple> gradients, bool adaptive, int64 team_rows,
         std::vector<py::array> batch_counters)
      : program_object_(std::move(program)),
        first_(&program_object_.cast<const Program&>()),
        team_object_(std::move(team)),
        team_(team_object_.cast<ThreadTeam&>()),
        params_(std::move(params)),
        middle_(middle),
        output_(output),
        doutput_(doutput),
        dinputs_(std::move(dinputs)),
        gradients_(std::move(gradients)),
        adaptive_(adaptive),
        team_rows_(team_rows),
        batch_counters_(std::move(batch_counters)) {
    const Plan& plan = first_->plan();
    check(static_cast<int>(params_.size()) == plan.params_width(), "[passes] ", params_.size(),
          " step parameters, not ", plan.params_width());
    check(0 <= middle_ && middle_ <= n_steps(), "[passes] the forward section ends outside the plan");
    for (const InputTuple& input : inputs) add(input);
    check_real(output_);
    if (doutput_ >= 0) check_real(doutput_);
    for (const int buffer : dinputs_) check_real(buffer);
    for (const py::array& counter : batch_counters_)
      check(py::isinstance<py::array_t<int64>>(counter), "[passes] a counter of batches is not int64");
    for (const auto& [offset, shape] : gradients_) {
      int64 size = 1;
      for (const py::ssize_t d : shape) size *= d;
      check(offset >= 0 && offset + size <= first_->memory().sizes().parameters,
            "[passes] a gradient lies outside its buffer");
    }
  }

  // Runs the forward section and lets go of what it left; false if an id is out of range.
  bool run(int64 rows, const std::vector<Address>& inputs, Address output, std::uint64_t seed) {
    std::unique_ptr<Program> program = take();
    const bool clean = forward(*program, rows, inputs, output, seed);
    give_back(std::move(program));
    return clean;
  }

  // The same, and keeps what backward needs; None if an id is out of range. `again`: it is the repetition of
  // a pass, which moves no running statistics.
  std::unique_ptr<Pass> start(int64 rows, const std::vector<Address>& inputs, Address output,
                              std::uint64_t seed, bool again) {
    std::unique_ptr<Program> program = take();
    const Memory& memory = program->memory();
    memory.to_host();
    const auto n_bytes =
        static_cast<std::size_t>(again ? memory.sizes().state : 0) * real_bytes(memory.real());
    const std::byte* state = memory.space(Space::kState);
    const std::vector<std::byte> before(state, state + n_bytes);
    const bool clean = forward(*program, rows, inputs, output, seed, !again);
    if (n_bytes > 0) std::memcpy(memory.space(Space::kState), before.data(), n_bytes);
    if (!clean) return give_back(std::move(program)), nullptr;
    return std::make_unique<Pass>(shared_from_this(), std::move(program), rows, seed);
  }

  // An array for each gradient, and what lies behind all of them: the flat buffer itself if nobody holds
  // gradients of an earlier pass, else a copy that leaves those as they were.
  std::vector<py::array> backward(Program& program, int64 rows, std::uint64_t seed, Address doutput,
                                  const std::vector<Address>& dinputs) {
    const Memory::Lease lease(program.memory());
    const std::shared_ptr<Memory>& memory = program.shared_memory();
    check(doutput_ >= 0 && dinputs.size() == dinputs_.size(), "[passes] no such backward pass");
    memory->to_host();
    const bool lent = memory->gradients_are_lent() && !gradients_.empty();
    const int64 n = memory->sizes().parameters;
    const auto n_bytes = static_cast<std::size_t>(n) * real_bytes(memory->real());
    py::array copy;
    if (lent) copy = py::array(real_dtype(), std::vector<py::ssize_t>{n});
    std::byte* spare = lent ? static_cast<std::byte*>(copy.mutable_data()) : nullptr;
    std::byte* flat = memory->space(Space::kGradient);
    {
      const py::gil_scoped_release release;  // native memory, and tensors that the caller holds
      if (lent) std::memcpy(spare, flat, n_bytes);
      copy_real(program, doutput_, rows, pointer(doutput), true);
      run_section(program, rows, middle_, n_steps(), seed, backward_choice_);
      for (std::size_t i = 0; i < dinputs_.size(); ++i)
        copy_real(program, dinputs_[i], rows, pointer(dinputs[i]), false);
      if (lent) std::swap_ranges(spare, spare + n_bytes, flat);
    }
    return arrays(lent ? spare : flat, lent ? py::object(copy) : loan(memory));
  }

  std::size_t arenas() const { return free_.size(); }

  std::unique_ptr<Program> take() {
    if (free_.empty()) return first_->twin();
    std::unique_ptr<Program> program = std::move(free_.back());
    free_.pop_back();
    return program;
  }
  void give_back(std::unique_ptr<Program> program) {
    if ((free_.size() + 1) * program->n_bytes() <= kKeptBytes || free_.empty())
      free_.push_back(std::move(program));
  }

 private:
  // Arenas that wait for the next pass; one is always kept.
  static constexpr std::size_t kKeptBytes = std::size_t{64} << 20;

  int64 n_steps() const { return static_cast<int64>(first_->plan().steps.size()); }
  py::dtype real_dtype() const {
    return first_->plan().real == Real::kFloat32 ? py::dtype::of<float>() : py::dtype::of<double>();
  }
  static py::object loan(const std::shared_ptr<Memory>& memory) {
    return py::capsule(new Memory::GradientLoan(memory),
                       [](void* held) { delete static_cast<Memory::GradientLoan*>(held); });
  }

  const Buffer& buffer(int index) const {
    check(index >= 0 && index < static_cast<int>(first_->plan().buffers.size()), "[passes] no buffer ",
          index);
    return first_->plan().buffers[static_cast<std::size_t>(index)];
  }
  void check_real(int index) const {
    check(buffer(index).dtype == DType::kReal && buffer(index).size.constant == 0, "[passes] buffer ", index,
          " is not a row of real numbers each");
  }

  void add(const InputTuple& tuple) {
    const auto& [name, index, low, high] = tuple;
    const ElementType type = type_named(name);
    const Buffer& b = buffer(index);
    check(convertible(type, b.dtype) && b.size.constant == 0, "[passes] ", name, " does not fit its input");
    inputs_.push_back({index, b.size.per_row, b.dtype == DType::kIndex,
                       copy_for(type, b.dtype, first_->plan().real), low, high});
  }

  bool forward(Program& program, int64 rows, const std::vector<Address>& inputs, Address output,
               std::uint64_t seed, bool counts = true) {
    const Memory::Lease lease(program.memory());
    check(inputs.size() == inputs_.size(), "[passes] ", inputs.size(), " inputs of ", inputs_.size());
    check(0 <= rows && rows <= program.plan().max_rows, "[passes] ", rows, " rows");
    bool clean = true;
    {
      const py::gil_scoped_release release;  // native memory, and tensors that the caller holds
      for (std::size_t i = 0; i < inputs.size(); ++i) {
        const Input& input = inputs_[i];
        const bool good = input.copy(pointer(inputs[i]), program.address(input.buffer), rows * input.row_size,
                                     input.low, input.high);
        clean &= good || !input.checked;
      }
      if (clean) {
        run_section(program, rows, 0, middle_, seed, forward_choice_);
        copy_real(program, output_, rows, pointer(output), false);
      }
    }
    if (clean && counts)
      for (py::array& counter : batch_counters_) *static_cast<int64*>(counter.mutable_data()) += 1;
    return clean;
  }

  void copy_real(const Program& program, int index, int64 rows, std::byte* outside, bool in) const {
    const int64 size = program.plan().buffers[static_cast<std::size_t>(index)].size.at(rows);
    const auto n_bytes = static_cast<std::size_t>(size) * real_bytes(program.plan().real);
    if (in)
      std::memcpy(program.address(index), outside, n_bytes);
    else
      std::memcpy(outside, program.address(index), n_bytes);
  }

  // Only sections of equal size may be compared.
  struct Choice {
    TeamChoice choice;
    int64 rows = -1;
  };

  void run_section(Program& program, int64 rows, int64 begin, int64 end, std::uint64_t seed, Choice& choice) {
    StepContext ctx;
    ctx.seed = seed;
    program.set_params(ctx, params_.data());
    if (rows < team_rows_) return program.run(alone_, rows, begin, end, ctx);
    if (choice.rows != rows) choice = {TeamChoice(), rows};
    run_on_team(program, team_, rows, begin, end, ctx, adaptive_ ? &choice.choice : nullptr);
  }

  std::vector<py::array> arrays(std::byte* flat, const py::object& base) const {
    std::vector<py::array> found;
    found.reserve(gradients_.size());
    const std::size_t each = real_bytes(first_->plan().real);
    for (const auto& [offset, shape] : gradients_)
      found.emplace_back(real_dtype(), shape, flat + static_cast<std::size_t>(offset) * each, base);
    return found;
  }

  py::object program_object_;
  const Program* first_;  // never run: its plan and memory are what others are made from
  py::object team_object_;
  ThreadTeam& team_;
  ThreadTeam alone_{1};
  std::vector<Input> inputs_;
  std::vector<double> params_;
  int64 middle_;  // the step that backward begins with
  int output_, doutput_;
  std::vector<int> dinputs_;
  std::vector<GradientTuple> gradients_;
  bool adaptive_;
  int64 team_rows_;  // below, one thread does it
  std::vector<py::array> batch_counters_;
  std::vector<std::unique_ptr<Program>> free_;  // touched with the GIL held only
  Choice forward_choice_, backward_choice_;
};

void Pass::close() {
  if (program_ != nullptr) owner_->give_back(std::move(program_));
}

std::vector<py::array> Pass::backward(Address doutput, const std::vector<Address>& dinputs) {
  check(is_open(), "[passes] this pass was gone back from");
  std::vector<py::array> found = owner_->backward(*program_, rows_, seed_, doutput, dinputs);
  close();
  return found;
}

}  // namespace

void register_passes(py::module_& m) {
  py::class_<Pass>(m, "Pass", "A forward pass that waits for its gradients.")
      .def_property_readonly("is_open", &Pass::is_open, "Whether its gradients were not taken yet.")
      .def("backward", &Pass::backward, py::arg("doutput"), py::arg("dinputs"),
           "From the gradient by the output at an address: writes those by the inputs to theirs, and gives "
           "those "
           "by the parameters, an array each. Serves once.");
  py::class_<Passes, std::shared_ptr<Passes>>(m, "Passes",
                                              "Forward passes that may wait for their gradients.")
      .def(py::init<py::object, py::object, const std::vector<InputTuple>&, std::vector<double>, int64, int,
                    int, std::vector<int>, std::vector<GradientTuple>, bool, int64, std::vector<py::array>>(),
           py::arg("program"), py::arg("team"), py::kw_only(), py::arg("inputs"), py::arg("params"),
           py::arg("middle"), py::arg("output"), py::arg("doutput"), py::arg("dinputs"), py::arg("gradients"),
           py::arg("adaptive"), py::arg("team_rows"), py::arg("batch_counters"))
      .def_property_readonly("arenas", &Passes::arenas, "How many wait for their next pass.")
      .def("run", &Passes::run, py::arg("rows"), py::arg("inputs"), py::arg("output"), py::arg("seed"),
           "Forward alone, from and to these addresses; False if an id is out of range.")
      .def("start", &Passes::start, py::arg("rows"), py::arg("inputs"), py::arg("output"), py::arg("seed"),
           py::arg("again") = false,
           "Forward, and what backward needs is kept; None if an id is out of range.");
}

}  // namespace hotloop
