# Memory errors, undefined behaviour and data races: the C++ tests alone, then the Python tests over an
# instrumented extension.

# Lines for reports, and no places of variables: to follow those through the tiles takes longer than all else.
configure_and_build() { # configure_and_build FOLDER SANITIZERS [cmake options]
  local folder=$1 sanitizers=$2
  shift 2
  "$TOOLS/bin/cmake" -S . -B "$folder" -G Ninja -DCMAKE_MAKE_PROGRAM="$TOOLS/bin/ninja" \
    -DCMAKE_BUILD_TYPE=RelWithDebInfo -DCMAKE_CXX_FLAGS_RELWITHDEBINFO="-O2 -g1 -DNDEBUG" -DHOTLOOP_WERROR=ON -DHOTLOOP_SANITIZE="$sanitizers" "$@" >/dev/null
  "$TOOLS/bin/ninja" -C "$folder" -j "$JOBS" --quiet
}

# One build serves both: the C++ tests and the extension.
build_asan() {
  local version
  version=$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)
  configure_and_build "$WORK/asan" address,undefined -DHOTLOOP_TESTS=ON -DSKBUILD=ON -DSKBUILD_PROJECT_VERSION="$version" \
    -Dpybind11_DIR="$("$TOOLS/bin/python" -m pybind11 --cmakedir)" -DPython_EXECUTABLE="$TOOLS/bin/python"
}

step_cpp_asan() {
  build_asan
  "$TOOLS/bin/ctest" --test-dir "$WORK/asan" --output-on-failure
}

step_python_asan() {
  local site=$WORK/asan_site
  build_asan
  mkdir -p "$site"
  cp -r python/hotloop "$site/hotloop"
  cp "$WORK"/asan/_core*.so "$site/hotloop/"
  # The interpreter itself is not instrumented, so leaks are left to the C++ tests. Left out: what tests the
  # clone and the stub, not the code, and what is mostly other libraries: scikit-learn, matplotlib, pyarrow, and the
  # command line over them.
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:use_sigaltstack=0 \
    UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 PYTHONPATH="$site" \
    timeout 1200 "$TOOLS/bin/python" -m pytest -q -n "$JOBS" -p no:benchmark -p no:cacheprovider \
    tests --ignore=tests/project/test_packaging.py --ignore=tests/project/test_stubs.py --ignore=tests/test_accuracy.py \
    --ignore=tests/report/test_report.py --ignore=tests/report/test_report_browser.py --ignore=tests/sklearn_ --ignore=tests/data \
    --ignore=tests/export --ignore=tests/cli --ignore=tests/project/test_docs.py --ignore=tests/project/test_examples.py \
    --ignore=tests/test_benchmarks.py --ignore=tests/test_bench_peers.py
}

step_cpp_tsan() {
  configure_and_build "$WORK/tsan" thread -DHOTLOOP_TESTS=ON
  "$TOOLS/bin/ctest" --test-dir "$WORK/tsan" --output-on-failure
}
