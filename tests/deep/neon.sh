#!/usr/bin/env bash
# The Python tests of kernels, ops and training on 64-bit ARM, run by qemu-user: tests/deep/neon.sh [pytest arguments]
# Debian's Python for arm64, the wheels and the cross-compiled extension stay in $FOLDER for the next time.
# Needs root (debootstrap), g++-aarch64-linux-gnu, qemu-user, and as $PYTHON an interpreter of version 3.11, as
# Debian 12 has it, with pip, pybind11, cmake and ninja. The emulator starts no other ARM program, so tests
# that do are left out, and so are those that need more than numpy and pytest.
set -euo pipefail
cd "$(dirname "$0")/../.."
PYTHON=${PYTHON:-python3}
FOLDER=${FOLDER:-${TMPDIR:-/tmp}/hotloop_arm64}
ROOT=$FOLDER/root SITE=$FOLDER/site BUILD=$FOLDER/build
TESTS=(tests/kernels tests/rules tests/compile tests/nn tests/test_train_step.py tests/test_trainer.py
       tests/test_losses.py tests/test_metrics.py)

PATH=$(dirname "$(command -v "$PYTHON")"):$PATH  # cmake and ninja of the same environment
"$PYTHON" -c 'import sys; sys.exit(sys.version_info[:2] != (3, 11))' || { echo "$PYTHON is not Python 3.11"; exit 1; }

# Unpacked and not configured: nothing of it is run but the interpreter.
if [[ ! -x $ROOT/usr/bin/python3.11 ]]; then
  debootstrap --arch=arm64 --foreign --variant=minbase --include=libpython3-dev,python3 bookworm "$ROOT"
  for package in "$ROOT"/var/cache/apt/archives/*.deb; do dpkg -x "$package" "$ROOT"; done
fi

if [[ ! -d $SITE/numpy ]]; then
  "$PYTHON" -m pip download -q -d "$FOLDER/wheels" --only-binary=:all: --implementation cp --python-version 311 \
    --abi cp311 --abi abi3 --abi none --platform manylinux_2_28_aarch64 --platform manylinux_2_27_aarch64 \
    --platform manylinux2014_aarch64 numpy safetensors pytest pytest-timeout hypothesis
  for wheel in "$FOLDER"/wheels/*.whl; do "$PYTHON" -m zipfile -e "$wheel" "$SITE"; done
fi

include=$ROOT/usr/include
cmake -S . -B "$BUILD" -G Ninja --toolchain cmake/aarch64-linux-gnu.cmake -DHOTLOOP_WERROR=ON -DSKBUILD=ON \
  -DSKBUILD_PROJECT_VERSION="$(sed -n 's/^version = "\(.*\)"$/\1/p' pyproject.toml)" \
  -Dpybind11_DIR="$("$PYTHON" -m pybind11 --cmakedir)" -DPython_EXECUTABLE="$(command -v "$PYTHON")" \
  -DPython_INCLUDE_DIR="$include/python3.11" -DPYTHON_MODULE_EXTENSION=.cpython-311-aarch64-linux-gnu.so \
  -DCMAKE_CXX_FLAGS="-isystem $include/aarch64-linux-gnu/python3.11 -isystem $include" >/dev/null
cmake --build "$BUILD" --target _core -j2
rm -rf "$FOLDER/package"
mkdir -p "$FOLDER/package"
cp -r python/hotloop "$FOLDER/package/"
rm -f "$FOLDER"/package/hotloop/_core*.so
cp "$BUILD"/_core*.so "$FOLDER/package/hotloop/"

# CI: hypothesis sets no deadlines, which an emulator would miss.
export CI=true PYTHONPATH=$FOLDER/package:$SITE PYTHONHOME=/usr PYTHONDONTWRITEBYTECODE=1
exec qemu-aarch64 -L "$ROOT" "$ROOT/usr/bin/python3.11" -m pytest -q -p no:cacheprovider --timeout=1800 "${TESTS[@]}" "$@"
