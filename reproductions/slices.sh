# For scripts on a machine that is lent by the minute: sourced by them, not run.
#
# `out` is the folder of all that is made, `results` the one that is taken home, or empty. A call
# works for SLICE seconds (default 540) and a quarter of a minute at most, and then stops; what
# it had finished, and the newest checkpoint, is gone on from.
end=$((SECONDS + ${SLICE:-540}))
mkdir -p "$out"

realm() { # a verb, for what is left of the slice
  left=$((end - SECONDS)) code=0
  [ "$left" -gt "${LEAST:-20}" ] || over
  # What ignores the signal (a shell in the background hands that on) is killed: no run minds.
  timeout --signal INT --kill-after "${PATIENCE:-15}" "$left" python3 -m realm "$@" || code=$?
  case $code in
    0) ;;
    124 | 137) over ;;
    *) exit "$code" ;;
  esac
}

over() {
  echo "slice over; call again to go on"
  exit 0
}

found() { # the data file of a name, whatever folder it lies in and however it is compressed
  file=$(find -L "$data" -name "$1*" -type f | sort | head -n 1)
  [ -n "$file" ] || { echo "error: found no $1* below $data" >&2; exit 2; }
  echo "$file"
}

gather() { # logs, reports and the packed model, in files of 15 MiB: no checkpoint is that small
  [ -n "$results" ] || return 0
  mkdir -p "$results"
  (
    cd "$out"
    find . -type f \( -name '*.json' -o -name '*.jsonl' -o -name '*.md' \) ! -path '*/.*' \
      ! -name tokenizer.json -size -16M -print0 | tar -czf - --null -T -
  ) | split -b "${PART:-15m}" - "$results/results.tar.gz."
  [ ! -d "$out/packed" ] ||
    tar -cf - -C "$out" packed | split -b "${PART:-15m}" - "$results/packed.tar."
}
trap gather EXIT
