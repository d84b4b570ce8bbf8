// Web Mercator as fractions of the world (0 to 1, from the north-west), and metres on the ground.

const EARTH_M = 6378137;
const TILE_PX = 256;

export function mercator(lat, lon) {
  return [(lon + 180) / 360, (1 - Math.asinh(Math.tan((lat * Math.PI) / 180)) / Math.PI) / 2];
}

// Metres that the whole world is wide at a latitude.
export function worldMetres(lat) {
  return 2 * Math.PI * EARTH_M * Math.cos((lat * Math.PI) / 180);
}

// Corners of a square of the ground around a place, as Leaflet takes them.
export function square(lat, lon, sideMetres) {
  const dLat = ((sideMetres / 2 / EARTH_M) * 180) / Math.PI;
  const dLon = dLat / Math.cos((lat * Math.PI) / 180);
  return [[lat - dLat, lon - dLon], [lat + dLat, lon + dLon]];
}

const images = new Map();
const KEPT_IMAGES = 48;

function tileImage(zoom, x, y) {
  const url = `/tiles/${zoom}/${x}/${y}.webp`;
  let promise = images.get(url);
  if (!promise) {
    promise = new Promise((resolve) => {
      const image = new Image();
      image.onload = () => resolve(image);
      image.onerror = () => resolve(null);
      image.src = url;
    });
    images.set(url, promise);
    if (images.size > KEPT_IMAGES) images.delete(images.keys().next().value);
  }
  return promise;
}

// Draws a square of the map into a canvas; resolves to whether there was anything to draw.
export async function drawGround(canvas, zooms, lat, lon, sideMetres) {
  const share = sideMetres / worldMetres(lat);
  const [mx, my] = mercator(lat, lon);
  let zoom = Math.ceil(Math.log2(canvas.width / TILE_PX / share));
  zoom = Math.max(zooms.low, Math.min(zooms.high, zoom));
  const world = 2 ** zoom;
  const [left, top] = [(mx - share / 2) * world, (my - share / 2) * world];
  const side = share * world;
  const wanted = [];
  for (let y = Math.floor(top); y < top + side; y++) {
    for (let x = Math.floor(left); x < left + side; x++) {
      if (y >= 0 && y < world) wanted.push([x, y]);
    }
  }
  const found = await Promise.all(wanted.map(([x, y]) => tileImage(zoom, x, y)));
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, canvas.width, canvas.height);
  const scale = canvas.width / side;
  found.forEach((image, i) => {
    if (!image) return;
    const [x, y] = wanted[i];
    context.drawImage(image, (x - left) * scale, (y - top) * scale, scale, scale);
  });
  return found.some(Boolean);
}
