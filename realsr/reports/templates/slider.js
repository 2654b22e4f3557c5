
"use strict";
// What CSS shows only where a script runs has the class "scripted"; the pictures are stacked by CSS alone.
document.documentElement.classList.add("js");

const STEP = 2; // percent that a press of Shift and an arrow key moves a zoomed picture
const MOST = 32; // times the picture's own size on the page
const comparisons = [];

/** One photo: its range input holds where the line is, CSS variables of the stage what part of the picture is seen. */
class Comparison {
  constructor(section) {
    this.name = section.querySelector("h3").textContent;
    this.stage = section.querySelector(".stage");
    this.figures = [...this.stage.querySelectorAll("figure")];
    this.line = this.stage.querySelector("input");
    this.percent = section.querySelector(".zoom output");
    this.pickers = { left: section.querySelector("select.left"), right: section.querySelector("select.right") };
    this.captions = { left: section.querySelector(".captions .left"), right: section.querySelector(".captions .right") };
    this.width = Number(getComputedStyle(section).getPropertyValue("--w"));
    for (const picker of Object.values(this.pickers)) picker.addEventListener("change", () => this.showMethods());
    for (const button of section.querySelectorAll(".zoom button")) {
      button.addEventListener("click", () => this.zoom(Number(button.value)));
    }
    this.line.addEventListener("input", () => this.showLine());
    this.stage.addEventListener("keydown", (event) => this.onKey(event));
    this.stage.addEventListener("wheel", (event) => this.onWheel(event), { passive: false });
    this.stage.addEventListener("pointerdown", (event) => this.onDown(event));
    this.stage.addEventListener("pointermove", (event) => this.onMove(event));
    for (const end of ["pointerup", "pointercancel"]) this.stage.addEventListener(end, () => (this.drag = null));
    this.stage.addEventListener("dragstart", (event) => event.preventDefault());
    this.show({ zoom: 1, x: 0, y: 0 });
  }

  /** Choose methods by side; one that this photo has no picture of is left out. */
  choose(side, method) {
    if (![...this.pickers[side].options].some((option) => option.value === method)) return;
    this.pickers[side].value = method;
    this.showMethods();
  }

  showMethods() {
    for (const side of ["left", "right"]) {
      for (const figure of this.figures) {
        const chosen = figure.dataset.method === this.pickers[side].value;
        figure.classList.toggle(side, chosen);
        if (chosen) this.captions[side].innerHTML = figure.querySelector("figcaption").innerHTML;
      }
    }
    this.line.setAttribute("aria-label", `${this.name}: ${this.pickers.left.value} to ${this.pickers.right.value}`);
    this.showLine();
  }

  showLine() {
    this.stage.style.setProperty("--line", this.line.value);
    this.line.setAttribute("aria-valuetext", `${this.line.value} % ${this.pickers.left.value}`);
  }

  /** Show the part of the picture whose top left corner is at (x, y), in [0, 1], `zoom` times as large. */
  show({ zoom, x, y }) {
    zoom = Math.min(Math.max(zoom, 1), MOST);
    const within = (value) => Math.min(Math.max(value, 0), 1 - 1 / zoom);
    this.view = { zoom, x: within(x), y: within(y) };
    for (const [name, value] of Object.entries(this.view)) this.stage.style.setProperty(`--${name}`, value);
    const scale = (zoom * this.stage.clientWidth) / this.width;
    this.percent.textContent = `${Math.round(100 * scale)} %`;
    this.stage.classList.toggle("zoomed", zoom > 1);
    this.stage.classList.toggle("enlarged", scale * devicePixelRatio >= 1);
  }

  /** The same for all photos, if that is wanted. */
  showTogether(view) {
    this.show(view);
    if (document.getElementById("together").checked) comparisons.forEach((other) => other.show(this.view));
  }

  /** Zoom by a factor, 0 for all of the picture; what is at (u, v) of the stage, in [0, 1], stays there. */
  zoom(factor, u = 0.5, v = 0.5) {
    const zoom = Math.min(Math.max(this.view.zoom * factor, 1), MOST);
    const moved = 1 / this.view.zoom - 1 / zoom;
    this.showTogether({ zoom, x: this.view.x + u * moved, y: this.view.y + v * moved });
  }

  /** Move the picture by parts of the stage. */
  move(du, dv) {
    const { zoom, x, y } = this.view;
    this.showTogether({ zoom, x: x - du / zoom, y: y - dv / zoom });
  }

  at(event) {
    const box = this.stage.getBoundingClientRect();
    return { u: (event.clientX - box.left) / box.width, v: (event.clientY - box.top) / box.height, box };
  }

  onKey(event) {
    const zooms = { "+": 2, "=": 2, "-": 0.5, 0: 0 };
    const moves = { ArrowLeft: [1, 0], ArrowRight: [-1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] };
    if (event.ctrlKey || event.metaKey || event.altKey) return; // the browser's
    if (event.key in zooms) this.zoom(zooms[event.key]);
    else if (event.shiftKey && event.key in moves) this.move(...moves[event.key].map((way) => (way * STEP) / 100));
    else return;
    event.preventDefault();
  }

  /** The wheel scrolls the page until the picture is clicked; a pinch on a touchpad comes with the Control key. */
  onWheel(event) {
    const wanted = event.ctrlKey || document.activeElement === this.line;
    if (!wanted || (this.view.zoom === 1 && event.deltaY > 0 && !event.ctrlKey)) return;
    event.preventDefault();
    const { u, v } = this.at(event);
    const lines = event.deltaMode === WheelEvent.DOM_DELTA_LINE;
    this.zoom(2 ** (-event.deltaY / (lines ? 12 : 400)), u, v);
  }

  onDown(event) {
    if (event.button !== 0 || !event.isPrimary) return;
    event.preventDefault(); // or the line would lose the focus again
    this.line.focus({ preventScroll: true, focusVisible: false });
    this.stage.setPointerCapture(event.pointerId);
    const { u, v, box } = this.at(event);
    const onLine = Math.abs(u - this.line.value / 100) * box.width < 24;
    this.drag = { line: this.view.zoom === 1 || onLine, u, v };
    this.onMove(event);
  }

  onMove(event) {
    if (!this.drag || !event.isPrimary) return;
    const { u, v } = this.at(event);
    if (this.drag.line) {
      this.line.value = 100 * u;
      this.showLine();
    } else {
      this.move(u - this.drag.u, v - this.drag.v);
      Object.assign(this.drag, { u, v });
    }
  }
}

/** Buttons in the head of a table sort its rows: numbers by value, those missing last; names as people count. */
function makeSortable(table) {
  const heads = [...table.tHead.rows[0].cells];
  const body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement("button");
    button.type = "button";
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener("click", () => {
      const way = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
      heads.forEach((other) => other.removeAttribute("aria-sort"));
      head.setAttribute("aria-sort", way > 0 ? "ascending" : "descending");
      const keyed = [...body.rows].map((row) => [sortKey(row.cells[column]), row]);
      keyed.sort(([a], [b]) => compare(a, b, way));
      body.append(...keyed.map(([, row]) => row));
    });
  });
}

function sortKey(cell) {
  const data = cell.querySelector("data");
  return data ? Number(data.value) : cell.textContent;
}

function compare(a, b, way) {
  if (typeof a === "string") return way * a.localeCompare(b, undefined, { numeric: true });
  if (Number.isNaN(a) || Number.isNaN(b)) return Number.isNaN(a) - Number.isNaN(b);
  return a === b ? 0 : way * (a < b ? -1 : 1);
}

document.addEventListener("DOMContentLoaded", () => {
  document.querySelectorAll("table.sortable").forEach(makeSortable);
  const metric = document.getElementById("metric");
  const showMetric = () => {
    for (const list of document.querySelectorAll(".metric")) list.hidden = list.dataset.key !== metric.value;
  };
  metric?.addEventListener("change", showMetric);
  if (metric) showMetric();

  comparisons.push(...[...document.querySelectorAll(".photo")].map((section) => new Comparison(section)));
  for (const side of ["left", "right"]) {
    const picker = document.querySelector(`#all .${side}`);
    const choose = () => comparisons.forEach((comparison) => comparison.choose(side, picker.value));
    picker?.addEventListener("change", choose);
    if (picker) choose();
  }
  addEventListener("resize", () => comparisons.forEach((comparison) => comparison.show(comparison.view)));
});
