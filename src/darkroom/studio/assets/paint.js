"use strict";
// Painting by number: a map of class ids, or a mask over a picture. What is kept are levels, one a pixel of the model.

{
  const { make, button, colour } = window.darkroom;
  const NAMES = { hole: "Paint here", known: "Keep" };

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
      const tools = [button("Undo", () => this.undo()), button("Fill", () => this.fill(this.level)), button("Clear", () => this.fill(0))];
      const size = make("label", { textContent: "Brush ", className: "dr-inline" }, this.brush);
      this.append(this.palette, make("div", { className: "dr-tools" }, size, ...tools), this.board);
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

    /** The levels of a grey PNG of ours. */
    async put(url) {
      const image = await window.darkroom.decoded(url);
      this.resize(image.width, image.height);
      const pen = make("canvas", { width: image.width, height: image.height }).getContext("2d");
      pen.drawImage(image, 0, 0);
      const { data } = pen.getImageData(0, 0, image.width, image.height);
      this.keep();
      this.levels = Uint8Array.from({ length: image.width * image.height }, (_, place) => data[4 * place]);
      this.draw();
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
      begin() {
        this.show();
      }

      show() {
        const model = window.darkroom.models[window.darkroom.chosen(this.tab)];
        const names = model.map_classes.length ? model.map_classes : Array.from({ length: 10 }, (_, number) => String(number));
        this.resize(model.size[1], model.size[0]);
        this.levels = this.levels.map((level) => (level < names.length ? level : 0)); // of a model with more classes
        this.offer(names.map((name, level) => [level, name, colour(level)]));
        this.draw();
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
