// SPDX-License-Identifier: Apache-2.0
#pragma once

namespace hotloop {

// Processors this process may use: its affinity mask, limited by a cgroup's CPU quota (rounded up),
// which is looked up once a second.
int cpu_count();

}  // namespace hotloop
