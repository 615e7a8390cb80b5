// An animated GIF, frame by frame: colours as they come, up to 256 of them, and of each frame only what has changed.

const [CLEAR, END, FIRST, LIMIT] = [256, 257, 258, 4096]; // codes: two signals, the first of a string, one too many

export class Gif {
  /** width, height: of every frame; delay: hundredths of a second that each is shown. */
  constructor(width, height, delay) {
    Object.assign(this, { width, height, delay, parts: [], colors: [], shown: null });
    this.known = new Int16Array(4096).fill(-1); // four bits of red, green and blue -> index into colors
  }

  /** Add a frame; data: of an ImageData, four numbers a pixel. */
  add(data) {
    const indices = new Uint8Array(this.width * this.height);
    for (let at = 0; at < indices.length; at++) indices[at] = this.indexOf(data, 4 * at);
    const [x, y, width, height] = this.changed(indices), cut = new Uint8Array(width * height);
    for (let row = 0; row < height; row++) {
      const from = (y + row) * this.width + x;
      cut.set(indices.subarray(from, from + width), row * width);
    }
    this.shown = indices;
    const place = [x, y, width, height].flatMap(twoBytes);
    this.parts.push(Uint8Array.of(0x21, 0xf9, 4, 4, ...twoBytes(this.delay), 0, 0, 0x2c, ...place, 0, 8), ...pack(cut));
  }

  /** Index of a pixel's colour: the first one that came with the same four bits, or the nearest, once there are 256. */
  indexOf(data, at) {
    const red = data[at], green = data[at + 1], blue = data[at + 2], { colors, known } = this;
    const key = ((red >> 4) << 8) | ((green >> 4) << 4) | (blue >> 4);
    if (known[key] < 0 && colors.length < 256) known[key] = colors.push([red, green, blue]) - 1;
    if (known[key] < 0) {
      const far = colors.map(([r, g, b]) => (r - red) ** 2 + (g - green) ** 2 + (b - blue) ** 2);
      known[key] = far.indexOf(Math.min(...far));
    }
    return known[key];
  }

  /** The rectangle [x, y, width, height] of what differs from the frame before; at least one pixel. */
  changed(indices) {
    if (this.shown === null) return [0, 0, this.width, this.height];
    let [left, top, right, bottom] = [this.width - 1, this.height - 1, 0, 0];
    indices.forEach((index, at) => {
      if (index === this.shown[at]) return;
      const x = at % this.width, y = Math.floor(at / this.width);
      [left, top, right, bottom] = [Math.min(left, x), Math.min(top, y), Math.max(right, x), Math.max(bottom, y)];
    });
    return right < left ? [0, 0, 1, 1] : [left, top, right - left + 1, bottom - top + 1];
  }

  /** The file: it plays without end. */
  blob() {
    const colors = new Uint8Array(3 * 256), letters = (text) => Array.from(text, (letter) => letter.charCodeAt(0));
    this.colors.forEach((color, index) => colors.set(color, 3 * index));
    const head = [...letters("GIF89a"), ...twoBytes(this.width), ...twoBytes(this.height), 0xf7, 0, 0, ...colors];
    const loop = [0x21, 0xff, 11, ...letters("NETSCAPE2.0"), 3, 1, 0, 0, 0];
    return new Blob([Uint8Array.of(...head, ...loop), ...this.parts, Uint8Array.of(0x3b)], { type: "image/gif" });
  }
}

const twoBytes = (number) => [number & 255, number >> 8];

/** Compress indices (LZW, codes of 9 to 12 bits) into the blocks of a frame, the last of them empty. */
function pack(indices) {
  const bytes = [];
  let codes = new Map(), size = 9, next = FIRST, bits = 0, numBits = 0, string = indices[0];
  const put = (code) => {
    bits |= code << numBits;
    for (numBits += size; numBits >= 8; numBits -= 8, bits >>= 8) bytes.push(bits & 255);
  };
  put(CLEAR);
  for (let k = 1; k < indices.length; k++) {
    const longer = (string << 8) | indices[k], code = codes.get(longer);
    string = code ?? indices[k];
    if (code !== undefined) continue;
    put(longer >> 8);
    if (next === LIMIT) {
      put(CLEAR);
      [codes, size, next] = [new Map(), 9, FIRST];
    } else {
      if (next >= 1 << size) size++;
      codes.set(longer, next++);
    }
  }
  [string, END, 0].forEach(put); // the last fills the byte
  const blocks = Array.from({ length: Math.ceil(bytes.length / 255) }, (_, k) => bytes.slice(255 * k, 255 * (k + 1)));
  return [...blocks, []].map((block) => Uint8Array.of(block.length, ...block));
}
