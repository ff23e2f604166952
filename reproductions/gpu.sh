#!/usr/bin/env bash
# Joint pre-training on Wikipedia text at the paper's batch size, on one GPU, in slices.
#
#   bash reproductions/gpu.sh DATA OUT
#
# DATA holds simplewiki.jsonl.gz and enwiki.jsonl.gz (X and Z), squad_open_passages.jsonl.gz,
# squad_open.train.jsonl.gz, squad_open.dev.jsonl.gz and nq_open.dev.jsonl.gz, one article or
# question a line. A call works for at most SLICE seconds (default 540) and then stops; the same
# call goes on where it was, until it says that all is done. Figures: docs/reproductions.md.
set -eu
data=$1 out=$2
end=$((SECONDS + ${SLICE:-540}))
config=$(dirname "$0")/gpu.toml
processes=$(nproc)
mkdir -p "$out"

realm() { # a verb, for what is left of the slice
  left=$((end - SECONDS))
  [ "$left" -gt 5 ] || { echo "slice over; call again to go on"; exit 0; }
  timeout --signal INT "$left" python3 -m realm "$@" --config "$config" || {
    code=$?
    [ $code -ne 124 ] || { echo "slice over; call again to go on"; exit 0; }
    exit $code
  }
}

realm split "$data"/simplewiki.jsonl.gz "$data"/enwiki.jsonl.gz --out "$out"/wiki \
  --processes "$processes" --quiet
realm split "$data"/squad_open_passages.jsonl.gz --out "$out"/squad --processes "$processes" \
  --quiet --set "drop_titles=[]" --set max_wordpieces=288
realm mask "$out"/wiki --out "$out"/wiki-masked --processes "$processes" --quiet
realm mask "$out"/squad --out "$out"/squad-masked --processes "$processes" --quiet
realm ict "$out"/wiki --out "$out"/ict
realm mlm "$out"/squad --examples "$out"/squad-masked --out "$out"/mlm
realm pretrain "$out"/wiki-masked "$out"/wiki --embedder "$out"/ict --encoder "$out"/mlm \
  --out "$out"/pretrain
realm finetune "$data"/squad_open.train.jsonl.gz "$out"/squad --model "$out"/pretrain \
  --out "$out"/qa
realm evaluate "$data"/squad_open.dev.jsonl.gz --model "$out"/qa --out "$out"/squad.json
realm evaluate "$data"/nq_open.dev.jsonl.gz --model "$out"/qa --passages "$out"/wiki \
  --out "$out"/nq.json
echo "all done"
