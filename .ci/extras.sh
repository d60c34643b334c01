# Each extra alone: the wheel in a fresh environment with that extra and nothing else, and a real job done with it.

# torch is left to the step of its name, which installs it once; the others are tools of developers.
NOT_ALONE="bench dev test torch"

step_extras() {
  local wheel extra env
  wheel=$(find "$WORK/wheel" -name 'hotloop-*.whl' 2>/dev/null | head -1)
  if [[ -z $wheel ]]; then
    "$TOOLS/bin/pip" wheel . -q --no-deps --no-build-isolation -w "$WORK/wheel"
    wheel=$(find "$WORK/wheel" -name 'hotloop-*.whl')
  fi
  for extra in none $("$TOOLS/bin/python" .ci/check_extras.py --list "$NOT_ALONE"); do
    env=$WORK/extras/$extra
    python3 -m venv --without-pip "$env"
    # pip of the tools: an environment of its own needs none, and the cache is shared
    "$TOOLS/bin/pip" --python "$env/bin/python" install -q "$wheel$([[ $extra == none ]] || echo "[$extra]")"
    (cd "$env" && "$env/bin/python" -W error "$ROOT/.ci/check_extras.py" "$extra")
    rm -rf "$env"
  done
}
