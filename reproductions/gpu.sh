#!/usr/bin/env bash
# Joint pre-training on Wikipedia text at the paper's batch size, on one GPU, in slices.
#
#   bash reproductions/gpu.sh DATA OUT [RESULTS]
#
# Somewhere below DATA lie simplewiki*.jsonl.gz and enwiki*.jsonl.gz (X and Z),
# squad_open_passages.jsonl.gz, squad_open.train.jsonl.gz, squad_open.dev.jsonl.gz and
# nq_open*dev.jsonl.gz, one article or question a line. A call works for at most SLICE seconds
# (default 540) and then stops; the same call goes on where it was, until it says that all is done.
# A slice loses a minute at most, but masking, which takes two and is not taken up again: leave the
# first one that long. RESULTS gets logs, reports and the packed model, whatever the end (tar, in
# files of 15 MiB: `cat packed.tar.* | tar x`). Figures: docs/reproductions.md.
set -eu
data=$1 out=$2 results=${3:-}
here=$(dirname "$0")
. "$here"/slices.sh
processes=$(nproc)

stage() { # with its settings
  realm "$@" --config "$here"/gpu.toml
}

simple=$(found simplewiki)
english=$(found enwiki)
squad=$(found squad_open_passages)
train=$(found squad_open.train)
dev=$(found squad_open.dev)
nq=$(found "nq_open.*dev")

stage split "$simple" "$english" --out "$out"/wiki --processes "$processes" --quiet
stage split "$squad" --out "$out"/squad --processes "$processes" --quiet \
  --set "drop_titles=[]" --set max_wordpieces=288
stage mask "$out"/wiki --out "$out"/wiki-masked --processes "$processes" --quiet
stage mask "$out"/squad --out "$out"/squad-masked --processes "$processes" --quiet
stage ict "$out"/wiki --out "$out"/ict
stage mlm "$out"/squad --examples "$out"/squad-masked --out "$out"/mlm
stage pretrain "$out"/wiki-masked "$out"/wiki --embedder "$out"/ict --encoder "$out"/mlm \
  --out "$out"/pretrain
stage finetune "$train" "$out"/squad --model "$out"/pretrain --out "$out"/qa
realm pack "$out"/qa --out "$out"/packed
stage evaluate "$dev" --model "$out"/qa --out "$out"/squad.json
stage evaluate "$nq" --model "$out"/qa --passages "$out"/wiki --out "$out"/nq.json
echo "all done"
