"use strict";
// Layouts: boxes that are drawn, moved, sized and named, with a pointer or with keys.

{
  const { make, button, colour } = window.darkroom;
  const SMALLEST = 0.03; // share of a side

  /** The boxes in the text of a file; an Error that says what does not fit. names: that categories have. */
  function read(text, names) {
    let found;
    try {
      found = JSON.parse(text);
    } catch {
      throw new Error("This file is no JSON.");
    }
    const things = Array.isArray(found) ? found : found?.objects;
    const inside = ([x, y, width, height]) => Math.min(x, y) >= 0 && Math.min(width, height) > 0 && Math.max(x + width, y + height) <= 1 + 1e-6;
    const fits = (box) => Array.isArray(box) && box.length === 4 && box.every(Number.isFinite) && inside(box);
    if (!Array.isArray(things) || !things.every((each) => fits(each?.box))) throw new Error('A list of {"category": "...", "box": [x, y, width, height]} is needed, all in 0..1.');
    return things.map(({ category, box: [x, y, width, height] }) => {
      const name = names.includes(category) ? category : /^\d+$/.test(category) ? names[Number(category)] : undefined;
      if (name === undefined) throw new Error(`The model knows no ${category}; it knows ${names.join(", ")}.`);
      return { category: name, x, y, width, height };
    });
  }

  customElements.define(
    "darkroom-boxes",
    class extends HTMLElement {
      connectedCallback() {
        if (this.childElementCount) return;
        this.tab = window.darkroom.told(this).tab;
        this.boxes = [];
        this.setAttribute("data-tab", this.tab);
        this.stage = make("div", { className: "dr-stage", tabIndex: 0, role: "application" });
        this.words = make("p", { className: "dr-hint", role: "status" });
        this.stage.setAttribute("aria-label", "Layout: drag to draw a box; Enter adds one, Page Down chooses the next, arrows move it, with Shift they size it");
        this.next = make("select", { className: "dr-select", id: `dr-${this.tab}-category` });
        this.next.onchange = () => this.rename();
        const clear = button("Clear", () => this.put([]));
        const remove = button("Remove", () => this.erase());
        const open = window.darkroom.openButton("Open a layout: a JSON file of categories and boxes", ".json,application/json", (file) => this.open(file));
        const save = button("Save", () => this.save());
        const label = make("label", { textContent: "Name ", className: "dr-inline" }, this.next);
        this.append(make("div", { className: "dr-tools" }, label, remove, clear, open, save), this.stage, this.words);
        window.darkroom.takesDrops(this.stage, (file) => this.open(file));
        this.append(make("p", { className: "dr-hint", textContent: "Drag to draw; drag a box to move it, its corner to size it. Keys: Enter adds, Page Down chooses the next, arrows move, Shift and arrows size, Delete removes." }));
        this.stage.onpointerdown = (event) => this.down(event);
        this.stage.onkeydown = (event) => this.key(event);
        this.show();
      }

      /** The names of the chosen model. */
      show() {
        if (window.darkroom.absent(this)) return;
        const names = window.darkroom.names(window.darkroom.models[window.darkroom.chosen(this.tab)], "objects");
        this.next.replaceChildren(...names.map((name) => make("option", { value: name, textContent: name })));
        this.names = names;
        this.draw();
      }

      async fields() {
        if (this.empty()) throw new Error("draw a box first");
        return { layout: this.layout() };
      }

      empty() {
        return !this.boxes.length;
      }

      /** The boxes as requests and files have them. */
      layout() {
        const share = (number) => Math.round(number * 1e6) / 1e6;
        return this.boxes.map(({ category, x, y, width, height }) => {
          const [left, top] = [share(x), share(y)];
          return { category, box: [left, top, Math.min(share(width), 1 - left), Math.min(share(height), 1 - top)] };
        });
      }

      save() {
        window.darkroom.save("layout.json", `data:application/json,${encodeURIComponent(JSON.stringify(this.layout()))}`);
      }

      /** Take the boxes of a file, as `darkroom sample --layout` does. */
      async open(file) {
        try {
          this.put(read(await file.text(), this.names));
        } catch (error) {
          this.words.textContent = error.message;
        }
      }

      /** Boxes from elsewhere, as requests have them. */
      restore(asked) {
        const placed = asked.layout || [];
        this.put(placed.map(({ category, box: [x, y, width, height] }) => ({ category: String(category), x, y, width, height })));
      }

      put(boxes) {
        this.boxes = boxes;
        this.chosen = boxes[boxes.length - 1];
        if (this.chosen) this.next.value = this.chosen.category;
        this.draw();
      }

      rename() {
        if (this.chosen) this.chosen.category = this.next.value;
        this.draw();
      }

      erase() {
        this.put(this.boxes.filter((each) => each !== this.chosen));
      }

      /** Choose the next box, or the one before. */
      turn(step) {
        if (!this.boxes.length) return;
        const place = this.boxes.indexOf(this.chosen) + step;
        this.chosen = this.boxes[(place + this.boxes.length) % this.boxes.length];
        this.next.value = this.chosen.category;
        this.draw();
      }

      place(event) {
        const frame = this.stage.getBoundingClientRect();
        const share = (at, start, length) => Math.min(1, Math.max(0, (at - start) / length));
        return [share(event.clientX, frame.left, frame.width), share(event.clientY, frame.top, frame.height)];
      }

      down(event) {
        if (event.button) return; // a menu is asked for
        event.preventDefault();
        this.stage.focus();
        const [x, y] = this.place(event);
        const place = event.target.closest?.(".dr-box");
        const box = place ? this.boxes[place.dataset.place] : { category: this.next.value, x, y, width: 0, height: 0 };
        if (!place) this.boxes.push(box);
        this.chosen = box;
        this.next.value = box.category;
        const sizing = !place || event.target.className === "dr-corner";
        const start = sizing ? [box.x, box.y] : [x - box.x, y - box.y];
        const move = (moved) => {
          const [right, bottom] = this.place(moved);
          if (sizing) {
            Object.assign(box, { x: Math.min(start[0], right), y: Math.min(start[1], bottom) });
            Object.assign(box, { width: Math.abs(right - start[0]), height: Math.abs(bottom - start[1]) });
          } else this.move(box, right - start[0], bottom - start[1]);
          this.draw();
        };
        const up = () => {
          removeEventListener("pointermove", move);
          removeEventListener("pointerup", up);
          removeEventListener("pointercancel", up);
          if (Math.min(box.width, box.height) < SMALLEST) this.erase();
        };
        addEventListener("pointermove", move);
        addEventListener("pointerup", up);
        addEventListener("pointercancel", up); // the system took the finger for something else
        this.draw();
      }

      move(box, x, y) {
        box.x = Math.min(1 - box.width, Math.max(0, x));
        box.y = Math.min(1 - box.height, Math.max(0, y));
      }

      key(event) {
        const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
        if (event.key === "Enter") {
          this.put([...this.boxes, { category: this.next.value, x: 0.3, y: 0.3, width: 0.4, height: 0.4 }]);
        } else if (event.key === "Delete" || event.key === "Backspace") this.erase();
        else if (event.key === "PageDown" || event.key === "PageUp") this.turn(event.key === "PageDown" ? 1 : -1);
        else if (step && this.chosen) {
          const [right, down] = step.map((each) => each / 64);
          const box = this.chosen;
          if (event.shiftKey) {
            box.width = Math.min(1 - box.x, Math.max(SMALLEST, box.width + right));
            box.height = Math.min(1 - box.y, Math.max(SMALLEST, box.height + down));
          } else this.move(box, box.x + right, box.y + down);
          this.draw();
        } else return;
        event.preventDefault();
      }

      draw() {
        const share = (number) => `${100 * number}%`;
        this.stage.replaceChildren(
          ...this.boxes.map((box, place) => {
            const ink = colour(this.names.indexOf(box.category) + 1);
            const style = { left: share(box.x), top: share(box.y), width: share(box.width), height: share(box.height), borderColor: ink };
            const ground = `color-mix(in srgb, ${ink} 60%, white)`; // what is written on it can be read in every colour
            const name = make("span", { className: "dr-name", textContent: box.category, style: { background: ground } });
            const className = box === this.chosen ? "dr-box chosen" : "dr-box";
            return make("div", { className, style, dataset: { place } }, name, make("span", { className: "dr-corner" }));
          }),
        );
        this.words.textContent = this.told();
      }

      /** How it stands, for whoever cannot see it. */
      told() {
        const count = this.boxes.length;
        const place = this.boxes.indexOf(this.chosen);
        return place < 0 ? "No box yet." : `Box ${place + 1} of ${count} is chosen: ${this.chosen.category}.`;
      }
    },
  );
}
