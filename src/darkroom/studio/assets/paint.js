"use strict";
// Painting by number: a map of class ids, or a mask over a picture. What is kept are levels, one a pixel of the model.

{
  const { make, button, colour } = window.darkroom;
  const NAMES = { hole: "Paint here", known: "Keep" };

  /** The colours of a picture on white, or of the middle of it as a square of this side, where nothing is mixed. */
  function pixels(image, side = null) {
    const [width, height] = side ? [side, side] : [image.width, image.height];
    const [across, down] = side ? Array(2).fill(Math.min(image.width, image.height)) : [width, height];
    const pen = make("canvas", { width, height }).getContext("2d");
    pen.imageSmoothingEnabled = false;
    pen.fillStyle = "#fff";
    pen.fillRect(0, 0, width, height);
    pen.drawImage(image, (image.width - across) / 2, (image.height - down) / 2, across, down, 0, 0, width, height);
    return pen.getImageData(0, 0, width, height);
  }

  /** The middle of a map as a square of this side, no two ids mixed. */
  function squared({ levels, width, height }, side) {
    const whole = Math.min(width, height);
    const at = (place, length) => Math.floor((length - whole) / 2 + ((place + 0.5) * whole) / side);
    return Uint16Array.from({ length: side * side }, (_, place) => levels[at(Math.floor(place / side), height) * width + at(place % side, width)]);
  }

  class Painter extends HTMLElement {
    connectedCallback() {
      if (this.childElementCount) return;
      this.tab = window.darkroom.told(this).tab;
      this.setAttribute("data-tab", this.tab);
      this.brush = make("input", { type: "range", min: 1, max: 32, value: 7, className: "dr-range" });
      this.brush.setAttribute("aria-label", "Brush, in pixels of the picture");
      this.palette = make("div", { className: "dr-palette", role: "group" });
      this.palette.setAttribute("aria-label", "Paint with");
      this.board = make("div", { className: "dr-board" });
      this.ink = make("canvas", { className: "dr-ink", tabIndex: 0, role: "application" });
      this.ink.setAttribute("aria-label", "Canvas: drag to paint; arrows move the brush, Space paints");
      this.board.append(this.ink);
      const tools = [
        button("Undo", () => this.undo()),
        button("Fill", () => this.fill(this.level)),
        button("Clear", () => this.clear()),
        window.darkroom.openButton(this.file.what, this.file.accept, (file) => this.open(file)),
        button("Save", () => this.save()),
      ];
      const size = make("label", { textContent: "Brush ", className: "dr-inline" }, this.brush);
      this.words = make("p", { className: "dr-hint", role: "status" });
      this.append(this.palette, make("div", { className: "dr-tools" }, size, ...tools), this.board, this.words);
      this.before = [];
      this.ink.onpointerdown = (event) => this.down(event);
      this.ink.onkeydown = (event) => this.key(event);
      this.begin();
    }

    resize(width, height) {
      if (this.levels && this.width === width && this.height === height) return;
      Object.assign(this, { width, height, levels: new Uint8Array(width * height), before: [] });
      Object.assign(this.ink, { width, height });
      this.at = [width / 2, height / 2];
      this.draw();
    }

    /** Paints to choose from: [level, name, colour]. */
    offer(paints) {
      this.level = paints[Math.min(1, paints.length - 1)][0];
      this.palette.replaceChildren(
        ...paints.map(([level, name, ink]) => {
          const swatch = make("span", { className: "dr-swatch", style: { background: ink } });
          const made = button("", () => this.choose(level), { className: "dr-paint", dataset: { level, name } });
          made.append(swatch, name);
          return made;
        }),
      );
      this.paints = new Map(paints.map(([level, , ink]) => [level, ink]));
      this.choose(this.level);
    }

    choose(level) {
      this.level = level;
      for (const each of this.palette.children) each.setAttribute("aria-pressed", String(Number(each.dataset.level) === level));
    }

    keep() {
      this.before.push(this.levels.slice());
      if (this.before.length > 30) this.before.shift();
    }

    undo() {
      this.levels = this.before.pop() || this.levels;
      this.draw();
    }

    fill(level) {
      this.keep();
      this.levels.fill(level);
      this.draw();
    }

    clear() {
      this.fill(0);
    }

    /** Take what a file says instead of painting it. */
    async open(file) {
      try {
        this.words.textContent = await this.given(file);
      } catch (error) {
        this.words.textContent = error.message;
      }
    }

    async save() {
      window.darkroom.save(this.file.name, await window.darkroom.greyPng(this.levels, this.width, this.height));
    }

    /** Levels from elsewhere, of that size from now on. */
    take(levels, width, height) {
      this.resize(width, height);
      this.keep();
      this.levels = Uint8Array.from(levels);
      this.draw();
    }

    /** The levels of a grey PNG of ours. */
    async put(url) {
      const { width, height, data } = pixels(await window.darkroom.decoded(url));
      this.take(
        Array.from({ length: width * height }, (_, place) => data[4 * place]),
        width,
        height,
      );
    }

    place(event) {
      const frame = this.ink.getBoundingClientRect();
      return [((event.clientX - frame.left) / frame.width) * this.width, ((event.clientY - frame.top) / frame.height) * this.height];
    }

    down(event) {
      if (event.button) return; // a menu is asked for
      event.preventDefault();
      this.ink.focus();
      this.byKeys = false;
      this.keep();
      let last = this.place(event);
      this.stroke(last, last);
      const move = (moved) => {
        const next = this.place(moved);
        this.stroke(last, next);
        last = next;
      };
      const up = () => {
        removeEventListener("pointermove", move);
        removeEventListener("pointerup", up);
        removeEventListener("pointercancel", up);
      };
      addEventListener("pointermove", move);
      addEventListener("pointerup", up);
      addEventListener("pointercancel", up);
    }

    key(event) {
      const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
      if (step) this.at = this.at.map((each, axis) => Math.min([this.width, this.height][axis], Math.max(0, each + 2 * step[axis])));
      else if (event.key === " ") {
        this.keep();
        this.stroke(this.at, this.at);
      } else if (event.key === "z" && (event.ctrlKey || event.metaKey)) this.undo();
      else return;
      event.preventDefault();
      this.byKeys = true; // the brush is seen where it stands
      this.draw();
    }

    /** Every pixel whose middle is within the brush on the way takes the level. */
    stroke([fromX, fromY], [toX, toY]) {
      const radius = Number(this.brush.value) / 2;
      const [alongX, alongY] = [toX - fromX, toY - fromY];
      const length = alongX * alongX + alongY * alongY || 1;
      const range = (one, other, most) => [Math.max(0, Math.floor(Math.min(one, other) - radius)), Math.min(most, Math.ceil(Math.max(one, other) + radius))];
      const [left, right] = range(fromX, toX, this.width);
      const [top, bottom] = range(fromY, toY, this.height);
      for (let y = top; y < bottom; y++)
        for (let x = left; x < right; x++) {
          const share = Math.min(1, Math.max(0, ((x + 0.5 - fromX) * alongX + (y + 0.5 - fromY) * alongY) / length));
          const away = Math.hypot(x + 0.5 - fromX - share * alongX, y + 0.5 - fromY - share * alongY);
          if (away <= radius) this.levels[y * this.width + x] = this.level;
        }
      this.draw();
    }

    draw() {
      const pen = this.ink.getContext("2d");
      pen.clearRect(0, 0, this.width, this.height);
      for (let y = 0; y < this.height; y++)
        for (let x = 0; x < this.width; ) {
          const level = this.levels[y * this.width + x];
          let end = x + 1;
          while (end < this.width && this.levels[y * this.width + end] === level) end++;
          pen.fillStyle = this.paints?.get(level) || "transparent";
          pen.fillRect(x, y, end - x, 1);
          x = end;
        }
      if (this.byKeys) {
        pen.strokeStyle = "#fff";
        pen.lineWidth = 0.5;
        pen.strokeRect(this.at[0] - 1, this.at[1] - 1, 2, 2);
      }
    }
  }

  customElements.define(
    "darkroom-map",
    class extends Painter {
      file = { name: "map.png", accept: "image/png", what: "Open a map: a PNG whose grey levels or palette numbers are class ids" };

      begin() {
        window.darkroom.takesDrops(this.board, (file) => this.open(file));
        this.show();
      }

      get model() {
        return window.darkroom.models[window.darkroom.chosen(this.tab)];
      }

      show() {
        if (window.darkroom.absent(this)) return;
        const names = window.darkroom.names(this.model, "map").slice(0, 256);
        if (!this.levels || window.darkroom.suitable(this, this.model)) this.resize(this.model.size[1], this.model.size[0]);
        this.levels = this.levels.map((level) => (level < names.length ? level : 0)); // of a model with more classes
        this.offer(names.map((name, level) => [level, name, colour(level)]));
        this.draw();
      }

      clear() {
        this.resize(this.model.size[1], this.model.size[0]);
        this.fill(0);
      }

      async given(file) {
        const map = await window.darkroom.levelsOf(file);
        const count = window.darkroom.names(this.model, "map").length;
        const wrong = map.levels.find((level) => level >= count);
        if (wrong !== undefined) throw new Error(`The map has the id ${wrong}; this model has ${count} map classes, 0 to ${count - 1}.`);
        const side = window.darkroom.suitable(map, this.model);
        if (side) this.take(squared(map, side), side, side);
        else this.take(map.levels, map.width, map.height);
        return `${map.width} x ${map.height} pixels${side ? `, brought to ${side} x ${side}` : ""}`;
      }

      empty() {
        return !this.levels.some(Boolean);
      }

      async fields() {
        return { map: await window.darkroom.greyPng(this.levels, this.width, this.height) };
      }

      async restore({ map }) {
        if (map) await this.put(map);
        else this.fill(0);
      }
    },
  );

  customElements.define(
    "darkroom-hole",
    class extends Painter {
      file = { name: "mask.png", accept: "image/png,image/jpeg,image/webp", what: "Open a mask: a picture of the same size, white where to paint" };

      begin() {
        this.picture = make("darkroom-image", { dataset: { told: this.dataset.told } });
        this.picture.ready = (image) => {
          this.board.hidden = !image;
          if (!image) return;
          this.resize(image.width, image.height);
          this.back.src = image.src;
        };
        this.back = make("img", { alt: "the picture to paint into", className: "dr-back" });
        this.board.prepend(this.back);
        this.board.hidden = true;
        this.prepend(this.picture);
        this.picture.shown.style.display = "none"; // it is seen below the mask
        this.resize(64, 64);
        this.offer([
          [0, NAMES.known, "transparent"],
          [255, NAMES.hole, "#ff4d00b0"],
        ]);
      }

      show() {
        return this.picture.show();
      }

      async given(file) {
        if (!this.picture.url) throw new Error("Give the picture first.");
        const readable = window.darkroom.dataUrl(file).then(window.darkroom.decoded);
        const mask = await readable.catch(() => Promise.reject(new Error("This is no picture that can be read here.")));
        const of = (one) => [one.width, one.height].join(" x ");
        const [whole, shown] = [await window.darkroom.decoded(this.picture.original), of(this)];
        if (of(mask) !== of(whole) && of(mask) !== shown) throw new Error(`The mask is ${of(mask)} pixels and the picture ${of(whole)}; they must be of one size.`);
        const { width, height, data } = pixels(mask, of(mask) === shown ? null : this.width);
        const ink = Array.from({ length: width * height }, (_, place) => {
          const [red, green, blue] = data.subarray(4 * place, 4 * place + 3);
          return 0.299 * red + 0.587 * green + 0.114 * blue >= 127.5 ? 255 : 0;
        });
        if (!ink.includes(255)) throw new Error("Nothing is white in this mask, so nothing would be painted.");
        this.take(ink, width, height);
        return `${of(mask)} pixels${of(mask) === shown ? "" : `, brought to ${shown}`}`;
      }

      async fields() {
        const image = await this.picture.fields();
        if (!this.levels.includes(255)) throw new Error("paint over what shall be drawn anew first");
        return { ...image, mask: await window.darkroom.greyPng(this.levels, this.width, this.height) };
      }

      async restore(asked) {
        await this.picture.restore(asked);
        if (asked.mask) await this.put(asked.mask);
        else this.fill(0);
      }
    },
  );
}
