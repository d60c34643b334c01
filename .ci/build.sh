# The wheel as users get it, built with warnings as errors, and what must be true of it.

step_strict_build() {
  # Installing through the wheel also proves that the wheel is complete.
  "$TOOLS/bin/pip" wheel . -q --no-deps --no-build-isolation -w "$WORK/wheel" \
    -C cmake.define.HOTLOOP_WERROR=ON -C build-dir="$WORK/build"
  "$TOOLS/bin/pip" install -q --no-deps "$WORK"/wheel/hotloop-*.whl
}

step_wheel() { "$TOOLS/bin/python" .ci/check_wheel.py "$WORK"/wheel/hotloop-*.whl; }

# Units for one instruction set must hold nothing that runs at load time or that the linker could share.
check_objects() { # check_objects BUILD_FOLDER NM
  local object found=0 name
  while IFS= read -r -d '' object; do
    found=1
    if readelf -SW "$object" | grep -E '\.(init_array|ctors)'; then
      echo "$object runs code when the library is loaded"; return 1
    fi
    name=$(sed -E 's/.*hotloop_kernels_([a-z0-9]+)\.dir.*/\1/' <<<"$object")
    if "$2" -C --defined-only --extern-only "$object" | grep -v "hotloop::$name::"; then
      echo "$object defines symbols outside hotloop::$name"; return 1
    fi
  done < <(find "$1" -path '*hotloop_kernels_*' -name '*.o' -print0)
  ((found)) || { echo "no object files of kernels in the build folder"; return 1; }
  find "$1" \( -path '*hotloop_kernels_avx*' -o -path '*hotloop_kernels_neon*' \) -name 'matmul_cpu.cc.o' -print0 |
    xargs -0 --no-run-if-empty "$TOOLS/bin/python" .ci/check_tiles.py
}

step_objects() { check_objects "$WORK/build" nm; }

step_stubs() {
  "$TOOLS/bin/python" tools/stubs.py --check
  # Classes are of pybind11's metaclass, which no stub names; their members are compared one by one.
  (cd "$WORK" && "$TOOLS/bin/python" -m mypy.stubtest hotloop._core --ignore-disjoint-bases \
    --allowlist <(echo 'hotloop\._core\.[A-Z][A-Za-z]+'))
}

# The plain-C++ units are the fallback of every processor: the same tests once more with only them.
step_generic_isa() {
  (cd "$CLONE" && HOTLOOP_ISA=generic "$CLONE/.venv/bin/pytest" -q -n "$JOBS" tests/kernels tests/test_train_step.py)
}

step_torch() {
  if ! "$CLONE/.venv/bin/pip" install -q torch==2.13.0; then
    echo "no wheel of torch 2.13.0 for this machine"; return "$SKIP"
  fi
  # Keras computes on torch here; without it only its own comparisons are left out.
  "$CLONE/.venv/bin/pip" install -q keras || echo "no wheel of keras for this machine"
  local files
  mapfile -t files < <(cd "$CLONE" && grep -rlE 'importorskip\("torch"\)|^import torch|^from torch' tests bench --include='*.py')
  files+=(tests/test_examples.py)  # some of them need torch
  echo "${files[*]}"
  # Another library's warnings are its own affair; ours stay errors.
  (cd "$CLONE" && "$CLONE/.venv/bin/pytest" -q -p no:benchmark -W default::DeprecationWarning \
    -W default::FutureWarning "${files[@]}")
}

# The report page in headless Chromium; Debian's is installed where there is none.
step_browser() {
  if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
    command -v apt-get >/dev/null || { echo "no Chromium, and no apt-get to install it"; return "$SKIP"; }
    apt-get update -q && apt-get install -y -q --no-install-recommends chromium ||
      { echo "Chromium cannot be installed here"; return "$SKIP"; }
  fi
  (cd "$CLONE" && "$CLONE/.venv/bin/pytest" -q tests/test_report_browser.py)
}
