// The REST interface and the event streams. All addresses are relative, so that the
// dashboard also works below a path of a reverse proxy.

const tokenKey = "external-server.token";

/** The bearer token lives as long as the tab. */
export const token = {
  get: () => sessionStorage.getItem(tokenKey) ?? "",
  set: (t) => sessionStorage.setItem(tokenKey, t),
  clear: () => sessionStorage.removeItem(tokenKey),
};

/** Problem is an error of the server (RFC 9457), or status 0: it was not reached. */
export class Problem extends Error {
  constructor(status, detail, field) {
    super(detail);
    this.status = status;
    this.field = field; // the member of the body that is wrong
  }
}

function headers(more) {
  const t = token.get();
  return t ? { ...more, Authorization: `Bearer ${t}` } : { ...more };
}

async function send(path, init) {
  let answer;
  try {
    answer = await fetch(path, { cache: "no-store", credentials: "omit", ...init });
  } catch (error) {
    if (init.signal?.aborted) throw error;
    throw new Problem(0, "The server does not answer.");
  }
  if (answer.ok) return answer;
  let field;
  let detail = `The server answers ${answer.status} ${answer.statusText}.`;
  try {
    const p = await answer.json();
    detail = p.detail || p.title || detail;
    field = p.field;
  } catch { /* something between us and the server answered */ }
  throw new Problem(answer.status, detail, field);
}

/** Exact is a number as it was written, when JavaScript would write it differently. */
export class Exact {
  constructor(source) { this.source = source; }
}

function exactly(_, value, context) {
  return typeof value === "number" && context?.source !== undefined && context.source !== String(value) ? new Exact(context.source) : value;
}

/** payloads of devices keep their numbers: 64-bit ids do not fit into JavaScript's. */
const parseDetail = (raw) => JSON.parse(raw, exactly);

/** get reads a resource. detail: it contains payloads. */
export async function get(path, { signal, detail } = {}) {
  const answer = await send(path, { headers: headers({ Accept: "application/json" }), signal: signal ?? AbortSignal.timeout(30000) });
  return detail ? parseDetail(await answer.text()) : answer.json();
}

/** act changes something; without a token the server wants to see that it is us. A body that
 * is a text is JSON already. */
export async function act(method, path, body) {
  const init = { method, headers: headers({ Accept: "application/json", "X-External-Server": "dashboard" }), signal: AbortSignal.timeout(30000) };
  if (body !== undefined) {
    init.body = typeof body === "string" ? body : JSON.stringify(body);
    init.headers["Content-Type"] = "application/json";
  }
  return (await send(path, init)).json();
}

/** table saves a table that the server writes, with the mark by which spreadsheets know its
 * characters. It returns the replicas that it misses. */
export async function table(path) {
  const answer = await send(path, { headers: headers({ Accept: "text/csv" }), signal: AbortSignal.timeout(60000) });
  const name = /filename="([^"]+)"/.exec(answer.headers.get("Content-Disposition") ?? "")?.[1] ?? "table.csv";
  const url = URL.createObjectURL(new Blob(["\ufeff", await answer.blob()], { type: "text/csv;charset=utf-8" }));
  const link = document.createElement("a");
  link.href = url;
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(url), 10000);
  return answer.headers.get("X-Missing-Replicas") ?? "";
}

export const carPath = (name) => `api/v1/cars/${encodeURIComponent(name)}`;

const silence = 45000; // ms; the server sends a comment every 15 s
const longestPause = 15000; // ms between attempts

/** Stream reads server-sent events with fetch, because EventSource cannot send a
 * token. It reconnects by itself, resuming after the last id. State: connecting,
 * live, waiting (until retryAt), refused (until restart), stopped. */
export class Stream {
  #path; #onEvent; #onState; #abort; #timer; #attempts = 0; #lastID; #wanted = false; #detail;
  state = "stopped";
  retryAt = 0;
  problem = null;

  /** onEvent(batch of {type, id, data}); first: the id to begin after. */
  constructor(path, { onEvent, onState, first = "", detail = false }) {
    this.#path = path;
    this.#onEvent = onEvent;
    this.#onState = onState;
    this.#lastID = first;
    this.#detail = detail;
  }

  start() {
    if (this.#wanted) return;
    this.#wanted = true;
    this.#attempts = 0;
    this.#open();
  }

  stop() {
    this.#wanted = false;
    clearTimeout(this.#timer);
    this.#abort?.abort();
    this.#become("stopped");
  }

  restart() {
    this.stop();
    this.start();
  }

  #become(state, problem = null) {
    this.state = state;
    this.problem = problem;
    this.#onState?.(this);
  }

  async #open() {
    const abort = new AbortController();
    this.#abort = abort;
    this.#become("connecting", this.problem);
    let watchdog;
    const alive = () => {
      clearTimeout(watchdog);
      watchdog = setTimeout(() => abort.abort(), silence);
    };
    let problem = new Problem(0, "The server closed the stream.");
    try {
      alive();
      const extra = { Accept: "text/event-stream" };
      if (this.#lastID && this.#lastID !== "0") extra["Last-Event-ID"] = this.#lastID;
      const answer = await send(this.#path + (this.#lastID === "0" ? "?after=0" : ""), { headers: headers(extra), signal: abort.signal });
      this.#attempts = 0;
      this.#become("live");
      await this.#read(answer.body.getReader(), alive);
    } catch (error) {
      if (error instanceof Problem) problem = error;
    } finally {
      clearTimeout(watchdog);
    }
    if (this.#abort !== abort || !this.#wanted) return; // stopped or opened anew
    abort.abort();
    if ([401, 403, 404].includes(problem.status)) {
      this.#wanted = false;
      this.#become("refused", problem);
      return;
    }
    const pause = Math.min(longestPause, 500 * 2 ** this.#attempts++) * (0.75 + Math.random() / 2);
    this.retryAt = Date.now() + pause;
    this.#timer = setTimeout(() => this.#open(), pause);
    this.#become("waiting", problem);
  }

  async #read(reader, alive) {
    const decoder = new TextDecoder();
    let rest = "";
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      alive();
      const parts = (rest + decoder.decode(value, { stream: true })).split("\n\n");
      rest = parts.pop();
      const batch = parts.map((p) => this.#parse(p)).filter(Boolean);
      if (batch.length) this.#onEvent(batch);
    }
  }

  #parse(block) {
    const out = { type: "message", id: "", data: "" };
    for (const line of block.split("\n")) {
      const at = line.indexOf(":");
      if (at < 1) continue;
      const value = line.slice(line[at + 1] === " " ? at + 2 : at + 1);
      if (line.startsWith("event:")) out.type = value;
      else if (line.startsWith("id:")) this.#lastID = out.id = value;
      else if (line.startsWith("data:")) out.data += value;
    }
    if (!out.data) return null;
    out.data = this.#detail ? parseDetail(out.data) : JSON.parse(out.data);
    return out;
  }
}
