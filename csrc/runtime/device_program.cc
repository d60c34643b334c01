// SPDX-License-Identifier: Apache-2.0
#include "runtime/device_program.h"

#include <algorithm>
#include <cstring>

namespace hotloop {
namespace {

constexpr std::size_t kAlign = 256;
std::size_t aligned(std::size_t bytes) { return (bytes + kAlign - 1) / kAlign * kAlign; }

// Room for the batches of small networks; what is larger is copied with the host waiting.
constexpr std::size_t kStagingBytes = std::size_t{1} << 20;
// Graphs of one number of rows: with and without the update, of one and of many batches, from the beginning
// and past what is prepared.
constexpr std::size_t kMaxGraphs = 12;

SpaceSet used_spaces(const Plan& plan) {
  SpaceSet used = 0;
  for (const Buffer& b : plan.buffers) used |= bit(b.space);
  return used;
}

}  // namespace

struct DeviceProgram::Bound {
  Bound(const Plan& plan, const Places& places, const std::shared_ptr<const Device>& device,
        Precision precision, int64 rows)
      : binding(plan, places, device, precision, rows) {}
  DeviceBinding binding;
  std::vector<std::pair<DevicePass, std::unique_ptr<DeviceSequence>>> graphs;
  std::size_t oldest = 0;
};

DeviceProgram::DeviceProgram(std::shared_ptr<const Plan> plan, std::shared_ptr<Memory> memory,
                             std::shared_ptr<const Device> device, Precision precision)
    : plan_((check_plan(*plan, memory->sizes()), std::move(plan))),
      memory_(std::move(memory)),
      device_(std::move(device)),
      precision_(precision),
      used_(used_spaces(*plan_)),
      written_(written_spaces(*plan_)),
      queue_(device_),
      arena_(device_, plan_->arena_bytes),
      constants_(device_, plan_->constants.size() * sizeof(float)),
      params_at_(aligned(sizeof(DeviceStep))),
      metrics_at_(params_at_ + aligned(static_cast<std::size_t>(plan_->params_width()) * sizeof(double))),
      head_(device_, metrics_at_ + static_cast<std::size_t>(plan_->metric_doubles) * sizeof(double)),
      head_host_(device_, head_.bytes()),
      metrics_(static_cast<std::size_t>(plan_->metric_doubles), 0.0) {
  check(plan_->real == Real::kFloat32, "[plan] devices compute in float32 only");
  check(memory_->real() == plan_->real, "[plan] the plan and the session differ in their scalar type");
  check(memory_->has_gradients(), "[plan] a snapshot has no gradients, so no program runs on it");
  memory_->attach(device_);
  const std::vector<float> constants(plan_->constants.begin(), plan_->constants.end());
  queue_.copy(constants_.data(), constants.data(), constants_.bytes(), CopyKind::kToDevice);
  queue_.wait();
}

DeviceProgram::~DeviceProgram() = default;

std::string DeviceProgram::isa() const {
  return std::string(device_->api().backend) + " sm_" + std::to_string(device_->traits().arch);
}

std::size_t DeviceProgram::n_bytes() const {
  std::size_t n = arena_.bytes() + constants_.bytes() + head_.bytes() + (params_ ? params_->bytes() : 0);
  for (const auto& b : bindings_) n += b ? b->binding.n_bytes() : 0;
  return n;
}

std::byte* DeviceProgram::address(int buffer) const {
  const Buffer& b = plan_->buffers[static_cast<std::size_t>(buffer)];
  switch (b.space) {
    case Space::kArena:
      return arena_.data() + b.offset;
    case Space::kConstant:
      return constants_.data() + b.offset;
    case Space::kMetric:
      return head_.data() + metrics_at_ + b.offset;
    default:
      return memory_->mirror()->address(b.space) + b.offset;
  }
}

DeviceStep* DeviceProgram::step() const { return reinterpret_cast<DeviceStep*>(head_.data()); }

void DeviceProgram::put(int buffer, const std::byte* data, std::size_t bytes) {
  device_->use();
  if (!staging_) staging_ = std::make_unique<PinnedBlock>(device_, kStagingBytes);
  if (bytes > kStagingBytes - staged_) {
    queue_.wait();
    staged_ = 0;
  }
  if (bytes > kStagingBytes) {
    queue_.copy(address(buffer), data, bytes, CopyKind::kToDevice);
    return queue_.wait();
  }
  std::byte* at = staging_->data() + staged_;
  if (bytes > 0) std::memcpy(at, data, bytes);
  staged_ += bytes;
  queue_.copy(address(buffer), at, bytes, CopyKind::kToDevice);
}

DeviceProgram::Lane& DeviceProgram::lane(int i, std::size_t bytes) {
  if (!lanes_[i] || lanes_[i]->pinned.bytes() < bytes) lanes_[i] = std::make_unique<Lane>(device_, bytes);
  return *lanes_[i];
}

void DeviceProgram::get(int buffer, std::byte* out, std::size_t bytes) const {
  device_->use();
  queue_.copy(out, address(buffer), bytes, CopyKind::kToHost);
  queue_.wait();
}

void DeviceProgram::put_from(int buffer, const std::byte* data, std::size_t bytes) {
  device_->use();
  queue_.copy(address(buffer), data, bytes, CopyKind::kOnDevice);
}

void DeviceProgram::get_to(int buffer, std::byte* out, std::size_t bytes) const {
  device_->use();
  queue_.copy(out, address(buffer), bytes, CopyKind::kOnDevice);
  queue_.wait();
}

DeviceProgram::Bound& DeviceProgram::bound(int64 rows) {
  for (const auto& b : bindings_)
    if (b && b->binding.rows() == rows) return *b;
  auto made = std::make_unique<Bound>(*plan_, *this, device_, precision_, rows);
  oldest_ = (oldest_ + 1) % kMaxBindings;
  bindings_[oldest_] = std::move(made);
  return *bindings_[oldest_];
}

std::vector<DeviceWork> DeviceProgram::work(const DeviceBinding& binding, const DevicePass& pass) const {
  const DeviceApi& api = device_->api();
  DeviceStep* const at = step();
  const int64 rows = pass.rows;
  Accesses moves{{kStepRegion, 0, 1, true}}, gathers{{kStepRegion, 0, 1, false}};
  if (plan_->metric_doubles >= 2)
    moves.push_back({static_cast<int>(Space::kMetric), 0, 2 * sizeof(double), false});
  int64 row_elements = 0;
  for (const int input : pass.inputs) {
    gathers.push_back(access_of(*plan_, input, 0, rows, true));
    row_elements += plan_->buffers[static_cast<std::size_t>(input)].size.per_row;
  }
  std::vector<DeviceWork> found;
  for (const auto& [begin, end] : pass.batches) {
    if (pass.advances) found.push_back({moves, [&api, at](DeviceStream s) { api.advance(at, s); }});
    if (!pass.inputs.empty())
      found.push_back({gathers, [&api, at, rows, row_elements](DeviceStream s) {
                         api.gather(at, rows, row_elements, s);
                       }});
    for (const DeviceCall& call : binding.calls(begin, end)) {
      Accesses touched;
      for (int64 i = call.begin; i < call.end; ++i) add_accesses(*plan_, i, rows, touched);
      found.push_back(
          {std::move(touched), [&binding, call, at](DeviceStream s) { binding.launch(call, s, at); }});
    }
  }
  return found;
}

const DeviceSequence& DeviceProgram::sequence(const DevicePass& pass) {
  Bound& at = bound(pass.rows);
  for (const auto& [known, sequence] : at.graphs)
    if (known == pass) return *sequence;
  auto made = std::make_unique<DeviceSequence>(queue_, work(at.binding, pass));
  if (at.graphs.size() < kMaxGraphs) {
    at.graphs.emplace_back(pass, std::move(made));
    return *at.graphs.back().second;
  }
  queue_.wait();  // the one that goes may be running
  at.oldest = (at.oldest + 1) % kMaxGraphs;
  at.graphs[at.oldest] = {pass, std::move(made)};
  return *at.graphs[at.oldest].second;
}

void DeviceProgram::launch(const DevicePass& pass) { sequence(pass).launch(queue_); }

std::vector<std::vector<std::size_t>> DeviceProgram::order(const DevicePass& pass) {
  device_->use();
  return sequence(pass).after();
}

std::vector<DeviceCall> DeviceProgram::calls(int64 rows, int64 begin, int64 end) {
  device_->use();
  return bound(rows).binding.calls(begin, end);
}

void DeviceProgram::start(DeviceStep at, const double* params, int64 n_params) {
  const auto width = static_cast<std::size_t>(plan_->params_width());
  const std::size_t bytes = static_cast<std::size_t>(n_params) * width * sizeof(double);
  std::byte* table = head_.data() + params_at_;
  if (n_params == 1) {
    if (bytes > 0) std::memcpy(head_host_.data() + params_at_, params, bytes);
  } else if (bytes > 0) {
    if (!params_ || params_->bytes() < bytes) params_ = std::make_unique<DeviceBlock>(device_, bytes);
    table = params_->data();
    queue_.copy(table, params, bytes, CopyKind::kToDevice);
  }
  at.params = reinterpret_cast<const double*>(table);
  at.n_params = n_params;
  at.params_width = plan_->params_width();
  at.groups_width = 2 * plan_->n_groups;
  at.groups = at.params;
  at.dropout = at.groups + at.groups_width;
  std::memcpy(head_host_.data(), &at, sizeof at);
  const std::size_t metric_bytes = metrics_.size() * sizeof(double);
  if (metric_bytes > 0) std::memcpy(head_host_.data() + metrics_at_, metrics_.data(), metric_bytes);
  queue_.copy(head_.data(), head_host_.data(), head_.bytes(), CopyKind::kToDevice);
}

DeviceStep DeviceProgram::finish() {
  queue_.copy(head_host_.data(), head_.data(), head_.bytes(), CopyKind::kToHost);
  queue_.wait();
  staged_ = 0;
  const std::size_t metric_bytes = metrics_.size() * sizeof(double);
  if (metric_bytes > 0) std::memcpy(metrics_.data(), head_host_.data() + metrics_at_, metric_bytes);
  DeviceStep at;
  std::memcpy(&at, head_host_.data(), sizeof at);
  return at;
}

bool DeviceProgram::prepares(int64 begin, int64 end) const { return begin == 0 && end >= plan_->prepare; }

int64 DeviceProgram::begin_steps(int64 begin, int64 end) {
  launched_at_ = memory_->version();
  if (written_ & bit(Space::kParameter)) memory_->parameters_changed();
  return prepares(begin, end) && !memory_->is_stale(prepared_at_) ? plan_->prepare : begin;
}

void DeviceProgram::end_steps(int64 begin, int64 end) {
  if (prepares(begin, end)) prepared_at_ = launched_at_;
}

void DeviceProgram::run(int64 rows, int64 begin, int64 end, const DeviceStep& like, const double* params,
                        int64 times) {
  check(rows >= 0 && rows <= plan_->max_rows, "[plan] ", rows, " rows for a plan of at most ",
        plan_->max_rows);
  check(0 <= begin && begin <= end && end <= static_cast<int64>(plan_->steps.size()), "[plan] steps ", begin,
        " to ", end, " of ", plan_->steps.size());
  DeviceRun held(*this);
  for (int64 i = 0; i < times; ++i) {
    DeviceStep at = like;
    at.step += static_cast<std::uint64_t>(i);
    start(at, params, 1);
    launch({rows, false, {}, {{begin_steps(begin, end), end}}});
    (void)finish();
    end_steps(begin, end);
  }
  held.finish();
}

DeviceRun::DeviceRun(DeviceProgram& program) : program_(program), lease_(program.memory()) {
  program_.device_->use();
  program_.memory_->mirror()->begin_run(program_.used_);
}

DeviceRun::~DeviceRun() {
  if (finished_) return;
  (void)program_.device_->api().stream_wait(program_.queue_.stream());
  (void)program_.device_->api().launch_status();
  program_.staged_ = 0;
  try {
    program_.memory_->mirror()->end_run(program_.written_);
  } catch (const DeviceFault&) {
    (void)program_.device_->api().launch_status();  // the run's own error is on its way
  }
}

void DeviceRun::finish() {
  finished_ = true;
  program_.memory_->mirror()->end_run(program_.written_);
}

}  // namespace hotloop
