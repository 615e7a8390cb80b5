// What the equations of a policy are made of: softmax, linear maps, and the tensors of a packed policy by name.
//
// Weights are float32 as they were trained; sums are made in double precision, as JavaScript has no other.

/** Probabilities Float32Array of logits, which is any list of numbers. */
export function softmax(logits) {
  const largest = Math.max(...logits), exps = Array.from(logits, (logit) => Math.exp(logit - largest));
  const total = exps.reduce((sum, exp) => sum + exp, 0);
  return Float32Array.from(exps, (exp) => exp / total);
}

/** Place of the largest number, of equal ones the first. */
export function argmax(values) {
  let best = 0;
  for (let k = 1; k < values.length; k++) if (values[k] > values[best]) best = k;
  return best;
}

/**
 * A whole number from 0 to count - 1 that looks random, the same for the same keys: rounds of MurmurHash3's last mixing.
 *
 * NumPy draws others of the same distribution: single numbers are not those of Python.
 */
export function randomBelow(count, ...keys) {
  let bits = 0;
  for (const key of keys) {
    bits = (bits + key + 0x9e3779b9) | 0;
    bits = Math.imul(bits ^ (bits >>> 16), 0x85ebca6b);
    bits = Math.imul(bits ^ (bits >>> 13), 0xc2b2ae35);
    bits ^= bits >>> 16;
  }
  return Math.floor(((bits >>> 0) / 2 ** 32) * count);
}

export const sigmoid = (x) => 1 / (1 + Math.exp(-x));

/** Weight and bias of a linear map: y = W x + b. */
export class Linear {
  /** weight: Float32Array (numOut x numIn), row by row; bias: Float32Array (numOut), or null. */
  constructor(weight, bias, numIn) {
    this.weight = weight;
    this.numIn = numIn;
    this.numOut = weight.length / numIn;
    this.bias = bias ?? new Float32Array(this.numOut);
  }

  /** Write y, of x from number `start` on: four rows at a time, so that a number of x is read once for them. */
  into(y, x, start = 0) {
    const { weight, bias, numIn, numOut } = this;
    let row = 0;
    for (; row + 4 <= numOut; row += 4) {
      const w0 = row * numIn, w1 = w0 + numIn, w2 = w1 + numIn, w3 = w2 + numIn;
      let y0 = bias[row], y1 = bias[row + 1], y2 = bias[row + 2], y3 = bias[row + 3];
      for (let k = 0; k < numIn; k++) {
        const value = x[start + k];
        y0 += weight[w0 + k] * value;
        y1 += weight[w1 + k] * value;
        y2 += weight[w2 + k] * value;
        y3 += weight[w3 + k] * value;
      }
      y[row] = y0;
      y[row + 1] = y1;
      y[row + 2] = y2;
      y[row + 3] = y3;
    }
    for (; row < numOut; row++) {
      y[row] = bias[row];
      for (let k = 0, w = row * numIn; k < numIn; k++) y[row] += weight[w + k] * x[start + k];
    }
  }

  /** y of x, both Float32Array. */
  of(x) {
    const y = new Float32Array(this.numOut);
    this.into(y, x);
    return y;
  }
}

/** Tensors of a packed policy by their names in the checkpoint. */
export class Weights {
  constructor(packed) {
    const bytes = Uint8Array.from(atob(packed.data), (character) => character.charCodeAt(0));
    this.tensors = new Map();
    let start = 0;
    for (const [name, shape] of packed.tensors) {
      const size = shape.reduce((product, length) => product * length, 1);
      this.tensors.set(name, { shape, values: new Float32Array(bytes.buffer, 4 * start, size) });
      start += size;
    }
  }

  get(name) { return this.tensors.get(name).values; }

  shape(name) { return this.tensors.get(name).shape; }

  linear(name) {
    const { shape, values } = this.tensors.get(`${name}.weight`);
    return new Linear(values, this.tensors.get(`${name}.bias`)?.values, shape[1] ?? 1);
  }
}
