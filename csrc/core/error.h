// SPDX-License-Identifier: Apache-2.0
// Broken invariants of hotloop's own. The caller's mistakes are found in Python, at the border; what is
// thrown here reaches the user as hotloop.InternalError.
#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace hotloop {

class InternalError : public std::runtime_error {
 public:
  using std::runtime_error::runtime_error;
};

// Throws InternalError with the parts written one after another, unless the condition holds.
template <class... Parts>
void check(bool condition, const Parts&... parts) {
  if (condition) return;
  std::ostringstream text;
  (text << ... << parts);
  throw InternalError(text.str());
}

}  // namespace hotloop
