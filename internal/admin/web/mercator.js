// The projection of the map, Web Mercator: the world is a square from 0 to 1, north up.
const circumference = 40075016.686; // metres at the equator
const northmost = 85.0511; // degrees; beyond, the square ends

/** world is where a place in degrees is on the square. */
export function world(longitude, latitude) {
  const y = Math.max(-northmost, Math.min(northmost, latitude));
  return [(longitude + 180) / 360, 0.5 - Math.log(Math.tan(Math.PI / 4 + (y * Math.PI) / 360)) / (2 * Math.PI)];
}

/** latitude is that of a height on the square, in degrees. */
export const latitude = (y) => (360 / Math.PI) * Math.atan(Math.exp((0.5 - y) * 2 * Math.PI)) - 90;

/** perMetre is how much of the square a metre is at a latitude. */
export const perMetre = (degrees) => 1 / (circumference * Math.cos((Math.max(-northmost, Math.min(northmost, degrees)) * Math.PI) / 180));
