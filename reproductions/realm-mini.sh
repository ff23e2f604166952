#!/usr/bin/env bash
# realm-mini, the model that ships, from the start; resumable: the same call goes on where it was.
#
#   bash reproductions/realm-mini.sh DATA OUT
#
# DATA holds squad_open_passages.jsonl.gz, nq_gold_passages.jsonl.gz, simplewiki_2021.jsonl.gz,
# enwiki_sample_2019.jsonl.gz, squad_open.train.jsonl.gz, squad_open.dev.jsonl.gz,
# nq_open.train_partial.jsonl.gz, webquestions.train.jsonl.gz and curatedtrec.train.jsonl.gz. About
# ten hours on two cores, most of it fine-tuning and the index of all four corpora; two processes
# share the fine-tuning. Figures: docs/log.md, entries 23 and 39.
set -eu
data=$1 out=$2
config=$(dirname "$0")/realm-mini.toml
mkdir -p "$out"

realm() { python3 -m realm "$@" --config "$config"; }

realm split "$data"/squad_open_passages.jsonl.gz --out "$out"/passages
realm mask "$out"/passages --out "$out"/examples
realm ict "$out"/passages --out "$out"/ict
realm mlm "$out"/passages --examples "$out"/examples --out "$out"/mlm
realm pretrain "$out"/examples "$out"/passages --embedder "$out"/ict --encoder "$out"/mlm \
  --out "$out"/pretrain
# Its validation part is for measuring. (The weights that ship have seen about 60 of it.)
zcat "$data"/webquestions.train.jsonl.gz | grep -v '"subsplit": "val"' > "$out"/webquestions.jsonl
OMP_NUM_THREADS=1 torchrun --nproc-per-node=2 -m realm finetune \
  "$data"/squad_open.train.jsonl.gz "$out"/passages --model "$out"/ict --encoder "$out"/pretrain \
  --also "$data"/nq_open.train_partial.jsonl.gz:0.1 --also "$out"/webquestions.jsonl:0.5 \
  --also "$data"/curatedtrec.train.jsonl.gz:0.7 --out "$out"/qa --config "$config"

# Questions that nobody wrote while looking at a passage, over all text there is; then the mean of
# the weights before and after, which keeps what the first fine-tuning learned.
realm split "$data"/{simplewiki_2021,enwiki_sample_2019,nq_gold_passages,squad_open_passages}.jsonl.gz \
  --out "$out"/wikipedia
OMP_NUM_THREADS=1 torchrun --nproc-per-node=2 -m realm finetune \
  "$data"/nq_open.train_partial.jsonl.gz "$out"/wikipedia --model "$out"/qa \
  --also "$data"/squad_open.train.jsonl.gz:0.2 --also "$out"/webquestions.jsonl:5 \
  --also "$data"/curatedtrec.train.jsonl.gz:1.5 --out "$out"/qa-users --config "$config" \
  --set steps=1000 --set optimizer.learning_rate=1e-4
python3 -m realm average "$out"/qa "$out"/qa-users --out "$out"/averaged
python3 -m realm pack "$out"/averaged --out "$out"/realm-mini
# On development questions: several answers count as right there, in training questions one.
realm calibrate "$data"/squad_open.dev.jsonl.gz --model "$out"/realm-mini \
  --passages "$out"/passages --set limit=1000
realm evaluate "$data"/squad_open.dev.jsonl.gz --model "$out"/realm-mini \
  --passages "$out"/passages --out "$out"/squad.json
echo "all done; the model is in $out/realm-mini"
