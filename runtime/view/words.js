// What states and reasons mean, in words for whoever flies.

export const STATES = {
  TRACK: { tone: "good", title: "Position matched with the map" },
  DEGRADED: { tone: "warn", title: "Position carried on, not matched now" },
  NO_FIX: { tone: "bad", title: "No position" },
  OUT_OF_PACK: { tone: "out", title: "Outside the map: no position" },
  ACQUIRING: { tone: "wait", title: "Looking for the first position" },
  INIT: { tone: "wait", title: "Starting" },
};

export const REASONS = {
  no_frames: "The camera delivers no picture.",
  no_telemetry: "No attitude or height from the autopilot.",
  frame_size: "The picture has another shape than the lens was calibrated for.",
  no_height: "The reported height above ground is not positive.",
  tilt: "The camera looks too far off straight down.",
  too_low: "Too low: the picture shows less ground than one map tile.",
  too_high: "Too high: a map tile is only a few pixels wide.",
  dark: "The picture is too dark.",
  bright: "The picture is overexposed.",
  uniform: "Nothing to recognise: fog, cloud, water or a covered lens.",
  blurred: "The picture is blurred.",
  ambiguous: "Several places look alike, or none looks right.",
  stale: "Nothing was recognised for too long.",
};

export const SOURCES = {
  visual: "Matched in this picture",
  propagated: "Carried on from the last match",
};

export function title(state) {
  return STATES[state]?.title ?? state;
}

export function reason(name) {
  return name == null ? "" : REASONS[name] ?? name;
}

export function tone(state) {
  return STATES[state]?.tone ?? "wait";
}

export function number(value, digits = 0) {
  return value == null || !Number.isFinite(value) ? "–" : value.toFixed(digits);
}

export function degrees(value) {
  if (value == null || !Number.isFinite(value)) return "–";
  return String(Math.round(value) % 360).padStart(3, "0");
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  const [h, m, s] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  const pair = String(s).padStart(2, "0");
  return h ? `${h}:${String(m).padStart(2, "0")}:${pair}` : `${m}:${pair}`;
}
