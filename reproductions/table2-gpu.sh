#!/usr/bin/env bash
# Rows of Table 2 (table2.toml) on one GPU, with its batches, in slices.
#
#   ROWS=a,d SEEDS=0 bash reproductions/table2-gpu.sh DATA OUT [RESULTS] [realm study options]
#
# Somewhere below DATA lie squad_open_passages.jsonl.gz, squad_open.train.jsonl.gz,
# squad_open.dev.jsonl.gz and simplewiki*.jsonl*, of which 410 articles are read: where it must be
# small, `shared_titles.py` writes them out beforehand. MINILM is a folder with all-MiniLM (default:
# the one of the package). Slices, and what RESULTS gets: as gpu.sh. A slice loses the steps since
# the last checkpoint, half a minute of them, or the measurement that was under way.
set -eu
data=$1 out=$2 results=${3:-}
shift $(($# < 3 ? $# : 3))
here=$(dirname "$0")
. "$here"/slices.sh
minilm=${MINILM:-minilm}
seeds=${SEEDS:-0}
squad=$(found squad_open_passages)
simple=$(found simplewiki)
train=$(found squad_open.train)
dev=$(found squad_open.dev)

realm study "$here"/table2.toml --device "${DEVICE:-cuda}" --processes "$(nproc)" \
  --passages "$squad" --also "$simple" --train "$train" --dev "$dev" --out "$out" \
  --rows "${ROWS:-a,d}" --seeds "$seeds" --tokenizer "$minilm" \
  --set index.batch_tokens=65536 \
  --set ict.encoder.init=scratch:2x256 --set ict.batch_size=256 --set ict.keep_checkpoints=1 \
  --set ict.batch_tokens=65536 \
  --set mlm.encoder.init="$minilm" --set mlm.batch_size=64 --set mlm.batch_tokens=32768 \
  --set pretrain.batch_size=64 --set pretrain.num_candidates=12 \
  --set pretrain.batch_tokens=32768 --set pretrain.save_every_steps=60 \
  --set pretrain.eval_every_steps=80 --set pretrain.refresh.shard_rows=65536 \
  --set finetune.batch_tokens=32768 "$@"
for row in $(echo "${PACK:-a}" | tr , ' '); do
  run=$out/seed-${seeds%%,*}/finetune-$row
  [ ! -d "$run" ] || realm pack "$run" --out "$out/packed/$row"
done
echo "all done"
