// Which metrics make which chart.

/** What says how a run goes; `lines` are tried in their order, those that are there drawn. */
export const MAIN = [
  {
    title: "Loss",
    unit: "nats",
    lines: [
      ["loss", "training"],
      ["eval/loss", "held out"],
      ["eval/read_loss", "held out, to read"],
    ],
    absent: "This run writes no loss.",
  },
  {
    title: "Retrieval utility",
    unit: "nats",
    zero: true,
    lines: [
      ["utility/marginal_minus_null", "training"],
      ["eval/utility/marginal_minus_null", "held out"],
      ["eval/utility/best", "best passage, held out"],
    ],
    absent:
      "Only pre-training with retrieval has one: what passages add to a blank\u2019s likelihood.",
  },
  {
    title: "Recall",
    unit: "share",
    unitInterval: true,
    lines: [
      ["recall_at_1", "at 1"],
      ["recall_at_5", "at 5"],
      ["eval/recall_at_1", "at 1, held out"],
      ["eval/recall_at_5", "at 5, held out"],
      ["eval/candidates_hold_span", "candidates hold the span, held out"],
    ],
    absent: "This run measures no recall.",
  },
  {
    title: "Staleness",
    unit: "steps",
    zero: true,
    steps: true,
    lines: [["index/staleness_steps", "age of the index"]],
    absent: "The index of this run is not refreshed while it trains.",
  },
  {
    title: "Accuracy",
    unit: "share",
    unitInterval: true,
    lines: [
      ["accuracy", "in the batch"],
      ["eval/accuracy", "held out"],
      ["span_accuracy", "spans"],
      ["eval/span_accuracy", "spans, held out"],
      ["eval/span_accuracy_null", "spans, nothing read"],
      ["piece_accuracy", "wordpieces"],
      ["eval/read_accuracy", "held out, to read"],
      ["eval/guess_accuracy", "held out, to guess"],
    ],
  },
  {
    title: "Index drift",
    unit: "score",
    zero: true,
    lines: [
      ["index/score_drift", "training"],
      ["eval/index/score_drift", "held out"],
    ],
  },
];

const LEFT_OUT = new Set(["eval/examples", "examples", "index/refreshed"]);

/** Return [name, label] of a measure's lines that a run has. */
export function seriesFor(measure, names) {
  return measure.lines.filter(([name]) => names.includes(name));
}

function titled(name) {
  const words = name.replaceAll("/", " ").replaceAll("_", " ");
  return words[0].toUpperCase() + words.slice(1);
}

/** Return a measure for each metric that no main chart shows, its held-out twin beside it. */
export function others(names) {
  const used = new Set(MAIN.flatMap(({ lines }) => lines.map(([name]) => name)));
  const left = names.filter((name) => !used.has(name) && !LEFT_OUT.has(name));
  const isTwin = (name) => name.startsWith("eval/") && left.includes(name.slice(5));
  return left
    .filter((name) => !isTwin(name))
    .sort()
    .map((name) => {
      const isHeldOut = name.startsWith("eval/");
      const twin = `eval/${name}`;
      const lines = [[name, isHeldOut ? "held out" : "training"]];
      if (left.includes(twin)) lines.push([twin, "held out"]);
      return { title: titled(name.replace(/^eval\//, "")), unit: "", lines };
    });
}
