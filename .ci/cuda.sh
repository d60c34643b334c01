# The CUDA part without a GPU: it compiles, it loads without a driver, and its machine code is what was meant.

# One architecture without matrix units, one with cp.async and mma, one of Hopper: the three shapes that the code takes.
CUDA_ARCHS="75;80;90a"

# An nvcc on PATH, else the compiler's wheels into the tools' environment; then the disassemblers, which toolkits
# may lack and wheels have.
find_cuda_tools() {
  # the very requirements of pyproject.toml
  # shellcheck disable=SC2046
  if ! command -v nvcc >/dev/null && [[ -z ${CUDA_HOME:-} ]]; then
    "$TOOLS/bin/pip" install -q $(grep -oE 'nvidia-[a-z-]+==[0-9.*]+' pyproject.toml) ||
      { echo "no nvcc, and its wheels cannot be installed here"; return "$SKIP"; }
  fi
  mkdir -p "$WORK/disassemblers"
  if ! command -v cuobjdump >/dev/null || ! command -v nvdisasm >/dev/null; then
    "$TOOLS/bin/pip" install -q --target "$WORK/disassemblers" nvidia-cuda-cuobjdump nvidia-cuda-nvdisasm ||
      { echo "no cuobjdump and nvdisasm, and their wheels cannot be installed here"; return "$SKIP"; }
  fi
}

# The package with the CUDA part, from the build folder of step_strict_build if that ran: then only that part is new.
step_cuda_build() {
  find_cuda_tools || return "$?"
  "$TOOLS/bin/pip" wheel . -q --no-deps --no-build-isolation -w "$WORK/cuda_wheel" -C build-dir="$WORK/build" \
    -C cmake.define.HOTLOOP_WERROR=ON -C cmake.define.HOTLOOP_CUDA=ON -C "cmake.define.HOTLOOP_CUDA_ARCHS=$CUDA_ARCHS"
  "$TOOLS/bin/python" .ci/check_wheel.py --cuda "$WORK"/cuda_wheel/hotloop-*.whl
  # Drivers that are missing, broken or old, beside the library as built.
  "$TOOLS/bin/pip" install -q --no-deps --target "$WORK/cuda_site" "$WORK"/cuda_wheel/hotloop-*.whl
  PYTHONPATH=$WORK/cuda_site "$TOOLS/bin/python" -m pytest -q tests/runtime/test_device_library.py
}

step_cuda_guards() {
  find_cuda_tools || return "$?"
  local folder=$WORK/build/_cuda path
  [[ -d $folder ]] || { echo "step cuda_build left no objects"; return 1; }
  path=$(find "$WORK/disassemblers" -type d -name bin -printf '%p:')
  PATH=$path$PATH "$TOOLS/bin/python" .ci/check_cuda.py "$folder"
  # The kernel nearest to its 64 registers, for the architecture whose compiler wants most of them: no spills.
  local nvcc
  nvcc=$(sed -n 's/^HOTLOOP_NVCC:[A-Z]*=//p' "$WORK/build/CMakeCache.txt")
  "$nvcc" -std=c++20 -O3 -gencode=arch=compute_120,code=sm_120 -Icsrc -diag-suppress 1675 -Xcompiler -fPIC \
    -Xptxas -warn-spills,-Werror -c csrc/kernels/cross_entropy_cuda.cu -o "$WORK/cross_entropy_sm_120.o"
}

# The command for machines with a GPU, on the emulator: each of its parts, tiny.
step_gpu_check() {
  simt_build _simt
  PYTHONPATH=$(simt_site _simt) "$TOOLS/bin/python" tools/gpu_check.py --device simt --out "$WORK/gpu_check"
}
