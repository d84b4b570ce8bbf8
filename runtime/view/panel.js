// The readings beside the map. Text is set only where it changes, so that it can be read out.

import { drawGround } from "./geo.js";
import { R95_PER_SIGMA } from "./map.js";
import { degrees, number, reason, SOURCES, title, tone } from "./words.js";

const byId = (id) => document.getElementById(id);

export function put(id, text) {
  const element = byId(id);
  if (element.textContent !== text) element.textContent = text;
}

// Shows a state; `over` replaces it where what is known is not of now: {name, title, reason, tone}.
export function showState(fix, over) {
  const said = over ?? {
    name: fix.state.replaceAll("_", " "),
    title: title(fix.state),
    reason: reason(fix.reason),
    tone: tone(fix.state),
  };
  put("state-name", said.name);
  put("state-title", said.title);
  put("state-reason", said.reason);
  byId("state").dataset.tone = said.tone;
  document.title = `${said.name} – s4g map`;
}

// Shows what a fix says; numbers of a fix that is not of now are greyed by `old`.
export function showFix(fix, old) {
  document.body.classList.toggle("old", old);
  const moving = fix.ve_mps != null && fix.vn_mps != null;
  const speed = moving ? Math.hypot(fix.ve_mps, fix.vn_mps) : null;
  const course = moving ? (Math.atan2(fix.ve_mps, fix.vn_mps) * 180) / Math.PI + 360 : null;
  put("r95", number(fix.sigma_m == null ? null : R95_PER_SIGMA * fix.sigma_m, 1));
  put("hpl", number(fix.hpl_m, 1));
  put("anchor", number(fix.anchor_age_s, 1));
  put("agl", number(fix.agl_m));
  put("speed-now", number(speed, 1));
  put("course", speed > 0.5 ? degrees(course) : "–");
  put("heading", degrees(fix.heading_deg));
  put("score", number(fix.score, 2));
  put("latency", number(fix.latency_ms));
  put("source", SOURCES[fix.source] ?? "No position");
  put("place", fix.lat == null ? "–" : `${fix.lat.toFixed(6)}°, ${fix.lon.toFixed(6)}°`);
}

let shownTile = "";

// Lists the tiles that look like the picture, and draws the best.
export function showCandidates(top, zooms) {
  const list = byId("candidates");
  const texts = top.map(({ level, score }, i) => `${i + 1}|${score.toFixed(3)}|${level}`);
  if (list.dataset.shown !== texts.join()) {
    list.dataset.shown = texts.join();
    list.replaceChildren(...top.map(({ level, score }) => {
      const item = document.createElement("li");
      const bar = document.createElement("meter");
      Object.assign(bar, { min: 0, max: 1, value: Math.max(0, score) });
      const text = document.createElement("span");
      text.textContent = `${score.toFixed(3)} · ${level} m`;
      item.append(bar, text);
      return item;
    }));
  }
  const [best] = top;
  put("tile-score", best ? `${best.score.toFixed(3)} · ${best.level} m` : "");
  const tile = best && zooms ? `${best.lat},${best.lon},${best.level}` : "";
  if (tile === shownTile || !byId("pictures").open) return;
  shownTile = tile;
  const canvas = byId("tile");
  if (tile) drawGround(canvas, zooms, best.lat, best.lon, best.level);
  else canvas.getContext("2d").clearRect(0, 0, canvas.width, canvas.height);
}

// Lists events, newest first: [{when, state, reason}]; `onPick` is given the index of one.
export function showEvents(events, onPick) {
  const list = byId("events");
  list.replaceChildren(...events.map((event, i) => {
    const item = document.createElement("li");
    const row = document.createElement(onPick ? "button" : "div");
    if (onPick) {
      row.type = "button";
      row.addEventListener("click", () => onPick(i));
    }
    row.className = "event";
    row.dataset.tone = event.tone ?? tone(event.state);
    const [when, what, why] = ["time", "b", "span"].map((name) => document.createElement(name));
    when.textContent = event.when;
    what.textContent = event.name ?? event.state.replaceAll("_", " ");
    why.textContent = event.name ? "" : reason(event.reason);
    row.append(when, what, why);
    item.append(row);
    return item;
  }).reverse());
}

// Fills rows of names and values; values that are `bad` stand out.
export function showRows(id, rows) {
  const list = byId(id);
  const text = JSON.stringify(rows);
  if (list.dataset.shown === text) return;
  list.dataset.shown = text;
  list.replaceChildren(...rows.map(([name, value, bad]) => {
    const row = document.createElement("div");
    const [term, said] = [document.createElement("dt"), document.createElement("dd")];
    term.textContent = name;
    said.textContent = value;
    if (bad) said.className = "bad";
    row.append(term, said);
    return row;
  }));
}
