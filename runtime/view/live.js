// A run as it goes on: news by server-sent events, pictures when there are new ones.

import { number } from "./words.js";
import { showCandidates, showEvents, showFix, showRows, showState, put } from "./panel.js";

const STALE_S = 2; // without a new fix; then what is shown is old
const PICTURE_S = 5; // that a picture may take
const MOST_POINTS = 12000;
const MOST_EVENTS = 200;

export class Live {
  constructor(info, map) {
    this.info = info;
    this.map = map;
    this.run = null;
    this.told = [0, 0]; // places and events
    this.events = [];
    this.fix = null;
    this.heard = null; // when the newest message came, and how old its fix was
    this.ended = false;
    this.connected = false;
    this.shownPicture = 0;
    this.loading = false;
    this._connect();
    setInterval(() => this._show(), 250);
  }

  _connect() {
    const source = new EventSource("/live/events");
    source.addEventListener("past", (event) => this._past(JSON.parse(event.data)));
    source.addEventListener("state", (event) => this._news(JSON.parse(event.data)));
    source.addEventListener("end", () => {
      this.ended = true;
      this._show();
    });
    source.addEventListener("open", () => {
      this.connected = true;
    });
    source.addEventListener("error", () => {
      this.connected = false;
      this._show();
      // A browser gives up where the server says no; the run may begin anew.
      if (source.readyState === EventSource.CLOSED) setTimeout(() => this._connect(), 3000);
    });
  }

  _past(past) {
    this.ended = false;
    if (past.run !== this.run) {
      this.run = past.run;
      this.states = past.states;
      this.told = [0, 0];
      this.events = [];
      this.shownPicture = 0;
      this.map.overlay.track.clear();
      this.map.last = null;
    }
    this._take(past);
  }

  // Takes places and events that are new; some may have come before.
  _take({ told, points, events }) {
    const fresh = (list, first, total, known) =>
      first >= known ? list : total > known ? list.slice(known - total) : [];
    const track = this.map.overlay.track;
    for (const [lat, lon, state, gap] of fresh(points, told[0], told[2], this.told[0])) {
      track.add(lat, lon, this.states[state], gap);
    }
    track.thin(MOST_POINTS);
    const added = fresh(events, told[1], told[3], this.told[1]);
    this.told = [Math.max(told[2], this.told[0]), Math.max(told[3], this.told[1])];
    if (points.length) this.map.overlay.redraw();
    if (added.length) {
      for (const event of added) {
        const when = new Date(event.at * 1000).toLocaleTimeString([], { hour12: false });
        this.events.push({ ...event, when });
      }
      this.events.splice(0, this.events.length - MOST_EVENTS);
      showEvents(this.events);
    }
  }

  _news(news) {
    this.ended = false;
    this._take(news);
    this.heard = { at: performance.now(), age: news.age_s };
    if (news.fix) {
      this.fix = news.fix;
      this.now = news.now ? { ...news.fix, ...news.now } : news.fix;
      this.map.showCandidates(news.fix.top);
      showCandidates(news.fix.top, this.info.pack.zooms);
    }
    if (news.surface !== undefined) {
      this.surface = news.surface;
      this.map.showSurface(this.surface);
    }
    this._stats(news.stats);
    this._pictures(news.picture);
    this._show();
  }

  // Seconds since the newest fix was made, as far as anyone can tell here.
  get age() {
    if (!this.heard || this.heard.age == null) return null;
    return this.heard.age + (performance.now() - this.heard.at) / 1000;
  }

  _show() {
    const age = this.age;
    if (!this.fix) {
      const said = this.connected ? "Waiting for the first picture" : "Waiting for s4g-run";
      showState(null, { name: "WAITING", title: said, reason: "", tone: "wait" });
      return;
    }
    const stale = age > STALE_S || this.ended;
    if (this.ended) {
      showState(null, {
        name: "ENDED", title: "The run has ended", tone: "old",
        reason: `Last state: ${this.fix.state.replaceAll("_", " ")}.`,
      });
    } else if (stale) {
      const why = this.connected ? "The run gives no new result." : "No connection to the run.";
      showState(null, {
        name: "NO DATA", title: `Nothing new for ${age.toFixed(0)} s`, tone: "old",
        reason: `${why} What is shown is old.`,
      });
    } else {
      showState(this.now);
    }
    put("age", stale ? `newest is ${age.toFixed(0)} s old` : `${number(age, 1)} s ago`);
    showFix(this.now, stale);
    this.map.show(this.now, stale);
  }

  refresh() {
    if (!this.fix) return;
    this.map.showCandidates(this.fix.top);
    this._show();
  }

  _stats(stats) {
    const latency = stats.latency_ms;
    const rows = [
      ["Frames", `${stats.frames}`],
      ["Rate", `${number(stats.rate_hz, 1)} fps`],
      ["Latency, median", latency ? `${number(latency[0])} ms` : "–"],
      ["Latency, 95 %", latency ? `${number(latency[1])} ms` : "–"],
      ["Frames dropped", `${stats.dropped ?? 0}`, stats.dropped > 0],
      ["Places taken up anew", `${stats.resets ?? 0}`],
      ["Viewers", `${stats.viewers}`],
    ];
    const machine = stats.machine ?? {};
    if (machine.hottest_c != null) rows.push(["Hottest place", `${machine.hottest_c} °C`]);
    if (machine.gpu_load != null) rows.push(["GPU load", `${number(100 * machine.gpu_load)} %`]);
    if (machine.power_mode) rows.push(["Power mode", machine.power_mode]);
    if (machine.throttled?.length) rows.push(["Throttled", machine.throttled.join(", "), true]);
    for (const output of stats.outputs ?? []) {
      const lost = output.state !== "open" || output.errors > 0;
      const counts = `${output.sent} sent, ${output.dropped} dropped, ${output.errors} failed`;
      rows.push([output.name, `${output.state}: ${counts}`, lost]);
    }
    showRows("stats", rows);
  }

  // Loads a new picture, never two at once: a slow link gets fewer, not older ones.
  async _pictures(picture) {
    const open = document.getElementById("pictures").open && !document.hidden;
    if (!picture || !open || this.loading || picture.number === this.shownPicture) return;
    this.loading = true;
    const load = (id, url) => new Promise((resolve) => {
      const image = document.getElementById(id);
      // One that never comes must not be the last.
      const late = setTimeout(resolve, PICTURE_S * 1000);
      image.onload = image.onerror = (event) => {
        clearTimeout(late);
        image.hidden = event.type === "error";
        resolve();
      };
      image.src = url;
    });
    const wanted = [load("frame", `/live/frame.jpg?n=${picture.number}`)];
    if (picture.has_view) wanted.push(load("view", `/live/view.jpg?n=${picture.number}`));
    await Promise.all(wanted);
    this.shownPicture = picture.number;
    this.loading = false;
  }
}
