// What a policy sees of a mission: its text as G numbers (`lang`), as mop/envs/missions.py and the policy's projection.
//
// Each class has error(mission), why it cannot be read, empty if it can, and lang(mission), Float32Array (G).

import { softmax } from "./numbers.js";

/** Words of a mission; a comma is one. */
export function splitWords(mission) {
  const words = mission.toLowerCase().replaceAll(",", " , ").trim();
  return words === "" ? [] : words.split(/\s+/);
}

/** What reads missions of known words; tensor: one with a row for each place of a word. */
class WordReader {
  constructor(packed, weights, tensor) {
    this.known = packed.words;
    [this.maxWords, this.width] = weights.shape(tensor);
  }

  error(mission) {
    const words = splitWords(mission), unknown = words.find((word) => !this.known.includes(word));
    if (words.length === 0) return "an empty mission says nothing";
    if (words.length > this.maxWords) return `a mission has at most ${this.maxWords} words`;
    return unknown === undefined ? "" : `"${unknown}" is no word of BabyAI's missions`;
  }
}

/** mixture_of_experts.WordProjection: what a policy sees of a mission, read word by word. */
export class WordProjection extends WordReader {
  constructor(packed, weights) {
    super(packed, weights, "lang_proj.places.weight");
    this.words = weights.get("lang_proj.words.weight");
    this.places = weights.get("lang_proj.places.weight");
    this.near = weights.linear("lang_proj.near");
    this.ask = weights.linear("lang_proj.ask");
    this.output = weights.linear("lang_proj.output");
  }

  lang(mission) {
    const { width } = this, words = splitWords(mission);
    const x = new Float32Array((words.length + 2) * width);  // with zeros before the first word and after the last
    words.forEach((word, k) => {
      const from = (1 + this.known.indexOf(word)) * width;
      for (let c = 0; c < width; c++) x[(1 + k) * width + c] = this.words[from + c] + this.places[k * width + c];
    });
    const near = words.map((_, k) => this.near.of(x.subarray(k * width, (k + 3) * width)).map((y) => Math.max(0, y)));
    const asked = near.map((y) => this.ask.of(y));
    const heard = Array.from({ length: this.ask.numOut }, (_, head) => {
      const shares = softmax(asked.map((scores) => scores[head]));
      return Array.from({ length: width }, (_, c) => near.reduce((sum, y, k) => sum + shares[k] * y[c], 0));
    });
    return this.output.of(Float32Array.from(heard.flat()));
  }
}

/** The `vocab` embedding, projected: codes (places x words x G) are those of BabyAI's words, already projected. */
export class CodeProjection extends WordReader {
  constructor(packed, weights) {
    super(packed, weights, "lang_proj.codes");
    this.codes = weights.get("lang_proj.codes");
    this.bias = weights.get("lang_proj.bias");
  }

  lang(mission) {
    const words = splitWords(mission), size = this.bias.length;
    const firsts = words.map((word, k) => (k * this.known.length + this.known.indexOf(word)) * size);
    const scale = 1 / Math.sqrt(words.length);
    return this.bias.map((bias, g) => bias + scale * firsts.reduce((sum, first) => sum + this.codes[first + g], 0));
  }
}

/** Missions that were projected by Python, in the page's file; any mission, where the policy does not see it. */
export class KnownMissions {
  constructor(packed, weights) {
    this.encoder = packed.lang_encoder;
    this.missions = packed.missions ?? {};
    this.blind = this.encoder === "none" ? weights.get("lang_proj.none") : null;
  }

  error(mission) {
    const isKnown = (this.blind !== null && mission.trim() !== "") || Object.hasOwn(this.missions, mission);
    return isKnown ? "" : `the mission encoder ${this.encoder} is not in the page: it knows the worlds' missions alone`;
  }

  lang(mission) { return this.blind ?? Float32Array.from(this.missions[mission]); }
}
