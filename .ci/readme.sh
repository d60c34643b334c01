# The README's promises, word for word, in a copy that holds only what a clone would.

# readme_block NAME: the text of the code block that follows <!-- ci:NAME --> in README.md.
readme_block() {
  awk -v mark="<!-- ci:$1 -->" '$0 == mark { found = 1; next }
    found && /^```/ { if (inside) exit; inside = 1; next }
    inside { print }' README.md
}

run_readme_command() {
  local command
  command=$(readme_block "$1")
  [[ -n $command && $(wc -l <<<"$command") == 1 ]] || { echo "README.md has no one-line block ci:$1"; return 1; }
  echo "\$ $command"
  (cd "$CLONE" && time bash -euo pipefail -c "$command")
}

step_readme_train() { run_readme_command train; }
step_readme_test() { run_readme_command test; }

step_readme_example() {
  readme_block example >"$WORK/example.py"
  [[ -s $WORK/example.py ]] || { echo "README.md has no block ci:example"; return 1; }
  (cd "$WORK" && "$CLONE/.venv/bin/python" -W error example.py)
}

step_examples() {
  local script library
  for script in "$CLONE"/examples/*.py; do
    echo "--- ${script##*/}"
    library=$(sed -nE 's/^# needs: (\w+).*/\1/p' "$script")
    if [[ -n $library ]] && ! "$CLONE/.venv/bin/python" -c "import $library" 2>/dev/null; then
      echo "skipped: $library is not installed"
      continue
    fi
    (cd "$WORK" && "$CLONE/.venv/bin/python" -W error "$script")
  done
}
