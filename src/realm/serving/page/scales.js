// The arithmetic of a chart.

/** Return round numbers that span [low, high], about `wanted` of them. */
export function niceTicks(low, high, wanted) {
  const rough = (high - low || 1) / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const unit = [1, 2, 2.5, 5, 10].find((factor) => factor * power >= rough) * power;
  const ticks = [];
  for (
    let number = Math.floor(low / unit + 1e-9);
    number * unit <= high + unit * 1e-9;
    number += 1
  ) {
    ticks.push(Number((number * unit).toPrecision(12)));
  }
  if (ticks[ticks.length - 1] < high - unit * 1e-9) {
    ticks.push(Number((ticks[ticks.length - 1] + unit).toPrecision(12)));
  }
  return ticks;
}

/** Return a function from values in `domain` to places in `range`. */
export function place([low, high], [first, last]) {
  return (value) => first + ((value - low) / (high - low || 1)) * (last - first);
}

function trailing(points, keep) {
  let [sum, weight] = [0, 0];
  return points.map(([step, value]) => {
    sum = sum * keep + value;
    weight = weight * keep + 1;
    return [step, sum / weight];
  });
}

/** Return points under a moving average that looks both ways, so that it does not lag. */
export function smooth(points, keep = 0.85) {
  const real = points.filter(([, value]) => Number.isFinite(value));
  const before = trailing(real, keep);
  const after = trailing(real.toReversed(), keep).reverse();
  return before.map(([step, value], number) => [step, (value + after[number][1]) / 2]);
}

/** Return at most about `most` points: the lowest and highest of each stretch. */
export function thin(points, most = 1200) {
  if (points.length <= most) return points;
  const size = Math.ceil((2 * points.length) / most);
  const kept = [];
  for (let from = 0; from < points.length; from += size) {
    const stretch = points.slice(from, from + size);
    const low = stretch.reduce((one, other) => (other[1] < one[1] ? other : one));
    const high = stretch.reduce((one, other) => (other[1] > one[1] ? other : one));
    kept.push(...(low === high ? [low] : [low, high].sort((one, other) => one[0] - other[0])));
  }
  return kept;
}

/** Return the last value at or before a step; undefined where there is none. */
export function valueAt(points, step) {
  let [low, high] = [0, points.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (points[middle][0] <= step) low = middle + 1;
    else high = middle;
  }
  return points[low - 1]?.[1];
}
