#!/usr/bin/env bash
# realm-mini, the model that ships, from the start; resumable: the same call goes on where it was.
#
#   bash reproductions/realm-mini.sh DATA OUT
#
# DATA holds squad_open_passages.jsonl.gz, nq_gold_passages.jsonl.gz, simplewiki_2021.jsonl.gz,
# enwiki_sample_2019.jsonl.gz, squad_open.train.jsonl.gz, squad_open.dev.jsonl.gz,
# nq_open.train_partial.jsonl.gz, webquestions.train.jsonl.gz and curatedtrec.train.jsonl.gz. Some
# five hours on two cores with 16-bit products, twice as long without, most of it fine-tuning and
# the index of all four corpora; two processes share them. Figures: docs/log.md, entries 23, 39
# and 41, 42.
set -eu
data=$1 out=$2
config=$(dirname "$0")/realm-mini.toml
mkdir -p "$out"

realm() { python3 -m realm "$@" --config "$config"; }
in_two() { # processes, a core each
  OMP_NUM_THREADS=1 torchrun --standalone --nproc-per-node=2 -m realm "$@" --config "$config"
}

# What is read in pre-training: text of which much is told twice, by articles of the same title.
[ -s "$out"/shared.jsonl ] || python3 "$(dirname "$0")"/shared_titles.py \
  "$data"/{simplewiki_2021,squad_open_passages,enwiki_sample_2019}.jsonl.gz "$out"/shared.jsonl
realm split "$data"/{squad_open_passages,enwiki_sample_2019}.jsonl.gz "$out"/shared.jsonl \
  --out "$out"/text
realm mask "$out"/text --out "$out"/examples
realm split "$data"/squad_open_passages.jsonl.gz --out "$out"/passages
realm ict "$out"/passages --out "$out"/ict
realm mlm "$out"/text --examples "$out"/examples --out "$out"/mlm
in_two pretrain "$out"/examples "$out"/text --embedder "$out"/ict --encoder "$out"/mlm \
  --out "$out"/pretrain

# WebQuestions' validation part is for measuring.
zcat "$data"/webquestions.train.jsonl.gz | grep -v '"subsplit": "val"' > "$out"/webquestions.jsonl
in_two finetune "$data"/squad_open.train.jsonl.gz "$out"/passages --model "$out"/pretrain \
  --also "$data"/nq_open.train_partial.jsonl.gz:0.1 --also "$out"/webquestions.jsonl:0.5 \
  --also "$data"/curatedtrec.train.jsonl.gz:0.7 --out "$out"/qa

# Questions that nobody wrote while looking at a passage, over all text there is; then the mean of
# the weights before and after, which keeps what the first fine-tuning learned.
realm split "$data"/{simplewiki_2021,enwiki_sample_2019,nq_gold_passages,squad_open_passages}.jsonl.gz \
  --out "$out"/wikipedia
in_two finetune "$data"/nq_open.train_partial.jsonl.gz "$out"/wikipedia --model "$out"/qa \
  --also "$data"/squad_open.train.jsonl.gz:0.2 --also "$out"/webquestions.jsonl:5 \
  --also "$data"/curatedtrec.train.jsonl.gz:1.5 --out "$out"/qa-users \
  --set steps=1000 --set optimizer.learning_rate=1e-4
python3 -m realm average "$out"/qa "$out"/qa-users --out "$out"/averaged
python3 -m realm pack "$out"/averaged --out "$out"/realm-mini
# On development questions: several answers count as right there, in training questions one.
realm calibrate "$data"/squad_open.dev.jsonl.gz --model "$out"/realm-mini \
  --passages "$out"/passages --set limit=1000
realm evaluate "$data"/squad_open.dev.jsonl.gz --model "$out"/realm-mini \
  --passages "$out"/passages --out "$out"/squad.json
echo "all done; the model is in $out/realm-mini"
