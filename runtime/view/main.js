// Opens the map and what goes on it: a run as it goes on, or a finished log.

import { FlightMap } from "./map.js";
import { showState } from "./panel.js";

const byId = (id) => document.getElementById(id);

// The token is kept in a cookie by now; it need not stay where it can be read over a shoulder.
if (location.search) history.replaceState(null, "", "/");

function toggle(id, key, act) {
  const button = byId(id);
  const change = () => {
    const on = button.getAttribute("aria-pressed") !== "true";
    button.setAttribute("aria-pressed", String(on));
    act(on);
  };
  button.addEventListener("click", change);
  document.addEventListener("keydown", (event) => {
    const plain = !event.ctrlKey && !event.metaKey && !event.altKey;
    if (plain && event.key.toLowerCase() === key && !button.hidden
        && !event.target.closest?.("select")) change();
  });
}

async function start() {
  const info = await (await fetch("/info.json")).json();
  const map = new FlightMap(info);
  const { pack } = info;
  const levels = pack.levels_m.map((side) => `${side} m`).join(", ");
  byId("about").textContent = `${pack.name}: ${pack.tiles} tiles of ${levels} · s4g ${info.version}`;
  let flight;
  if (info.mode === "live") {
    const { Live } = await import("./live.js");
    flight = new Live(info, map);
  } else {
    const { Replay } = await import("./replay.js");
    flight = await Replay.open(info, map);
    byId("show-surface").hidden = true;
  }
  const show = (name) => (on) => {
    map.shows[name] = on;
    if (name === "surface") map.showSurface(flight.surface ?? null);
    if (name === "truth") {
      map.overlay.truth = on ? flight.truthLine : null;
      map.overlay.redraw();
    }
    if (name === "hpl" || name === "candidates") flight.refresh();
  };
  toggle("follow", "f", (on) => map.follow(on));
  toggle("show-hpl", "h", show("hpl"));
  toggle("show-candidates", "c", show("candidates"));
  toggle("show-surface", "s", show("surface"));
  toggle("show-truth", "t", show("truth"));
}

start().catch((error) => {
  showState(null, {
    name: "NO PAGE", title: "The map cannot be shown", reason: String(error), tone: "bad",
  });
});
