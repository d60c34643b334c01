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
  # Classes are of pybind11's metaclass, which no stub names; their members are compared one by one. A pass is made
  # by its network, on a device too, and memory of a device by that, so they have no constructor: pybind11's own takes
  # anything, and raises.
  (cd "$WORK" && "$TOOLS/bin/python" -m mypy.stubtest hotloop._core --ignore-disjoint-bases \
    --allowlist <(printf '%s\n' 'hotloop\._core\.[A-Z][A-Za-z]+' 'hotloop\._core\.(Pass|DevicePass|DeviceMemory)\.__init__'))
}

# The plain-C++ units are the fallback of every processor: the same tests once more with only them.
step_generic_isa() {
  (cd "$CLONE" && HOTLOOP_ISA=generic "$CLONE/.venv/bin/pytest" -q -n "$JOBS" tests/kernels tests/test_train_step.py)
}

# Tests against other libraries, all installed: here nothing is skipped that is not named below.
PEERS="jax jaxlib keras pandas polars pyarrow narwhals onnx onnxruntime lightning skorch optuna scipy"

# Files of tests and benchmarks that ask for a library which the other steps may lack.
peer_files() {
  local names
  names="torch|safetensors\.torch|${PEERS// /|}"
  printf '%s\n' tests/project/test_docs.py tests/project/test_examples.py # pages and examples of which some need them
  grep -rlE "importorskip\(\"($names)[\".]|^(import|from) ($names)\b|^# needs: ($names)" tests bench --include='*.py' |
    grep -E '/test_[^/]+$|^bench/'
}

# Skips that are right even with everything there: what another machine or interpreter would run.
MAY_SKIP='mlflow is not installed|wandb is not installed|SCIPY_ARRAY_API is not set|does not have a decision_function'

step_torch() {
  if ! "$CLONE/.venv/bin/pip" install -q torch==2.13.0; then
    echo "no wheel of torch 2.13.0 for this machine"; return "$SKIP"
  fi
  # shellcheck disable=SC2086
  "$CLONE/.venv/bin/pip" install -q $PEERS
  # The benchmarks of GPUs do the work of torch's, which tests compare on the emulator.
  simt_build _simt
  cp "$WORK/simt/_simt.so" "$("$CLONE/.venv/bin/python" -c 'import hotloop, pathlib; print(pathlib.Path(hotloop.__file__).parent)')"
  local files log=$WORK/torch.log rc=0 skipped
  mapfile -t files < <(cd "$CLONE" && peer_files)
  echo "${files[*]}"
  # Another library's warnings are its own affair; ours stay errors.
  (cd "$CLONE" && "$CLONE/.venv/bin/pytest" -q -p no:benchmark -W default::DeprecationWarning \
    -W default::FutureWarning "${files[@]}") | tee "$log" || rc=$?
  skipped=$(grep '^SKIPPED' "$log" | grep -vE "$MAY_SKIP" || true)
  if [[ -n $skipped ]]; then
    printf 'skipped, though everything is installed:\n%s\n' "$skipped"; rc=1
  fi
  return "$rc"
}

# The report page in headless Chromium; Debian's is installed where there is none.
step_browser() {
  if ! command -v chromium >/dev/null && ! command -v google-chrome >/dev/null; then
    command -v apt-get >/dev/null || { echo "no Chromium, and no apt-get to install it"; return "$SKIP"; }
    apt-get update -q && apt-get install -y -q --no-install-recommends chromium ||
      { echo "Chromium cannot be installed here"; return "$SKIP"; }
  fi
  (cd "$CLONE" && "$CLONE/.venv/bin/pytest" -q tests/report/test_report_browser.py)
}
