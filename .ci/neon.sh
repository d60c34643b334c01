# 64-bit ARM without such a machine: cross-compiled with warnings as errors, and run in qemu-user.

step_neon() {
  local missing=()
  command -v aarch64-linux-gnu-g++ >/dev/null || missing+=(g++-aarch64-linux-gnu)
  command -v qemu-aarch64 >/dev/null || missing+=(qemu-user)
  if ((${#missing[@]})) &&
    ! { apt-get update -q && apt-get install -y -q --no-install-recommends "${missing[@]}"; }; then
    echo "cannot install ${missing[*]} here"; return "$SKIP"
  fi
  "$TOOLS/bin/cmake" --preset neon -B "$WORK/neon" -DCMAKE_MAKE_PROGRAM="$TOOLS/bin/ninja" >/dev/null
  "$TOOLS/bin/ninja" -C "$WORK/neon" -j "$JOBS" --quiet
  "$TOOLS/bin/ctest" --test-dir "$WORK/neon" --output-on-failure
  check_objects "$WORK/neon" aarch64-linux-gnu-nm
}
