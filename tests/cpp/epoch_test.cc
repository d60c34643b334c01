// SPDX-License-Identifier: Apache-2.0
// Whole epochs of a small plan, built by hand: linear regression y = x W^T under SGD with shuffling. Checks
// that it learns, that threads change no bit, that the last partial batch and a stop from another thread
// work, and that a broken plan is refused. Built with the sanitizers in CI, without Python in the process.
#include "runtime/epoch.h"

#include <atomic>
#include <cstring>
#include <initializer_list>
#include <memory>
#include <string_view>
#include <thread>
#include <vector>

#include "check.h"
#include "core/error.h"
#include "kernels/isa.h"

namespace {

using hotloop::Affine;
using hotloop::DType;
using hotloop::FieldValue;
using hotloop::int64;
using hotloop::Space;

constexpr int64 kIn = 64, kOut = 48, kBatch = 250, kRows = 1100;  // five batches, the last of 100 rows

// A field of a step by name: an operand's buffer, a size, or an attribute.
struct Arg {
  std::string_view name;
  FieldValue value;
};
Arg operand(std::string_view name, int buffer) {
  Arg arg{name, {}};
  arg.value.buffer = buffer;
  return arg;
}
Arg size(std::string_view name, int64 per_row, int64 constant) {
  Arg arg{name, {}};
  arg.value.dim = {per_row, constant};
  return arg;
}
Arg attribute(std::string_view name, int64 value) {
  Arg arg{name, {}};
  arg.value.integer = value;
  return arg;
}

Arg number(std::string_view name, double value) {
  Arg arg{name, {}};
  arg.value.number = value;
  return arg;
}

hotloop::PlanStep step(std::string_view kernel, std::initializer_list<Arg> args) {
  const auto id = static_cast<hotloop::Kernel>(hotloop::find_kernel(kernel));
  hotloop::PlanStep made{id, {}};
  for (const hotloop::Field& field : hotloop::kernel_info(id).fields) {
    FieldValue value;
    for (const Arg& arg : args)
      if (arg.name == field.name) value = arg.value;
    made.fields.push_back(value);
  }
  return made;
}

// Lays buffers one after another in the arena.
struct Builder {
  hotloop::Plan plan;

  int arena(Affine elements, DType dtype = DType::kReal) {
    plan.buffers.push_back({Space::kArena, dtype, elements, plan.arena_bytes});
    const auto bytes =
        static_cast<std::size_t>(elements.at(plan.max_rows)) * hotloop::dtype_bytes(dtype, plan.real);
    plan.arena_bytes += (bytes + 63) / 64 * 64;
    return static_cast<int>(plan.buffers.size()) - 1;
  }
  int other(Space space, DType dtype, int64 elements) {
    plan.buffers.push_back({space, dtype, {0, elements}, 0});
    return static_cast<int>(plan.buffers.size()) - 1;
  }
};

enum Input { kX, kTarget };  // the plan's first two buffers

std::shared_ptr<hotloop::Plan> regression_plan() {
  Builder b;
  b.plan.max_rows = kBatch;
  b.plan.n_groups = 1;
  b.plan.metric_doubles = 3;
  b.arena({kIn, 0});
  b.arena({kOut, 0});
  const int prediction = b.arena({kOut, 0}), error = b.arena({kOut, 0});
  const int weight = b.arena({1, 0}), drow = b.arena({1, 0}), row_loss = b.arena({1, 0});
  const int total = b.arena({0, 1}, DType::kDouble), scalars = b.arena({0, 8}, DType::kDouble);
  const int packed = b.arena({0, kIn * kOut});
  const int parameter = b.other(Space::kParameter, DType::kReal, kIn * kOut);
  const int gradient = b.other(Space::kGradient, DType::kReal, kIn * kOut);
  const int counter = b.other(Space::kCounter, DType::kInt64, 1);
  const int totals = b.other(Space::kMetric, DType::kDouble, 2);
  const int loss = b.other(Space::kMetric, DType::kDouble, 1);
  b.plan.buffers.back().offset = 16;

  const Arg rows = size("rows", 1, 0), cols = size("cols", 0, kOut);
  const Arg plain = attribute("activation", -1), kept = attribute("dropout", -1);
  const Arg whole = number("alpha", 1.0);
  b.plan.steps = {
      step("row_weight", {operand("weight", weight), operand("drow", drow), operand("total", total), rows}),
      step("pack_panels", {operand("out", packed), operand("x", parameter), size("k", 0, kIn),
                           size("n", 0, kOut), size("stride_k", 0, 1), size("stride_n", 0, kIn)}),
      step("matmul", {operand("out", prediction), operand("a", kX), operand("b", packed), size("m", 1, 0),
                      size("n", 0, kOut), size("k", 0, kIn), size("a_stride_m", 0, kIn),
                      size("a_stride_k", 0, 1), size("b_stride_k", 0, 16), size("b_stride_n", 0, 1),
                      size("out_stride", 0, kOut), attribute("b_packed", 1), plain, kept, whole}),
      step("mse", {operand("row_loss", row_loss), operand("dpred", error), operand("pred", prediction),
                   operand("target", kTarget), operand("drow", drow), rows, cols}),
      step("loss_stats", {operand("loss", loss), operand("totals", totals), operand("row_loss", row_loss),
                          operand("weight", weight), rows}),
      step("matmul", {operand("out", gradient), operand("a", error), operand("b", kX), size("m", 0, kOut),
                      size("n", 0, kIn), size("k", 1, 0), size("a_stride_m", 0, 1),
                      size("a_stride_k", 0, kOut), size("b_stride_k", 0, kIn), size("b_stride_n", 0, 1),
                      size("out_stride", 0, kIn), plain, kept, whole}),
      step("optimizer_begin", {operand("scalars", scalars), operand("counter", counter),
                               operand("total", total), size("n_counter", 0, 1)}),
      step("sgd", {operand("param", parameter), operand("grad", gradient), operand("scalars", scalars),
                   size("n", 0, kIn * kOut)}),
  };
  return std::make_shared<hotloop::Plan>(b.plan);
}

struct Data {
  std::vector<float> x, target;
  std::vector<hotloop::SourceArray> arrays;

  Data() : x(kRows * kIn), target(kRows * kOut) {
    // Inputs in [-1, 1) from Philox; targets from W[o][i] = ((o + i) % 7 - 3) / 8.
    for (std::size_t i = 0; i < x.size(); ++i)
      x[i] = static_cast<float>(hotloop::philox({{static_cast<std::uint32_t>(i), 0, 0, 0}}, {1, 2}).word[0]) /
                 2147483648.0f -
             1.0f;
    for (std::size_t r = 0; r < kRows; ++r)
      for (std::size_t o = 0; o < kOut; ++o)
        for (std::size_t i = 0; i < kIn; ++i)
          target[r * kOut + o] += x[r * kIn + i] * (static_cast<float>((o + i) % 7) - 3.0f) / 8.0f;
    const auto bytes = [](const std::vector<float>& v) {
      return reinterpret_cast<const std::byte*>(v.data());
    };
    arrays = {{bytes(x), hotloop::ElementType::kFloat32, kRows, kIn},
              {bytes(target), hotloop::ElementType::kFloat32, kRows, kOut}};
  }
};

const double kParams[] = {/*lr=*/5.0, /*weight_decay=*/0.0};

hotloop::EpochOptions options(const hotloop::Plan& plan, std::uint32_t epoch) {
  hotloop::EpochOptions made;
  made.inputs = {kX, kTarget};
  made.batch_size = kBatch;
  made.shuffle = true;
  made.seed = 9;
  made.epoch = epoch;
  made.params = kParams;
  made.n_params = 1;
  made.end = static_cast<int64>(plan.steps.size());
  return made;
}

// The same plan for a team: weights packed | forward and loss by rows | weight gradient | update.
std::shared_ptr<hotloop::Plan> staged_plan() {
  const auto plan = regression_plan();
  plan->stages = {{false, 0, 2}, {true, 2, 4}, {false, 4, 6}, {false, 6, 7}, {false, 7, 8}};
  return plan;
}

struct Run {
  std::vector<double> losses;
  std::vector<float> parameters;
};

Run train(const Data& data, const std::shared_ptr<hotloop::Plan>& plan, int threads, std::uint32_t epochs) {
  auto memory = std::make_shared<hotloop::Memory>(hotloop::MemorySizes{kIn * kOut, 0, 1, 0}, plan->real);
  hotloop::Program program(plan, memory, "");
  hotloop::ThreadTeam team(threads);
  Run run;
  for (std::uint32_t epoch = 0; epoch < epochs; ++epoch) {
    const hotloop::EpochResult result = run_epoch(program, data.arrays, team, options(*plan, epoch));
    CHECK(result.steps == 5 && result.status == hotloop::EpochStatus::kDone);
    CHECK(program.metrics()[1] == static_cast<double>(kRows));
    run.losses.push_back(program.metrics()[0] / program.metrics()[1]);
  }
  run.parameters.resize(kIn * kOut);
  std::memcpy(run.parameters.data(), memory->space(Space::kParameter), run.parameters.size() * sizeof(float));
  return run;
}

bool a_stop_from_another_thread_ends_the_run(const Data& data) {
  const auto plan = regression_plan();
  auto memory = std::make_shared<hotloop::Memory>(hotloop::MemorySizes{kIn * kOut, 0, 1, 0}, plan->real);
  hotloop::Program program(plan, memory, "");
  hotloop::ThreadTeam team(2);
  std::atomic<bool> stop{false}, entered{false};
  std::thread other([&] {
    while (!entered) std::this_thread::yield();
    stop = true;
  });
  hotloop::EpochResult result;
  do {
    auto o = options(*plan, 0);
    o.stop = &stop;
    result = run_epoch(program, data.arrays, team, o);
    entered = true;
  } while (result.status == hotloop::EpochStatus::kDone);
  other.join();
  return result.status == hotloop::EpochStatus::kStopped && result.steps < 5;
}

// Batches 0 and 1, then the rest, are the epoch.
void pauses_anywhere(const Data& data) {
  const auto plan = regression_plan();
  double totals[2][2];
  for (const int64 cut : {int64{0}, int64{2}}) {
    auto memory = std::make_shared<hotloop::Memory>(hotloop::MemorySizes{kIn * kOut, 0, 1, 0}, plan->real);
    hotloop::Program program(plan, memory, "");
    hotloop::ThreadTeam team(2);
    auto o = options(*plan, 3);
    o.batches = cut;
    hotloop::EpochResult result = run_epoch(program, data.arrays, team, o);
    CHECK(result.steps == cut && result.status == hotloop::EpochStatus::kPaused);
    o.first_batch = cut;
    o.batches = -1;
    result = run_epoch(program, data.arrays, team, o);
    CHECK(result.steps == 5 - cut && result.status == hotloop::EpochStatus::kDone);
    std::memcpy(totals[cut / 2], program.metrics(), sizeof totals[0]);
  }
  CHECK(totals[0][0] == totals[1][0] && totals[0][1] == totals[1][1]);
}

// Of five batches, the update's steps run after every `accumulate` and after the last.
void updates_are_shared(const Data& data) {
  const auto plan = regression_plan();
  plan->update = 6;
  const int64 expected[] = {5, 3, 2, 2, 1};
  for (int64 accumulate = 1; accumulate <= 5; ++accumulate) {
    auto memory = std::make_shared<hotloop::Memory>(hotloop::MemorySizes{kIn * kOut, 0, 1, 0}, plan->real);
    hotloop::Program program(plan, memory, "");
    hotloop::ThreadTeam team(2);
    for (const int64 cut : {int64{3}, int64{-1}}) {  // a pause changes nothing
      auto o = options(*plan, 0);
      o.accumulate = accumulate;
      o.first_batch = cut < 0 ? 3 : 0;
      o.batches = cut;
      run_epoch(program, data.arrays, team, o);
    }
    int64 updates = 0;
    std::memcpy(&updates, memory->space(Space::kCounter), sizeof updates);
    CHECK(updates == expected[accumulate - 1]);
  }
}

// An epoch whose rows come from three sources, of 1, 3 and the last, partial batch, is the epoch of one.
void pieces_are_the_whole(const Data& data) {
  const auto plan = regression_plan();
  plan->update = 6;
  std::vector<float> parameters[2];
  double totals[2][2];
  for (const bool whole : {true, false}) {
    auto memory = std::make_shared<hotloop::Memory>(hotloop::MemorySizes{kIn * kOut, 0, 1, 0}, plan->real);
    hotloop::Program program(plan, memory, "");
    hotloop::ThreadTeam team(2);
    auto o = options(*plan, 2);
    o.shuffle = false;
    o.accumulate = 2;
    const double rates[] = {5.0, 0.0, 4.0, 0.0, 3.0, 0.0, 2.0, 0.0, 1.0, 0.0};  // of each batch
    o.params = rates;
    o.n_params = 5;
    const int64 cuts[] = {0, kBatch, 4 * kBatch, kRows};
    for (int piece = 0; piece < (whole ? 1 : 3); ++piece) {
      const int64 first = whole ? 0 : cuts[piece], end = whole ? kRows : cuts[piece + 1];
      std::vector<hotloop::SourceArray> part = data.arrays;
      for (hotloop::SourceArray& array : part) {
        array.data += static_cast<std::size_t>(first * array.row_size) * sizeof(float);
        array.rows = end - first;
      }
      o.before = first / kBatch;
      o.more = end < kRows;
      CHECK(run_epoch(program, part, team, o).status == hotloop::EpochStatus::kDone);
    }
    int64 updates = 0;
    std::memcpy(&updates, memory->space(Space::kCounter), sizeof updates);
    CHECK(updates == 3);
    parameters[whole].resize(kIn * kOut);
    std::memcpy(parameters[whole].data(), memory->space(Space::kParameter), kIn * kOut * sizeof(float));
    std::memcpy(totals[whole], program.metrics(), sizeof totals[0]);
    o.before = 0;
    o.more = true;  // the last batch is not whole, so that nothing may follow
    bool caught = false;
    try {
      run_epoch(program, data.arrays, team, o);
    } catch (const hotloop::InternalError&) {
      caught = true;
    }
    CHECK(caught);
  }
  CHECK(parameters[0] == parameters[1]);
  CHECK(totals[0][0] == totals[1][0] && totals[0][1] == totals[1][1]);
}

bool refused(void (*spoil)(hotloop::Plan&)) {
  const auto plan = staged_plan();
  spoil(*plan);
  try {
    check_plan(*plan, {kIn * kOut, 0, 1, 0});
  } catch (const hotloop::InternalError&) {
    return true;
  }
  return false;
}

}  // namespace

int main() {
  const Data data;
  const Run one = train(data, regression_plan(), 1, 30);
  CHECK(one.losses.back() < 1e-3 * one.losses.front());
  for (const int threads : {2, 3, 7}) {
    for (const auto& plan : {regression_plan(), staged_plan()}) {
      const Run many = train(data, plan, threads, 30);
      CHECK(many.losses == one.losses);
      CHECK(many.parameters == one.parameters);
    }
  }
  CHECK(a_stop_from_another_thread_ends_the_run(data));
  pauses_anywhere(data);
  updates_are_shared(data);
  pieces_are_the_whole(data);
  check_plan(*staged_plan(), {kIn * kOut, 0, 1, 0});
  CHECK(refused([](hotloop::Plan& plan) { plan.arena_bytes -= 64; }));
  CHECK(refused([](hotloop::Plan& plan) { plan.buffers[kX].offset += 4; }));
  CHECK(refused([](hotloop::Plan& plan) { plan.steps[0].fields[0].buffer = 99; }));
  CHECK(refused([](hotloop::Plan& plan) { plan.steps[0].fields.pop_back(); }));
  CHECK(refused([](hotloop::Plan& plan) { plan.n_groups = 0; }));
  CHECK(refused([](hotloop::Plan& plan) { plan.stages.pop_back(); }));
  CHECK(refused([](hotloop::Plan& plan) { plan.stages[1].begin = 1; }));
  CHECK(refused([](hotloop::Plan& plan) { plan.stages[2].rows = true; }));  // a weight gradient has no rows
  return test::report("epoch");
}
