// The policies as equations: mixture_of_experts.py for one agent and one step at a time, in plain JavaScript.
//
// The names are those of the Python file, which explains the equations. `pack_policy.py` makes what `Policy` reads.
//
// Axis letters: D width, H hidden units of a layer, E experts of a layer, L layers, A actions, S all hidden units;
// I = 152 numbers of an observation, G of a mission (`lang`), K of an encoded observation; C numbers of a cell's
// embedding, F of its features.

import { Linear, Weights, sigmoid, softmax } from "./numbers.js";
import { CodeProjection, KnownMissions, WordProjection } from "./missions.js";

const NUM_CELLS = 49;  // of the agent's view, 7 x 7
const CATEGORIES = [11, 6, 3];  // Minigrid's object types, colours and states
const NUM_COLUMNS = 20;  // one-hot columns of a cell, all categories together
const NUM_CODES = 11 * 6 * 3;  // of a cell: (type * 6 + colour) * 3 + state
const NUM_ENCODED = CATEGORIES.length * NUM_CELLS;  // integers of the image
const NORM_EPS = 1e-5;  // of torch.nn.LayerNorm

// --- parts of a layer ------------------------------------------------------------------------------------------------

/** torch.nn.GRU with one layer, one step at a time. */
class GRU {
  constructor(weights, name, width) {
    const size = weights.get(`${name}.bias_hh_l0`).length / 3;
    this.size = size;
    this.input = new Linear(weights.get(`${name}.weight_ih_l0`), weights.get(`${name}.bias_ih_l0`), width);
    this.state = new Linear(weights.get(`${name}.weight_hh_l0`), weights.get(`${name}.bias_hh_l0`), size);
    this.fromInput = new Float64Array(3 * size);
    this.fromState = new Float64Array(3 * size);
  }

  /** Write the state after a step with the input x (D) into `after`; its units stand from `start` on in both states. */
  step(x, before, after, start) {
    const { size, fromInput, fromState } = this;
    this.input.into(fromInput, x);
    this.state.into(fromState, before, start);
    for (let k = 0; k < size; k++) {
      const r = sigmoid(fromInput[k] + fromState[k]);
      const z = sigmoid(fromInput[size + k] + fromState[size + k]);
      const n = Math.tanh(fromInput[2 * size + k] + r * fromState[2 * size + k]);
      after[start + k] = (1 - z) * n + z * before[start + k];
    }
  }
}

/** Experts of different sizes, mixed by a router: y = sum over e of weight_e * expert_e(x). */
class MoELayer {
  constructor(packed, weights, layer) {
    const { width, hidden_layout: layout } = packed, name = `moe_layers.${layer}`;
    this.width = width;
    this.router = { start: layout[`router_${layer}`][0], gru: new GRU(weights, `${name}.router.gru`, width) };
    this.fc = weights.linear(`${name}.router.fc`);
    this.experts = packed.expert_hidden_sizes[layer].map((size, e) => (size === 0 ? { size } : {
      size,
      start: layout[`expert_${layer}_${e}`][0],
      gru: new GRU(weights, `${name}.experts.${e}.gru`, width),
      projection: weights.linear(`${name}.experts.${e}.projection`),
    }));
    this.norm = packed.residual ? weights.linear(`${name}.norm`) : null;
    this.output = new Float64Array(width);
  }

  /** Write y (D) of x (D) and the layer's units of `after`; returns the weights that were used, Float32Array (E). */
  step(x, y, before, after, intervene) {
    this.router.gru.step(x, before, after, this.router.start);
    let weights = this.routerWeights(after);
    if (intervene !== null) weights = intervene(weights);
    y.fill(0);
    for (let e = 0; e < this.experts.length; e++) {
      const expert = this.experts[e], weight = weights[e];
      const output = expert.size === 0 ? x : this.output;
      if (expert.size > 0) {
        expert.gru.step(x, before, after, expert.start);
        if (weight !== 0) expert.projection.into(output, after.subarray(expert.start, expert.start + expert.size));
      }
      if (weight !== 0) for (let k = 0; k < this.width; k++) y[k] += weight * output[k];
    }
    if (this.norm !== null) this.normalise(x, y);
    return weights;
  }

  /** Softmax of the router's units in the hidden state. */
  routerWeights(hidden) {
    const { start, gru } = this.router;
    return softmax(this.fc.of(hidden.subarray(start, start + gru.size)));
  }

  /** Replace y by LayerNorm(x + y). */
  normalise(x, y) {
    const { width, norm } = this;
    let mean = 0, variance = 0;
    for (let k = 0; k < width; k++) mean += (y[k] += x[k]) / width;
    for (let k = 0; k < width; k++) variance += (y[k] - mean) ** 2 / width;
    const scale = 1 / Math.sqrt(variance + NORM_EPS);
    for (let k = 0; k < width; k++) y[k] = (y[k] - mean) * scale * norm.weight[k] + norm.bias[k];
  }
}

// --- input projections -----------------------------------------------------------------------------------------------

/** Code of a cell of an observation, from its type, colour and state. */
function checkedCode(obs, cell) {
  const type = obs[cell], color = obs[NUM_CELLS + cell], state = obs[2 * NUM_CELLS + cell];
  const isKnown = type >= 0 && type < 11 && color >= 0 && color < 6 && state >= 0 && state < 3;
  if (!isKnown) throw new Error("an observation has a category that Minigrid does not have");
  return (type * 6 + color) * 3 + state;
}

/** FiLM: the mission says what to look for in each cell. Features of all codes of a cell are computed once a mission. */
class FilmProjection {
  constructor(packed, weights) {
    this.cellDim = packed.film.cell_dim;
    this.numFeatures = packed.film.num_features;
    this.cells = weights.get("input_projection.cells.weight");  // (C, 20)
    this.film = weights.linear("input_projection.film");
    this.features = weights.linear("input_projection.features");
    this.output = weights.linear("input_projection.output");
    this.tables = new WeakMap();  // lang -> features of all codes
    this.inputs = new Float64Array(this.output.numIn);
    this.modulated = new Float64Array(this.cellDim);
  }

  /** Write x (D) of an observation (I) and a mission's lang (G). */
  into(x, obs, lang) {
    const { inputs, numFeatures } = this, table = this.tableOf(lang);
    let place = 0;
    for (let cell = 0; cell < NUM_CELLS; cell++) {
      const from = checkedCode(obs, cell) * numFeatures;
      for (let k = 0; k < numFeatures; k++) inputs[place++] = table[from + k];
    }
    for (let k = NUM_ENCODED; k < obs.length; k++) inputs[place++] = obs[k];
    inputs.set(lang, place);
    this.output.into(x, inputs);
  }

  tableOf(lang) {
    if (!this.tables.has(lang)) {
      const film = this.film.of(lang), codes = Array.from({ length: NUM_CODES }, (_, code) => code);
      this.tables.set(lang, Float32Array.from(codes.flatMap((code) => Array.from(this.featuresOf(code, film)))));
    }
    return this.tables.get(lang);
  }

  /** f = relu(W_f relu((1 + gamma) e + beta) + b_f) of a cell of this code. */
  featuresOf(code, film) {
    const { cells, cellDim, modulated } = this;
    const columns = [Math.floor(code / 18), 11 + Math.floor(code / 3) % 6, 17 + code % 3];
    for (let c = 0; c < cellDim; c++) {
      const e = columns.reduce((sum, column) => sum + cells[c * NUM_COLUMNS + column], 0);
      modulated[c] = Math.max(0, (1 + film[c]) * e + film[cellDim + c]);
    }
    return this.features.of(modulated).map((feature) => Math.max(0, feature));
  }
}

/** W [observation, mission] + b, where each category of the image may be a one in a column of zeros. */
class LinearProjection {
  constructor(packed, weights) {
    const { weight, bias, numIn, numOut } = weights.linear("input_projection");
    this.width = numOut;
    this.isOneHot = packed.obs_encoding === "one_hot";
    this.bias = bias;
    this.columns = new Float32Array(weight.length);  // (K + G, D): the weights of an input lie side by side
    for (let row = 0; row < numOut; row++) {
      for (let k = 0; k < numIn; k++) this.columns[k * numOut + row] = weight[row * numIn + k];
    }
    this.firstOfLang = numIn - packed.lang_dim;
  }

  /** Write x (D) of an observation (I) and a mission's lang (G). */
  into(x, obs, lang) {
    x.set(this.bias);
    const numEncoded = this.isOneHot ? NUM_ENCODED : 0;
    if (this.isOneHot) for (let cell = 0; cell < NUM_CELLS; cell++) this.addCell(x, obs, cell);
    const first = this.firstOfLang - obs.length;
    for (let k = numEncoded; k < obs.length; k++) this.add(x, first + k, obs[k]);
    lang.forEach((value, k) => this.add(x, this.firstOfLang + k, value));
  }

  /** Columns are ordered by channel of the image, then cell, then category. */
  addCell(x, obs, cell) {
    checkedCode(obs, cell);
    for (let channel = 0, first = 0; channel < 3; channel++) {
      const size = CATEGORIES[channel];
      this.add(x, first + cell * size + obs[channel * NUM_CELLS + cell], 1);
      first += NUM_CELLS * size;
    }
  }

  add(x, column, value) {
    const { columns, width } = this, from = column * width;
    if (value !== 0) for (let k = 0; k < width; k++) x[k] += columns[from + k] * value;
  }
}

// --- the policy ------------------------------------------------------------------------------------------------------

/** Layered parameter cost of a step: sum over layers and experts of weight x size^2. routing, sizes: L lists of E_l. */
export function lpc(routing, sizes) {
  let cost = 0;
  routing.forEach((weights, layer) => weights.forEach((weight, e) => { cost += weight * sizes[layer][e] ** 2; }));
  return cost;
}

/** A policy as `pack_policy.py` packed it: the mixture, or the GRU baseline. */
export class Policy {
  constructor(packed) {
    const weights = new Weights(packed);
    this.sizes = packed.expert_hidden_sizes;  // L lists of E_l
    this.meanRouting = packed.mean_routing;  // L lists of E_l: `mean` of an intervention
    this.layout = packed.hidden_layout;  // name of each GRU -> [start, stop] of its units
    this.hiddenSize = Math.max(...Object.values(this.layout).map(([, stop]) => stop));
    this.projection = new (packed.film ? FilmProjection : LinearProjection)(packed, weights);
    const missionKinds = { words: WordProjection, vocab: CodeProjection };
    this.missions = new (missionKinds[packed.lang_encoder] ?? KnownMissions)(packed, weights);
    this.langs = new Map();
    this.gru = packed.kind === "gru" ? new GRU(weights, "gru", packed.width) : null;
    this.layers = this.gru ? [] : this.sizes.map((_, layer) => new MoELayer(packed, weights, layer));
    this.head = weights.linear("head");
    this.x = [new Float64Array(packed.width), new Float64Array(packed.width)];  // in and out of a layer, by turns
  }

  /** What the policy sees of a mission, Float32Array (G), the same array each time. Throws Error with the reason. */
  lang(mission) {
    if (!this.langs.has(mission)) {
      const error = this.missions.error(mission);
      if (error) throw new Error(error);
      this.langs.set(mission, this.missions.lang(mission));
    }
    return this.langs.get(mission);
  }

  /** The state at the beginning of an episode, Float32Array (S). */
  zeroHidden() { return new Float32Array(this.hiddenSize); }

  /**
   * One step: an observation (I) as `World.observe` gives it, a mission's lang (G) of `lang`, hidden (S).
   *
   * intervene: (layer, weights Float32Array (E_l)) -> the weights to mix the experts with, which are then returned.
   * Returns logits Float32Array (A), routing L x Float32Array (E_l), hidden Float32Array (S), all of them new.
   */
  step(obs, lang, hidden, intervene = null) {
    const after = this.zeroHidden(), routing = [];
    let [x, y] = this.x;
    this.projection.into(x, obs, lang);
    if (this.gru !== null) {
      this.gru.step(x, hidden, after, 0);
      return { logits: this.head.of(after), routing: [Float32Array.of(1)], hidden: after };
    }
    for (let layer = 0; layer < this.layers.length; layer++) {
      const ofLayer = intervene === null ? null : (weights) => intervene(layer, weights);
      routing.push(this.layers[layer].step(x, y, hidden, after, ofLayer));
      [x, y] = [y, x];
    }
    return { logits: this.head.of(x), routing, hidden: after };
  }
}
