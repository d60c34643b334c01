# What can be said about the sources without running them.

step_lint_python() { "$TOOLS/bin/ruff" check . && "$TOOLS/bin/ruff" format --check .; }

step_lint_types() { "$TOOLS/bin/mypy" --python-executable "$TOOLS/bin/python"; }

step_lint_cpp() {
  find csrc tests/cpp tests/simt \( -name '*.cc' -o -name '*.h' -o -name '*.cu' -o -name '*.cuh' \) -print0 |
    xargs -0 "$TOOLS/bin/clang-format" --dry-run -Werror
}

step_lint_tidy() {
  local PATH=$TOOLS/bin:$PATH  # clang-tidy is found there while the units compile, too
  cmake --preset tidy -B "$WORK/tidy" >/dev/null
  ninja -C "$WORK/tidy" -j "$JOBS" --quiet
}

step_lint_size() { "$TOOLS/bin/python" tools/size.py; }
