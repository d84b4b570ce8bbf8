// A finished log: a time slider, and the truth where there is one.

import { duration, number, tone } from "./words.js";
import { Line } from "./track.js";
import { put, showCandidates, showEvents, showFix, showRows, showState } from "./panel.js";

const MOST_EVENTS = 1000;
const LONGEST_PAUSE_S = 5; // in the log; longer ones are passed over when playing
const PERIOD_S = 0.2; // between frames without a time
const NONE = 255;
const byId = (id) => document.getElementById(id);
const known = (value) => (Number.isFinite(value) ? value : null);

export class Replay {
  static async open(info, map) {
    const about = await (await fetch("/replay/about.json")).json();
    const packed = await (await fetch("/replay/columns")).arrayBuffer();
    return new Replay(info, map, about, packed);
  }

  constructor(info, map, about, packed) {
    const types = { "<f8": Float64Array, "<f4": Float32Array, "|u1": Uint8Array };
    this.info = info;
    this.map = map;
    this.about = about;
    this.count = about.count;
    this.columns = {};
    for (const { name, type, at } of about.columns) {
      this.columns[name] = new types[type](packed, at, about.count);
    }
    byId("replay").hidden = false;
    for (const id of ["frame-box", "view-box", "machine"]) byId(id).hidden = true;
    map.map.invalidateSize({ animate: false, pan: false });
    this._times();
    this._lines();
    this._events();
    this._controls();
    this._truth();
    this.map.zoomsIn = false;
    this.go(0);
    new ResizeObserver(() => this._strip()).observe(byId("strip"));
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this._strip());
  }

  // Seconds from the first fix on; clocks that stand still or go back go on all the same.
  _times() {
    const t = this.columns.t;
    this.seconds = new Float64Array(this.count);
    for (let i = 1; i < this.count; i++) {
      const step = t[i] - t[i - 1];
      this.seconds[i] = this.seconds[i - 1] + (Number.isFinite(step) ? Math.max(0, step) : PERIOD_S);
    }
    this.total = this.seconds[this.count - 1];
  }

  _lines() {
    const { lat, lon, state, true_lat: trueLat, true_lon: trueLon } = this.columns;
    const track = this.map.overlay.track;
    this.placesBefore = new Uint32Array(this.count + 1); // places of the track before a fix
    let gap = 1;
    const box = L.latLngBounds();
    for (let i = 0; i < this.count; i++) {
      this.placesBefore[i] = track.length;
      if (Number.isFinite(lat[i])) {
        track.add(lat[i], lon[i], this.about.states[state[i]], gap);
        box.extend([lat[i], lon[i]]);
        gap = 0;
      } else {
        gap = 1;
      }
    }
    this.placesBefore[this.count] = track.length;
    if (this.about.has_truth) {
      const line = new Line();
      const jumps = new Set(this.about.events.map(([number]) => number));
      gap = 1;
      for (let i = 0; i < this.count; i++) {
        if (Number.isFinite(trueLat[i])) {
          line.add(trueLat[i], trueLon[i], "truth", gap || jumps.has(i) ? 1 : 0);
          box.extend([trueLat[i], trueLon[i]]);
          gap = 0;
        } else {
          gap = 1;
        }
      }
      this.truthLine = line;
      this.map.overlay.truth = line;
      byId("show-truth").hidden = false;
    }
    if (box.isValid()) this.map.map.fitBounds(box.pad(0.08), { animate: false });
  }

  // Changes of state and reason, and what befell the flight by the truth.
  _events() {
    const { state, reason } = this.columns;
    const found = [];
    for (let i = 0; i < this.count && found.length < MOST_EVENTS; i++) {
      if (i === 0 || state[i] !== state[i - 1] || reason[i] !== reason[i - 1]) {
        found.push({
          at: i,
          state: this.about.states[state[i]],
          reason: this._name(this.about.reasons, reason[i]),
        });
      }
    }
    for (const [at, name] of this.about.events) found.push({ at, name, tone: "truth" });
    found.sort((a, b) => a.at - b.at);
    this.events = found.map((event) => ({ ...event, when: duration(this.seconds[event.at]) }));
    showEvents(this.events, (i) => this.go(this.events[i].at));
  }

  _name(names, code) {
    return code === NONE ? null : names[code] ?? "unknown";
  }

  _controls() {
    const slider = byId("slider");
    slider.max = String(this.count - 1);
    slider.addEventListener("input", () => {
      this.go(Number(slider.value));
    });
    byId("play").addEventListener("click", () => this.play(!this.playing));
    byId("previous").addEventListener("click", () => this.jump(-1));
    byId("next").addEventListener("click", () => this.jump(1));
    document.addEventListener("keydown", (event) => {
      if (event.ctrlKey || event.metaKey || event.altKey) return;
      const busy = event.target.closest?.("button, select, summary, .leaflet-container");
      if (event.key === " " && !busy) {
        event.preventDefault();
        this.play(!this.playing);
      } else if (event.shiftKey && event.key === "ArrowLeft") {
        event.preventDefault();
        this.jump(-1);
      } else if (event.shiftKey && event.key === "ArrowRight") {
        event.preventDefault();
        this.jump(1);
      }
    });
  }

  play(on) {
    this.playing = on;
    byId("play-shape").setAttribute("d", on ? "M6 4h4v16H6zM14 4h4v16h-4z" : "M7 4v16l13-8z");
    byId("play").setAttribute("aria-label", on ? "Pause" : "Play");
    if (!on) return;
    if (this.index >= this.count - 1) this.go(0);
    this.at = this.seconds[this.index];
    let before = performance.now();
    const step = (now) => {
      if (!this.playing) return;
      this.at += (Math.min(now - before, 500) / 1000) * Number(byId("speed").value);
      before = now;
      let next = this.index;
      while (next < this.count - 1 && this.seconds[next + 1] <= this.at) next++;
      if (next < this.count - 1 && this.seconds[next + 1] - this.at > LONGEST_PAUSE_S) {
        next++;
        this.at = this.seconds[next];
      }
      if (next !== this.index) this._show(next);
      if (next >= this.count - 1) this.play(false);
      else requestAnimationFrame(step);
    };
    requestAnimationFrame(step);
  }

  jump(direction) {
    const next = direction > 0
      ? this.events.find(({ at }) => at > this.index)
      : this.events.findLast(({ at }) => at < this.index);
    if (next) this.go(next.at);
    else if (direction < 0) this.go(0);
  }

  go(index) {
    this.at = this.seconds[index];
    this._show(index);
  }

  refresh() {
    this.answered = null;
    this._show(this.index);
  }

  _fix(i) {
    const value = (name) => known(this.columns[name][i]);
    const names = ["lat", "lon", "sigma_m", "hpl_m", "ve_mps", "vn_mps", "heading_deg", "agl_m",
      "anchor_age_s", "score", "latency_ms"];
    const fix = Object.fromEntries(names.map((name) => [name, value(name)]));
    fix.state = this.about.states[this.columns.state[i]];
    fix.reason = this._name(this.about.reasons, this.columns.reason[i]);
    fix.source = this._name(this.about.sources, this.columns.source[i]);
    return fix;
  }

  _show(index) {
    this.index = index;
    const fix = this._fix(index);
    byId("slider").value = String(index);
    byId("slider").setAttribute(
      "aria-valuetext", `${duration(this.seconds[index])}, ${fix.state.replaceAll("_", " ")}`);
    put("clock", `${duration(this.seconds[index])} / ${duration(this.total)}`);
    put("age", `frame ${this.columns.frame[index]}`);
    showState(fix);
    showFix(fix, false);
    if (fix.lat == null) this._lastKnown(index);
    this.map.show(fix, false);
    this.map.overlay.until = this.placesBefore[index + 1];
    this.map.overlay.redraw();
    this._showTruth(index);
    this._candidates(index);
  }

  // Where the drone was known to be last, before a fix without a position.
  _lastKnown(index) {
    const { lat, lon } = this.columns;
    let i = index;
    while (i >= 0 && !Number.isFinite(lat[i])) i--;
    this.map.last = i >= 0 ? [lat[i], lon[i]] : null;
    if (i < 0) this.map.drone.remove();
  }

  // The slider may pass many fixes before one of them answers.
  async _candidates(index) {
    this.wanted = index;
    if (this.asking) return;
    this.asking = true;
    while (this.wanted !== this.answered) {
      const asked = this.wanted;
      try {
        const rows = await (await fetch(`/replay/top/${asked}.json`)).json();
        const top = rows.map(([lat, lon, level, score]) => ({ lat, lon, level, score }));
        this.map.showCandidates(top);
        showCandidates(top, this.info.pack.zooms);
      } catch {
        put("age", "no connection to s4g-run");
      }
      this.answered = asked;
    }
    this.asking = false;
  }

  _truth() {
    showRows("stats", []);
    if (!this.about.has_truth) return;
    byId("truth-box").hidden = false;
    const { error_m: error, hpl_m: hpl } = this.columns;
    const errors = Float32Array.from(error.filter(Number.isFinite)).sort();
    if (!errors.length) return;
    put("error-median", number(errors[Math.ceil(errors.length / 2) - 1], 1));
    let [held, told] = [0, 0];
    for (let i = 0; i < this.count; i++) {
      if (Number.isFinite(error[i]) && Number.isFinite(hpl[i])) {
        told++;
        if (error[i] <= hpl[i]) held++;
      }
    }
    put("error-held", told ? `${held}/${told}` : "–");
  }

  _showTruth(index) {
    if (!this.about.has_truth) return;
    put("error", number(known(this.columns.error_m[index]), 1));
  }

  // The flight as a strip of colours, its errors as a line above it.
  _strip() {
    const canvas = byId("strip");
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const [width, height] = [canvas.clientWidth * ratio, canvas.clientHeight * ratio];
    if (!width) return;
    Object.assign(canvas, { width, height });
    const style = getComputedStyle(document.documentElement);
    const context = canvas.getContext("2d");
    const { state, error_m: error } = this.columns;
    const columns = Math.round(width);
    for (let x = 0; x < columns; x++) {
      const first = Math.floor((x * this.count) / columns);
      const end = Math.max(first + 1, Math.floor(((x + 1) * this.count) / columns));
      const seen = new Uint8Array(this.about.states.length);
      for (let i = first; i < end; i++) seen[state[i]] = 1;
      // The worst of a column shows.
      const order = ["NO_FIX", "OUT_OF_PACK", "ACQUIRING", "INIT", "DEGRADED", "TRACK"];
      const worst = order.find((name) => seen[this.about.states.indexOf(name)]);
      context.fillStyle = style.getPropertyValue(`--${tone(worst)}`);
      context.fillRect(x, height * 0.55, 1, height * 0.45);
    }
    if (!error) return;
    const finite = Float32Array.from(error.filter(Number.isFinite)).sort();
    const most = Math.max(1, finite[Math.ceil(0.99 * finite.length) - 1] ?? 1);
    context.fillStyle = style.getPropertyValue("--ink");
    for (let x = 0; x < columns; x++) {
      const first = Math.floor((x * this.count) / columns);
      const end = Math.max(first + 1, Math.floor(((x + 1) * this.count) / columns));
      let worst = -1;
      for (let i = first; i < end; i++) if (error[i] > worst) worst = error[i];
      if (worst < 0) continue;
      const bar = Math.min(1, worst / most) * height * 0.45;
      context.fillRect(x, height * 0.5 - bar, 1, Math.max(1, bar));
    }
  }
}
