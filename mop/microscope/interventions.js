// Interventions on routing: their texts, the weights that they give, and what becomes of an expert's memory.
//
// mop/common/intervention_grammar.py and mop/evaluation/routing_gates.py for one agent. Weights are rounded to float32
// where those files round, so that a threshold or a tie decides alike. `swap` needs another file, and is left out.
//
// Axis letters: L layers, E experts of a layer, S hidden units of a policy, M steps of a pool.

import { argmax, randomBelow } from "./numbers.js";

export const VARIANTS = ["gate-only", "frozen", "zeroed"];  // what becomes of the state of an expert of weight 0

export const GRAMMAR =
  "none | lesion L.E | lesion_size S | threshold T | argmax | clamp L.E=V | mean L | uniform L | shuffle L, " +
  "several of them joined by ' + ', all but none also with ' in PHASE' behind " +
  "(layer L, expert E, size S; T and V from 0 to 1)";

// --- texts -----------------------------------------------------------------------------------------------------------

const WHOLE = "(?:0|[1-9][0-9]{0,8})";
const LAYER = ` +(?<layer>${WHOLE})`, EXPERT = `${LAYER}\\.(?<expert>${WHOLE})`;
const REAL = "(?<value>[0-9]*\\.?[0-9]+(?:[eE]-?[0-9]+)?)";
const KINDS = {  // kind -> what stands behind it
  none: "",
  lesion: EXPERT,
  lesion_size: ` +(?<size>${WHOLE})`,
  clamp: `${EXPERT} *= *${REAL}`,
  mean: LAYER,
  uniform: LAYER,
  shuffle: LAYER,
  threshold: ` +${REAL}`,
  argmax: "",
};
const ORDER = Object.keys(KINDS);
const NOT_PLAIN = /[\p{Cc}\p{Cs}\p{Zl}\p{Zp}]/u;  // what `mop.common.values.is_plain` refuses

/**
 * Parse the text of an intervention: {kind, layer, expert, size, value, phase, parts}, null where it has no such field.
 *
 * kind is "several" for those in `parts` that are made together. Throws Error with the grammar for another text.
 */
export function parse(text) {
  let words = NOT_PLAIN.test(text) ? "" : text.trim();
  if (words === "none") return single(words);
  if (/^swap +\S/.test(words)) throw new Error("the routers of another file are swapped in by intervene.py alone");
  words = words.replace(/ +/g, " ");
  const { index } = / in (?=\S)/.exec(words) ?? { index: words.length };
  const phase = words.slice(index + " in ".length) || null;
  return together(words.slice(0, index).split(/ *[+] */).map((part) => parseOne(part, text)), phase);
}

function single(kind, fields = {}) {
  return { kind, layer: null, expert: null, size: null, value: null, phase: null, parts: [], ...fields };
}

/** Parse what stands between two pluses; text: the whole, for the message. */
function parseOne(words, text) {
  const kind = words.split(" ")[0], isKnown = kind !== "none" && Object.hasOwn(KINDS, kind);
  const match = isKnown ? new RegExp(`^${kind}${KINDS[kind]}$`).exec(words) : null;
  const fields = Object.entries(match?.groups ?? {}).map(([name, word]) => [name, Number(word)]);
  const { value, ...places } = Object.fromEntries(fields);
  if (match === null || value > 1) throw new Error(`"${text}" is no intervention; the grammar: ${GRAMMAR}`);
  return single(kind, { ...places, value: value ?? null });
}

/** Several interventions as one, in the order in which they are made; Error for two that exclude each other. */
export function together(parts, phase = null) {
  const places = (part) => [ORDER.indexOf(part.kind), part.layer ?? 0, part.expert ?? 0, part.size ?? 0];
  parts = [...parts].sort((one, other) => {
    const others = places(other);
    return places(one).map((place, k) => place - others[k]).find((difference) => difference !== 0) ?? 0;
  });
  if (parts.length <= 1) return { ...(parts[0] ?? single("none")), phase };
  const subjects = new Map();
  for (const part of parts) {
    const isOfAll = part.layer === null && part.size === null;
    const subject = isOfAll ? "threshold or argmax" : String([part.layer, part.expert, part.size]);
    const other = subjects.get(subject);
    if (other) throw new Error(`${textOf(other)} and ${textOf(part)} cannot be made together: keep one of them`);
    subjects.set(subject, part);
  }
  return single("several", { phase, parts });
}

/** The text that `parse` reads as this intervention, the same as Python's. */
export function textOf(intervention) {
  const { kind, layer, expert, size, value, phase, parts } = intervention;
  const share = value === null ? null : numberText(value);
  let words = [kind, layer, size, share].filter((word) => word !== null).join(" ");
  if (parts.length) words = parts.map(textOf).join(" + ");
  else if (expert !== null) words = `${kind} ${layer}.${expert}${share === null ? "" : `=${share}`}`;
  return phase === null ? words : `${words} in ${phase}`;
}

/** A share as Python writes it: 1.0, 0.25, 1e-05. */
function numberText(value) {
  if (Number.isInteger(value)) return value.toFixed(1);
  return value >= 1e-4 ? String(value) : value.toExponential().replace(/e-(\d)$/, "e-0$1");
}

// --- weights ---------------------------------------------------------------------------------------------------------

const TINY = 1e-30;  // where a router gives all but this to ablated experts, the rest shares it equally

/** Sum of float32 numbers as NumPy makes it. */
const sumOf = (weights) => weights.reduce((sum, weight) => Math.fround(sum + weight), 0);

/** Set the weights (E) of the experts of isOut (E) to 0 and scale the rest to the sum; not all are out. */
function ablate(weights, isOut) {
  const share = sumOf(weights.map((weight, e) => (isOut[e] ? 0 : weight))) < TINY ? 1 : 0;
  const rest = weights.map((weight, e) => (isOut[e] ? 0 : weight + share));
  const scale = Math.fround(sumOf(weights) / sumOf(rest));
  return rest.map((weight) => weight * scale);
}

/** Set the weights (E) of the experts of isSet (E) to `values` (E) of the sum; scale the rest, as Python's `clamp`. */
function clamp(weights, isSet, values) {
  const share = values.reduce((sum, value) => sum + value, 0), total = sumOf(weights);
  if (isSet.every(Boolean) || share > 1) return weights.map((_, e) => Math.fround(values[e] / share) * total);
  const left = Math.fround(1 - share);
  const set = ablate(weights, isSet).map((weight) => weight * left);
  return set.map((weight, e) => weight + Math.fround(Math.fround(values[e]) * total));
}

/** Those that an intervention makes together, or it alone. */
export function partsOf(intervention) {
  return intervention.parts.length ? intervention.parts : [intervention];
}

/** One intervention on a policy's routers: the weights in the place of the routers' own. */
export class Gates {
  /**
   * sizes: L lists of E_l; meanRouting: L lists of E_l, for `mean`; pool: L Float32Arrays (M x E_l, row by row), the
   * weights of all steps without the intervention, for `shuffle`. Throws Error for what the policy does not have.
   */
  constructor(intervention, sizes, meanRouting, pool = null, seed = 0) {
    this.parts = partsOf(intervention);
    this.parts.forEach((part) => checkPart(part, sizes));
    if (pool === null && this.parts.some((part) => part.kind === "shuffle")) {
      throw new Error("shuffle draws from the steps of the intact policy: run it in all worlds first");
    }
    this.set = sizes.map((ofLayer, layer) => setIn(layer, ofLayer, this.parts));
    this.kinds = sizes.map((_, layer) => {
      const ofLayer = this.parts.filter((part) => part.layer === null || part.layer === layer);
      return new Map(ofLayer.map((part) => [part.kind, part]));
    });
    this.isNone = intervention.kind === "none";
    this.meanRouting = meanRouting;
    this.pool = pool;
    this.numSteps = pool === null ? 0 : pool[0].length / sizes[0].length;
    this.seed = seed;
  }

  /** `intervene` of `Policy.step` for a step of an episode, by which `shuffle` draws; null where nothing changes. */
  at(episode, tStep, isOn = true) {
    return isOn && !this.isNone ? (layer, weights) => this.change(layer, weights, episode, tStep) : null;
  }

  /** Float32Array (E_l) in the place of a layer's weights Float32Array (E_l). */
  change(layer, weights, episode, tStep) {
    const kinds = this.kinds[layer], { isSet, values } = this.set[layer];
    if (kinds.has("uniform")) weights = weights.map(() => 1 / weights.length);
    if (kinds.has("mean")) weights = Float32Array.from(this.meanRouting[layer]);
    if (kinds.has("shuffle")) {
      const from = randomBelow(this.numSteps, this.seed, episode, tStep) * weights.length; // all layers from one step
      weights = this.pool[layer].slice(from, from + weights.length);
    }
    if (isSet.some(Boolean)) weights = clamp(weights, isSet, values);
    if (kinds.has("threshold")) {
      const bound = Math.fround(kinds.get("threshold").value), first = argmax(weights);
      weights = ablate(weights, Array.from(weights, (weight, e) => weight < bound && e !== first));
    }
    if (kinds.has("argmax")) {
      const first = argmax(weights);
      weights = ablate(weights, Array.from(weights, (_, e) => e !== first));
    }
    return weights;
  }
}

/** Experts of a layer that are ablated or clamped, isSet (E), and the weights that they get, values (E). */
function setIn(layer, sizes, parts) {
  const isSet = sizes.map(() => false), values = sizes.map(() => 0);
  for (const part of parts) {
    const isOfLayer = ["lesion", "clamp"].includes(part.kind) && part.layer === layer;
    sizes.forEach((size, e) => {
      if (!(part.kind === "lesion_size" ? size === part.size : isOfLayer && e === part.expert)) return;
      if (isSet[e]) throw new Error(`${textOf(part)}: another of these already gives a weight to this expert`);
      isSet[e] = true;
      values[e] = part.value ?? 0;
    });
  }
  if (isSet.every(Boolean) && !values.some(Boolean)) {
    throw new Error(`nothing would be left of layer ${layer}: leave one expert its weight`);
  }
  return { isSet, values };
}

/** Refuse what a policy does not have. */
function checkPart(part, sizes) {
  const { kind, layer, expert, size } = part, refuse = (why) => { throw new Error(`${textOf(part)}: ${why}`); };
  if (kind !== "none" && sizes.every((ofLayer) => ofLayer.length === 1)) {
    refuse("this policy has one expert in each layer, and no routing to intervene on");
  }
  if (layer !== null && layer >= sizes.length) refuse(`this policy has the layers 0 to ${sizes.length - 1}`);
  if (expert !== null && expert >= sizes[layer].length) {
    refuse(`layer ${layer} has the experts 0 to ${sizes[layer].length - 1}`);
  }
  if (expert !== null && sizes[layer].length === 1) refuse(`layer ${layer} has no other expert`);
  if (size !== null && !sizes.some((ofLayer) => ofLayer.includes(size))) {
    const known = [...new Set(sizes.flat())].sort((one, other) => one - other);
    refuse(`the sizes of this policy's experts are ${known.join(", ")}`);
  }
  if (size !== null && sizes.some((ofLayer) => ofLayer.every((other) => other === size))) {
    refuse("a layer has no expert of another size");
  }
}

// --- memory ----------------------------------------------------------------------------------------------------------

/**
 * Keep, freeze or zero the states of experts of weight 0 after a step, by the variant; Float32Array (S).
 *
 * routing: the weights that were used, L x Float32Array (E_l); before, after: Float32Array (S), the step.
 */
export function applyMemory(variant, policy, routing, before, after) {
  if (variant === "gate-only") return after;
  const held = after.slice();
  routing.forEach((weights, layer) => weights.forEach((weight, e) => {
    const units = policy.layout[`expert_${layer}_${e}`];
    if (weight !== 0 || units === undefined) return;
    if (variant === "frozen") held.set(before.subarray(...units), units[0]);
    else held.fill(0, ...units);
  }));
  return held;
}
