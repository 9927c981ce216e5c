"use strict";
// PNGs with exact levels, written and read by hand: a browser would make colours of them, and a map's ids are no colours.

{
  const SIGN = [137, 80, 78, 71, 13, 10, 26, 10];
  const LARGEST = 2 ** 24; // pixels that are read
  const GREY = 0; // a kind of PNG
  const BANDS = { [GREY]: 1, 2: 3, 3: 1, 4: 2, 6: 4 }; // numbers of a pixel: grey, colours, palette, the first two with alpha

  const table = Uint32Array.from({ length: 256 }, (_, number) => {
    let value = number;
    for (let bit = 0; bit < 8; bit++) value = value & 1 ? (value >>> 1) ^ 0xedb88320 : value >>> 1;
    return value;
  });

  function checked(kind, data) {
    const chunk = new Uint8Array(12 + data.length);
    const view = new DataView(chunk.buffer);
    view.setUint32(0, data.length);
    for (let place = 0; place < 4; place++) chunk[4 + place] = kind.charCodeAt(place);
    chunk.set(data, 8);
    let sum = ~0;
    for (const byte of chunk.subarray(4, 8 + data.length)) sum = table[(sum ^ byte) & 255] ^ (sum >>> 8);
    view.setUint32(8 + data.length, ~sum);
    return chunk;
  }

  const through = async (parts, stream) => new Uint8Array(await new Response(new Blob(parts).stream().pipeThrough(stream)).arrayBuffer());

  /** A grey PNG of these levels as a data URL. */
  window.darkroom.greyPng = async (levels, width, height) => {
    const rows = new Uint8Array(height * (width + 1)); // each begins with its filter, none
    for (let y = 0; y < height; y++) rows.set(levels.subarray(y * width, (y + 1) * width), y * (width + 1) + 1);
    const head = new Uint8Array(13);
    new DataView(head.buffer).setUint32(0, width);
    new DataView(head.buffer).setUint32(4, height);
    head[8] = 8; // bits; all else 0: grey, no interlacing
    const packed = await through([rows], new CompressionStream("deflate"));
    const parts = [Uint8Array.from(SIGN), checked("IHDR", head), checked("IDAT", packed), checked("IEND", new Uint8Array())];
    return window.darkroom.dataUrl(new Blob(parts, { type: "image/png" }));
  };

  /** The levels of a grey PNG, or the numbers of one with a palette, as the server reads them: {levels, width, height}. */
  window.darkroom.levelsOf = async (blob) => {
    const bytes = new Uint8Array(await blob.arrayBuffer());
    const view = new DataView(bytes.buffer);
    if (bytes.length < 33 || SIGN.some((each, place) => bytes[place] !== each)) throw new Error("A map is a PNG, and this is none.");
    const [width, height] = [view.getUint32(16), view.getUint32(20)];
    const [bits, kind, , , interlaced] = bytes.subarray(24, 29);
    const bands = BANDS[kind];
    if (interlaced) throw new Error("This PNG is interlaced; save it without.");
    if (!width || !height || width * height > LARGEST) throw new Error(`${width} x ${height} pixels are not taken for a map.`);
    let levels;
    try {
      const packed = await through(parts(bytes, view), new DecompressionStream("deflate"));
      const across = Math.ceil((width * bands * bits) / 8);
      const found = rows(packed, height, across, Math.ceil((bands * bits) / 8));
      levels = bands === 1 ? numbers(found, { width, height, across, bits }) : bits === 8 && greyOf(found, bands);
    } catch {
      throw new Error("This PNG cannot be read.");
    }
    if (!levels) throw new Error("A map holds class ids as grey levels or palette numbers; this PNG has colours.");
    const times = kind === GREY && bits > 1 && bits < 8 ? 255 / (2 ** bits - 1) : 1; // levels of grey, for these few
    return { levels: times === 1 ? levels : levels.map((level) => level * times), width, height };
  };

  /** The data of its chunks of pixels. */
  function parts(bytes, view) {
    const found = [];
    for (let place = 8; place + 12 <= bytes.length; place += 12 + view.getUint32(place))
      if (String.fromCharCode(...bytes.subarray(place + 4, place + 8)) === "IDAT") found.push(bytes.subarray(place + 8, place + 8 + view.getUint32(place)));
    return found;
  }

  /** Rows with their filters undone (PNG specification, 9.2). step: bytes of a pixel, at least 1. */
  function rows(packed, height, across, step) {
    if (packed.length < height * (across + 1)) throw new Error("cut short");
    const made = new Uint8Array(height * across);
    for (let y = 0; y < height; y++) {
      const filter = packed[y * (across + 1)];
      for (let x = 0; x < across; x++) {
        const at = y * across + x;
        const left = x < step ? 0 : made[at - step];
        const above = y ? made[at - across] : 0;
        const corner = y && x >= step ? made[at - across - step] : 0;
        made[at] = packed[at + y + 1] + expected(filter, left, above, corner);
      }
    }
    return made;
  }

  function expected(filter, left, above, corner) {
    if (filter === 0) return 0;
    if (filter === 1) return left;
    if (filter === 2) return above;
    if (filter === 3) return (left + above) >> 1;
    if (filter !== 4) throw new Error("unknown filter");
    const [byLeft, byAbove, byCorner] = [left, above, corner].map((each) => Math.abs(left + above - corner - each));
    if (byLeft <= byAbove && byLeft <= byCorner) return left;
    return byAbove <= byCorner ? above : corner;
  }

  /** The level of each pixel, where all of its colours are the same and it is opaque; null for a picture with others. */
  function greyOf(bytes, bands) {
    const colours = bands % 2 ? bands : bands - 1;
    const fits = (byte, at) => byte === (at % bands < colours ? bytes[at - (at % bands)] : 255);
    return bytes.every(fits) ? Uint16Array.from({ length: bytes.length / bands }, (_, pixel) => bytes[pixel * bands]) : null;
  }

  /** A number a pixel, of 1 to 16 bits. */
  function numbers(bytes, { width, height, across, bits }) {
    return Uint16Array.from({ length: width * height }, (_, place) => {
      const [row, x] = [Math.floor(place / width) * across, place % width];
      if (bits === 16) return bytes[row + 2 * x] * 256 + bytes[row + 2 * x + 1];
      const bit = x * bits;
      return (bytes[row + (bit >> 3)] >> (8 - bits - (bit & 7))) & (2 ** bits - 1);
    });
  }
}
