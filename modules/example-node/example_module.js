#!/usr/bin/env node
// A complete module in JavaScript: number 1003, one device type (0, a button with a
// lamp). It lights the lamp of a button while the button is pressed.
//
// Needs Node.js 18 or newer and no package: the few messages of fleet_module.proto are
// read and written by the functions at the end. Everything here is quick, so one
// thread answers everything in the order in which it comes.
'use strict';

const net = require('node:net');

const NUMBER = 1003;
const BUTTON = 0; // the only device type
const OK = 0, NOT_OK = -1, CONTEXT_INCORRECT = -11;
const MAX_FRAME = 65 * 1024 * 1024;

// Values of Call.function.
const CONNECTED = 1, DISCONNECTED = 2, STATUS = 3;

// One context: the devices and commands of one car.
class Car {
  constructor(config) {
    const lamp = config.get('lamp') ?? 'normal';
    if (lamp !== 'normal' && lamp !== 'inverted') throw new Error('config key "lamp" must be "normal" or "inverted"');
    this.inverted = lamp === 'inverted';
    this.lit = new Map(); // by role
    this.commands = [];
    this.poll = null; // {id, timer} of the Poll that waits for commands
  }

  // call returns [code, error].
  call(call) {
    switch (call.fn) {
      case CONNECTED:
        if (call.device.type !== BUTTON) return [NOT_OK, ''];
        this.lit.set(call.device.role, false);
        return [OK, ''];
      case DISCONNECTED:
        return [this.lit.delete(call.device.role) ? OK : NOT_OK, ''];
      case STATUS:
        return this.status(call.device, call.data);
    }
    return [OK, ''];
  }

  status(device, data) {
    let pressed;
    try {
      pressed = JSON.parse(data.toString()).pressed;
    } catch {
      pressed = undefined;
    }
    if (typeof pressed !== 'boolean') return [NOT_OK, `status of ${data.length} bytes is not {"pressed": true|false}`];
    const lit = pressed !== this.inverted;
    if (this.lit.has(device.role) && this.lit.get(device.role) !== lit) {
      this.lit.set(device.role, lit);
      this.commands.push({ device, data: Buffer.from(JSON.stringify({ lit_up: lit })) });
    }
    return [OK, ''];
  }
}

class Module {
  constructor(socket) {
    this.socket = socket;
    this.cars = new Map(); // by context number
    this.chunks = [];
    this.size = 0;
    socket.on('data', (chunk) => this.receive(chunk));
    socket.on('end', () => process.exit(0)); // the server is gone, and so are we
    socket.on('error', () => process.exit(0));
    this.send([[2, message([[1, 1], [2, 'example-node']])]]); // Hello
  }

  receive(chunk) {
    this.chunks.push(chunk);
    this.size += chunk.length;
    while (this.size >= 4) {
      if (this.chunks[0].length < 4) this.chunks = [Buffer.concat(this.chunks)];
      const length = this.chunks[0].readUInt32LE(0);
      if (length > MAX_FRAME) throw new Error(`a frame of ${length} bytes`);
      if (this.size < 4 + length) return;
      const all = Buffer.concat(this.chunks);
      this.chunks = [all.subarray(4 + length)];
      this.size -= 4 + length;
      this.handle(fields(all.subarray(4, 4 + length)));
      this.answerPolls();
    }
  }

  send(parts) {
    const body = message(parts);
    const head = Buffer.alloc(4);
    head.writeUInt32LE(body.length);
    this.socket.write(Buffer.concat([head, body]));
  }

  // answer sends the Result of a ServerFrame; more are further fields of it.
  answer(id, code = OK, error = '', more = []) {
    this.send([[1, id], [3, message([[1, zigzag(code)], [2, error], ...more])]]);
  }

  handle(frame) {
    const id = number(frame, 1);
    const kind = [2, 3, 4, 5, 6, 7, 8].find((k) => frame.has(k));
    const m = kind === undefined ? new Map() : fields(frame.get(kind)[0]);
    switch (kind) {
      case 2: { // Start
        const wanted = unzigzag(number(m, 1));
        if (wanted !== 0 && wanted !== NUMBER) return this.answer(id, NOT_OK, `this is module ${NUMBER}`);
        return this.answer(id, OK, '', [[4, zigzag(NUMBER)], [5, Buffer.from([BUTTON])]]);
      }
      case 3: { // Open
        const config = new Map((m.get(4) ?? []).map((raw) => fields(raw)).map((pair) => [text(pair, 1), text(pair, 2)]));
        try {
          this.cars.set(number(m, 1), new Car(config));
        } catch (problem) {
          return this.answer(id, NOT_OK, problem.message);
        }
        return this.answer(id);
      }
      case 7: // Ping
        return this.answer(id);
      case 8: // Supports
        return this.answer(id, number(m, 1) === BUTTON ? OK : NOT_OK);
      case undefined:
        return this.answer(id, NOT_OK, 'unknown frame');
    }
    const context = number(m, 1);
    const car = this.cars.get(context);
    if (car === undefined) return this.answer(id, CONTEXT_INCORRECT, `there is no context ${context}`);
    switch (kind) {
      case 4: // Call
        return this.answer(id, ...car.call({ fn: number(m, 2), device: device(m.get(3)?.[0]), data: m.get(4)?.[0] ?? Buffer.alloc(0) }));
      case 5: // Poll
        car.poll = { id, timer: setTimeout(() => this.answerPoll(car), number(m, 2)) };
        return;
      case 6: // Close
        this.cars.delete(context);
        return this.answer(id);
    }
  }

  answerPolls() {
    for (const car of this.cars.values()) if (car.poll !== null && car.commands.length > 0) this.answerPoll(car);
  }

  answerPoll(car) {
    const { id, timer } = car.poll;
    clearTimeout(timer);
    car.poll = null;
    const commands = car.commands.map((c) => [3, message([[1, c.device.raw], [2, c.data]])]);
    car.commands = [];
    this.answer(id, OK, '', commands);
  }
}

// device reads a Device and keeps its bytes, which go back with commands.
function device(raw = Buffer.alloc(0)) {
  const m = fields(raw);
  return { raw: Buffer.from(raw), type: number(m, 2), role: text(m, 3) };
}

// What follows is Protocol Buffers, as far as the messages need it.

// fields returns the values of a message by field number: integers as numbers,
// everything else as bytes.
function fields(buffer) {
  const out = new Map();
  let at = 0;
  const varint = () => {
    let value = 0, scale = 1;
    for (;;) {
      const byte = buffer[at++];
      if (byte === undefined) throw new Error('a message that ends too early');
      value += (byte & 0x7f) * scale;
      if (byte < 0x80) return value;
      scale *= 128;
    }
  };
  while (at < buffer.length) {
    const key = varint();
    let value;
    switch (key & 7) {
      case 0: value = varint(); break;
      case 1: value = buffer.subarray(at, at += 8); break;
      case 2: { const length = varint(); value = buffer.subarray(at, at += length); break; }
      case 5: value = buffer.subarray(at, at += 4); break;
      default: throw new Error(`wire type ${key & 7}`);
    }
    const field = Math.floor(key / 8);
    if (out.has(field)) out.get(field).push(value);
    else out.set(field, [value]);
  }
  return out;
}

// Of a field that came several times the last one counts.
const number = (m, field) => m.get(field)?.at(-1) ?? 0;
const text = (m, field) => m.get(field)?.at(-1).toString() ?? '';
const zigzag = (n) => (n < 0 ? -2 * n - 1 : 2 * n);
const unzigzag = (n) => (n % 2 === 1 ? -(n + 1) / 2 : n / 2);

// message writes pairs of field number and value: a number, a string or bytes.
function message(parts) {
  const out = [];
  const varint = (n) => {
    while (n >= 0x80) {
      out.push(Buffer.from([(n % 128) | 0x80]));
      n = Math.floor(n / 128);
    }
    out.push(Buffer.from([n]));
  };
  for (const [field, value] of parts) {
    if (typeof value === 'number') {
      varint(field * 8);
      varint(value);
      continue;
    }
    const bytes = Buffer.from(value);
    varint(field * 8 + 2);
    varint(bytes.length);
    out.push(bytes);
  }
  return Buffer.concat(out);
}

if (process.env.FLEET_MODULE_PROTOCOL !== '1') {
  console.error(`this program is started by external-server; to try it, run: external-server module try node ${process.argv[1]}`);
  process.exit(1);
}
process.on('SIGTERM', () => {}); // the server ends the connection when it is time
process.on('SIGINT', () => {});
new Module(new net.Socket({ fd: Number(process.env.FLEET_MODULE_FD) }));
