// The map: base map of the pack, drone with its ellipse, candidates, and what may be shown besides.

import { square } from "./geo.js";
import { Overlay } from "./track.js";
import { tone } from "./words.js";

// Of a circular Gaussian, 95 % lie within so many standard deviations per axis.
export const R95_PER_SIGMA = 2.448;
const CLOSER_ZOOMS = 3; // beyond the finest tiles
const SHOWN_CANDIDATES = 5;
const LABEL_PX = [56, 17];
// Of ground around the first position: so much, or as many times the radius of its ellipse.
const FIRST_VIEW_M = 260;
const FIRST_VIEW_RADII = 14;

const DRONE =
  '<svg viewBox="-20 -20 40 40" width="30" height="30" aria-hidden="true">' +
  '<g class="turn"><path class="nose" d="M0-17 11 14 0 8-11 14z"/></g>' +
  '<circle class="dot" r="7"/></svg>';

// Leaflet takes credits as HTML; a pack's is text.
function escaped(text) {
  const element = document.createElement("i");
  element.textContent = text;
  return element.innerHTML;
}

export class FlightMap {
  constructor(info) {
    const { bounds, zooms, attribution } = info.pack;
    this.box = L.latLngBounds([bounds.south, bounds.west], [bounds.north, bounds.east]);
    this.map = L.map("map", {
      zoomControl: false,
      zoomAnimation: false,
      fadeAnimation: false,
      markerZoomAnimation: false,
      inertia: false,
      maxZoom: (zooms?.high ?? 18) + CLOSER_ZOOMS,
      minZoom: 2,
      attributionControl: false,
    });
    L.control.zoom({ position: "bottomright" }).addTo(this.map);
    L.control.scale({ imperial: false, position: "bottomleft" }).addTo(this.map);
    const credit = L.control.attribution({ prefix: false, position: "bottomleft" }).addTo(this.map);
    if (attribution) credit.addAttribution(escaped(attribution));
    this._panes();
    if (zooms) {
      L.tileLayer("/tiles/{z}/{x}/{y}.webp", {
        bounds: this.box,
        minNativeZoom: zooms.low,
        maxNativeZoom: zooms.high,
        maxZoom: zooms.high + CLOSER_ZOOMS,
        minZoom: Math.max(2, zooms.low - 2),
        updateWhenZooming: false,
      }).addTo(this.map);
    } else {
      document.getElementById("no-imagery").hidden = false;
    }
    this.overlay = new Overlay("track");
    if (!zooms) this.overlay.grid = [this.box.getCenter().lat, this.box.getCenter().lng];
    this.overlay.addTo(this.map);
    L.rectangle(this.box, { className: "border", interactive: false, fill: false, pane: "border" })
      .addTo(this.map);
    this.hpl = this._circle("hpl");
    this.ellipse = this._circle("ellipse");
    this.drone = L.marker(this.box.getCenter(), {
      pane: "drone",
      interactive: false,
      keyboard: false,
      icon: L.divIcon({ className: "drone", html: DRONE, iconSize: [30, 30] }),
    });
    this.candidates = L.layerGroup().addTo(this.map);
    this.map.fitBounds(this.box, { padding: [12, 12] });
    this.following = true;
    this.zoomsIn = true;
    this.shows = { hpl: false, candidates: true, surface: false, truth: true };
    this.last = null;
    this.map.on("dragstart", () => this.follow(false));
    this._colours();
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this._colours());
    new ResizeObserver(() => this.map.invalidateSize({ animate: false, pan: false }))
      .observe(this.map.getContainer());
  }

  _panes() {
    ["border", "candidates", "track", "rings", "drone"].forEach((name, i) => {
      const pane = this.map.createPane(name);
      pane.classList.add(`pane-${name}`);
      pane.style.zIndex = 400 + 20 * i;
      pane.style.pointerEvents = "none";
    });
  }

  _circle(name) {
    return L.circle(this.box.getCenter(), {
      className: name,
      interactive: false,
      pane: "rings",
      radius: 1,
    });
  }

  _colours() {
    const style = getComputedStyle(document.documentElement);
    const read = (name) => style.getPropertyValue(name).trim();
    this.overlay.colours = {
      TRACK: read("--good"),
      DEGRADED: read("--warn"),
      grid: read("--grid"),
      casing: "rgba(0, 0, 0, 0.55)",
      heat: read("--heat"),
    };
    this.overlay.redraw();
  }

  // Shows where the drone is, or where it was last known to be.
  //   fix: lat, lon, sigma_m, hpl_m, heading_deg, state; stale: nothing new has come for a while
  show(fix, stale) {
    const known = fix.lat != null && fix.lon != null;
    if (known) {
      if (!this.last && this.following && this.zoomsIn) this._zoomIn(fix);
      this.last = [fix.lat, fix.lon];
    }
    const current = known && !stale;
    this._put(this.ellipse, current && fix.sigma_m != null, R95_PER_SIGMA * fix.sigma_m);
    this._put(this.hpl, current && this.shows.hpl && fix.hpl_m != null, fix.hpl_m);
    if (this.last) {
      this.drone.setLatLng(this.last).addTo(this.map);
      const element = this.drone.getElement();
      element.dataset.tone = current ? tone(fix.state) : "old";
      element.dataset.headed = fix.heading_deg != null ? "yes" : "no";
      element.querySelector(".turn").setAttribute("transform", `rotate(${fix.heading_deg ?? 0})`);
      if (this.following) this._keepInView(current);
    }
    this.ellipse.getElement()?.setAttribute("data-tone", tone(fix.state));
    this.map.getContainer().dataset.place = this.last ? this.last.join(",") : "";
  }

  _put(circle, shown, radius) {
    if (!shown) {
      circle.remove();
      return;
    }
    circle.setLatLng(this.last).setRadius(radius).addTo(this.map);
  }

  _zoomIn(fix) {
    this.zoomsIn = false;
    const side = Math.max(FIRST_VIEW_M, FIRST_VIEW_RADII * R95_PER_SIGMA * (fix.sigma_m ?? 0));
    const around = L.latLngBounds(square(fix.lat, fix.lon, side));
    const zoom = Math.max(this.map.getZoom(), this.map.getBoundsZoom(around));
    this.map.setView([fix.lat, fix.lon], zoom, { animate: false });
  }

  _keepInView(current) {
    if (!current) return;
    const inner = this.map.getBounds().pad(-0.15);
    if (!inner.contains(this.last)) this.map.panTo(this.last, { animate: false });
  }

  follow(on) {
    this.following = on;
    document.getElementById("follow").setAttribute("aria-pressed", String(on));
    if (on && this.last) {
      const zoom = Math.max(this.map.getZoom(), this.map.getBoundsZoom(this.box));
      this.map.setView(this.last, zoom, { animate: false });
    }
  }

  // Draws the tiles that look like the picture: [{lat, lon, level, score}], best first.
  showCandidates(top) {
    this.candidates.clearLayers();
    if (!this.shows.candidates) return;
    const labels = [];
    top.slice(0, SHOWN_CANDIDATES).forEach(({ lat, lon, level, score }, i) => {
      const corners = square(lat, lon, level);
      L.rectangle(corners, {
        className: i ? "candidate" : "candidate best", interactive: false, pane: "candidates",
      }).addTo(this.candidates);
      // Tiles overlap; a label that would cover a better one's is left out.
      const corner = L.latLng(corners[1][0], corners[0][1]);
      const at = this.map.latLngToLayerPoint(corner);
      if (labels.some((other) => Math.abs(at.x - other.x) < LABEL_PX[0]
          && Math.abs(at.y - other.y) < LABEL_PX[1])) return;
      labels.push(at);
      const label = document.createElement("span");
      label.textContent = `${i + 1} · ${score.toFixed(2)}`;
      L.marker(corner, {
        icon: L.divIcon({ className: "candidate-label", html: label, iconSize: null }),
        interactive: false, keyboard: false, pane: "candidates",
      }).addTo(this.candidates);
    });
  }

  showSurface(surface) {
    this.overlay.surface = this.shows.surface ? surface : null;
    this.overlay.redraw();
  }
}
