// Where more is known about what happened.

/** faultHref is the page of the car, the module or the server that an event is about. */
export function faultHref(ev) {
  if (ev.car) return `#/car/${encodeURIComponent(ev.car)}`;
  if (ev.module) return `#/modules?module=${ev.module}`;
  return "#/server";
}
