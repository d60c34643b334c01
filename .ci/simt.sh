# The CUDA kernels on the emulator: as they are, watched for races, and under the sanitizers of memory. One build
# folder serves the three; each adds its libraries. The core is the strict build's, from the wheel.

simt_build() { # simt_build TARGET ...
  "$TOOLS/bin/cmake" -S . -B "$WORK/simt" -G Ninja -DCMAKE_MAKE_PROGRAM="$TOOLS/bin/ninja" -DHOTLOOP_WERROR=ON \
    -DHOTLOOP_SIMT=ON >/dev/null
  "$TOOLS/bin/ninja" -C "$WORK/simt" -j "$JOBS" --quiet "$@"
}

# The installed package with a library of the emulator in the place of the plain one.
simt_site() { # simt_site LIBRARY
  local site=$WORK/site_$1
  rm -rf "$site" && mkdir -p "$site"
  cp -r "$("$TOOLS/bin/python" -c 'import hotloop, pathlib; print(pathlib.Path(hotloop.__file__).parent)')" "$site/hotloop"
  cp "$WORK/simt/$1.so" "$site/hotloop/_simt.so"
  echo "$site"
}

simt_pytest() { "$TOOLS/bin/python" -m pytest -q -n "$JOBS" -p no:benchmark -p no:cacheprovider "$@"; }

# In the order of the launch, then with threads, blocks, copies and streams as they like.
step_simt() {
  simt_build _simt simt_mutants_plain simt_mutants_race simt_mutants_asan
  local site
  site=$(simt_site _simt)
  PYTHONPATH=$site HOTLOOP_SIMT_BUILD=$WORK/simt simt_pytest tests/gpu tests/simt
  HOTLOOP_SIMT="random=1 eager deferred" PYTHONPATH=$site simt_pytest tests/gpu
  HOTLOOP_SIMT=reversed PYTHONPATH=$site simt_pytest tests/gpu/test_kernels.py tests/gpu/test_rows.py
}

step_simt_race() {
  simt_build _simt_race
  HOTLOOP_SIMT=random=2 PYTHONPATH=$(simt_site _simt_race) simt_pytest tests/gpu
}

step_simt_asan() {
  simt_build _simt_asan
  LD_PRELOAD="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libubsan.so)" \
    ASAN_OPTIONS=detect_leaks=0:use_sigaltstack=0 UBSAN_OPTIONS=print_stacktrace=1:halt_on_error=1 \
    PYTHONPATH=$(simt_site _simt_asan) simt_pytest tests/gpu
}
