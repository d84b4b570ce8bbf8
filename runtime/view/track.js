// One canvas over the map for what has many points: track, true path, scores, grid.

import { mercator, worldMetres } from "./geo.js";

const LEAST_STEP_PX = 1.5;
const GRID_PX = 70;

export class Line {
  // Places with a state each; a gap before a place breaks the line.
  constructor() {
    this.clear();
  }

  clear() {
    this.x = [];
    this.y = [];
    this.state = [];
    this.gap = [];
  }

  add(lat, lon, state, gap) {
    const [x, y] = mercator(lat, lon);
    this.x.push(x);
    this.y.push(y);
    this.state.push(state);
    this.gap.push(gap);
  }

  get length() {
    return this.x.length;
  }

  // Keeps memory bounded: every second of the older places goes.
  thin(most) {
    if (this.length <= most) return;
    const kept = new Line();
    const recent = this.length - Math.floor(most / 4);
    let lost = 0;
    for (let i = 0; i < this.length; i++) {
      lost = lost || this.gap[i];
      if (i < recent && i % 2) continue;
      kept.x.push(this.x[i]);
      kept.y.push(this.y[i]);
      kept.state.push(this.state[i]);
      kept.gap.push(lost);
      lost = 0;
    }
    Object.assign(this, { x: kept.x, y: kept.y, state: kept.state, gap: kept.gap });
  }
}

export const Overlay = L.Layer.extend({
  initialize(pane) {
    this._pane = pane;
    this.track = new Line(); // state: a colour
    this.until = Infinity; // places of the track from here on lie in the future
    this.truth = null;
    this.surface = null;
    this.grid = null; // [lat, lon] of its origin
    this.colours = {};
  },

  onAdd(map) {
    this._canvas = L.DomUtil.create("canvas", "overlay");
    map.getPane(this._pane).appendChild(this._canvas);
    map.on("move zoom viewreset resize", this.redraw, this);
    this.redraw();
  },

  onRemove(map) {
    map.off("move zoom viewreset resize", this.redraw, this);
    this._canvas.remove();
  },

  redraw() {
    this._frame ??= requestAnimationFrame(() => {
      this._frame = undefined;
      this._draw();
    });
  },

  _draw() {
    const map = this._map;
    if (!map) return;
    const size = map.getSize();
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const canvas = this._canvas;
    if (canvas.width !== Math.round(size.x * ratio) || canvas.height !== Math.round(size.y * ratio)) {
      canvas.width = Math.round(size.x * ratio);
      canvas.height = Math.round(size.y * ratio);
      canvas.style.width = `${size.x}px`;
      canvas.style.height = `${size.y}px`;
    }
    const corner = map.containerPointToLayerPoint([0, 0]);
    L.DomUtil.setPosition(canvas, corner);
    const origin = map.getPixelOrigin().add(corner);
    const view = { world: 256 * 2 ** map.getZoom(), left: origin.x, top: origin.y, size };
    const context = canvas.getContext("2d");
    context.setTransform(ratio, 0, 0, ratio, 0, 0);
    context.clearRect(0, 0, size.x, size.y);
    context.lineJoin = context.lineCap = "round";
    if (this.grid) this._drawGrid(context, view);
    if (this.surface) this._drawSurface(context, view);
    this._drawTrack(context, view);
    if (this.truth) this._drawTruth(context, view);
  },

  _drawGrid(context, view) {
    const [lat, lon] = this.grid;
    const perMetre = view.world / worldMetres(lat);
    let step = 10 ** Math.floor(Math.log10(GRID_PX / perMetre));
    for (const factor of [1, 2, 5, 10]) {
      if (step * factor * perMetre >= GRID_PX) {
        step *= factor;
        break;
      }
    }
    const [mx, my] = mercator(lat, lon);
    const [x0, y0] = [mx * view.world - view.left, my * view.world - view.top];
    const gap = step * perMetre;
    context.beginPath();
    for (let x = ((x0 % gap) + gap) % gap; x < view.size.x; x += gap) {
      context.moveTo(x, 0);
      context.lineTo(x, view.size.y);
    }
    for (let y = ((y0 % gap) + gap) % gap; y < view.size.y; y += gap) {
      context.moveTo(0, y);
      context.lineTo(view.size.x, y);
    }
    context.strokeStyle = this.colours.grid;
    context.lineWidth = 1;
    context.stroke();
  },

  _drawSurface(context, view) {
    const { kernel_m: kernel, points } = this.surface;
    const total = points.reduce((sum, point) => sum + point[2], 0);
    for (const [lat, lon, share] of points) {
      const [mx, my] = mercator(lat, lon);
      const [x, y] = [mx * view.world - view.left, my * view.world - view.top];
      const radius = Math.max(3, (2 * kernel * view.world) / worldMetres(lat));
      const glow = context.createRadialGradient(x, y, 0, x, y, radius);
      // Where all of it lies together, about two thirds of the ground is covered.
      const strength = Math.min(0.65, (1.2 * share) / total);
      glow.addColorStop(0, `rgba(${this.colours.heat}, ${strength})`);
      glow.addColorStop(1, `rgba(${this.colours.heat}, 0)`);
      context.fillStyle = glow;
      context.fillRect(x - radius, y - radius, 2 * radius, 2 * radius);
    }
  },

  // Yields runs of one colour as [colour, path], places nearer than a pixel or two left out.
  _runs(line, view, first, end) {
    const runs = [];
    let path = null;
    let [colour, px, py] = [null, 0, 0];
    for (let i = first; i < end; i++) {
      const x = line.x[i] * view.world - view.left;
      const y = line.y[i] * view.world - view.top;
      const broken = line.gap[i] || path === null;
      if (broken || line.state[i] !== colour) {
        const from = broken ? [x, y] : [px, py];
        colour = line.state[i];
        path = new Path2D();
        path.moveTo(...from);
        path.lineTo(x, y);
        runs.push([colour, path]);
      } else if (Math.abs(x - px) + Math.abs(y - py) < LEAST_STEP_PX && i < end - 1) {
        continue;
      } else {
        path.lineTo(x, y);
      }
      [px, py] = [x, y];
    }
    return runs;
  },

  _drawTrack(context, view) {
    const end = Math.min(this.until, this.track.length);
    const past = this._runs(this.track, view, 0, end);
    if (end < this.track.length) {
      context.lineWidth = 2;
      context.globalAlpha = 0.45;
      for (const [colour, path] of this._runs(this.track, view, Math.max(0, end - 1), this.track.length)) {
        context.strokeStyle = this.colours[colour];
        context.stroke(path);
      }
      context.globalAlpha = 1;
    }
    context.lineWidth = 6.5;
    context.strokeStyle = this.colours.casing;
    for (const [, path] of past) context.stroke(path);
    context.lineWidth = 3.5;
    for (const [colour, path] of past) {
      context.strokeStyle = this.colours[colour];
      context.setLineDash(colour === "DEGRADED" ? [7, 6] : []);
      context.stroke(path);
    }
    context.setLineDash([]);
  },

  _drawTruth(context, view) {
    const runs = this._runs(this.truth, view, 0, this.truth.length);
    context.setLineDash([1, 5]);
    context.lineWidth = 3.5;
    context.strokeStyle = this.colours.casing;
    for (const [, path] of runs) context.stroke(path);
    context.lineWidth = 2;
    context.strokeStyle = "#fff";
    for (const [, path] of runs) context.stroke(path);
    context.setLineDash([]);
  },
});
