// SPDX-License-Identifier: Apache-2.0
// The least a test needs: CHECK counts and prints what failed, and main returns the count.
#pragma once

#include <cstdio>

namespace test {

inline int failures = 0;

inline void check(bool passed, const char* what, const char* file, int line) {
  if (passed) return;
  ++failures;
  std::fprintf(stderr, "%s:%d: failed: %s\n", file, line, what);
}

inline int report(const char* name) {
  std::printf("%s: %s\n", name, failures == 0 ? "passed" : "FAILED");
  return failures == 0 ? 0 : 1;
}

}  // namespace test

#define CHECK(condition) ::test::check((condition), #condition, __FILE__, __LINE__)
