#!/usr/bin/python3
"""A complete module in Python: number 1002, one device type (0, a button with a
lamp). It lights the lamp of a button while the button is pressed.

Needs python3-protobuf only. fleet_module_pb2.py is generated from
modules/include/fleet_module.proto, which is also the description of the protocol:

    protoc -I modules/include --python_out=modules/example-python fleet_module.proto

Everything here is quick, so one thread answers everything in the order in which
it comes, and a Poll simply stays unanswered until there is something to say. Work
that waits for others (HTTP, a database) belongs in threads: no car may wait for
another one.
"""
import json
import os
import select
import socket
import struct
import sys
import time

import fleet_module_pb2 as pb

NUMBER = 1002
BUTTON = 0  # the only device type
OK, NOT_OK, CONTEXT_INCORRECT = 0, -1, -11
MAX_FRAME = 65 << 20


class Car:
    """One context: the devices and commands of one car."""

    def __init__(self, config):
        lamp = config.get("lamp", "normal")
        if lamp not in ("normal", "inverted"):
            raise ValueError('config key "lamp" must be "normal" or "inverted"')
        self.inverted = lamp == "inverted"
        self.lit = {}  # by role
        self.commands = []
        self.poll = None  # (id of the Poll, when to answer it at the latest)

    def call(self, call):
        device = call.device
        if call.function == pb.Call.DEVICE_CONNECTED:
            if device.type != BUTTON:
                return NOT_OK, ""
            self.lit[device.role] = False
        elif call.function == pb.Call.DEVICE_DISCONNECTED:
            if self.lit.pop(device.role, None) is None:
                return NOT_OK, ""
        elif call.function == pb.Call.FORWARD_STATUS:
            return self.status(device, call.data)
        return OK, ""

    def status(self, device, data):
        try:
            pressed = json.loads(data)["pressed"]
        except (ValueError, TypeError, KeyError, RecursionError):
            return NOT_OK, 'status of %d bytes is not {"pressed": true|false}' % len(data)
        lit = bool(pressed) != self.inverted
        if self.lit.get(device.role, lit) != lit:
            self.lit[device.role] = lit
            text = json.dumps({"lit_up": lit}).encode()
            self.commands.append(pb.Command(device=device, data=text))
        return OK, ""


class Module:
    def __init__(self, connection):
        self.connection = connection
        self.cars = {}  # by context number

    def send(self, frame):
        body = frame.SerializeToString()
        self.connection.sendall(struct.pack("<I", len(body)) + body)

    def answer(self, number, code=OK, error="", **more):
        result = pb.Result(code=code, error=error, **more)
        self.send(pb.ModuleFrame(id=number, result=result))

    def receive(self, size):
        """Returns exactly size bytes, or None at the end of the connection."""
        data = bytearray()
        while len(data) < size:
            part = self.connection.recv(size - len(data))
            if not part:
                return None
            data += part
        return bytes(data)

    def run(self):
        self.send(pb.ModuleFrame(hello=pb.Hello(protocol=1, name="example-python")))
        while True:
            deadlines = [car.poll[1] for car in self.cars.values() if car.poll]
            wait = max(0, min(deadlines) - time.monotonic()) if deadlines else None
            if wait == float("inf"):
                wait = None
            if select.select([self.connection], [], [], wait)[0]:
                head = self.receive(4)
                if head is None:
                    return  # the server is gone, and so are we
                size = struct.unpack("<I", head)[0]
                if size > MAX_FRAME:
                    raise ValueError("a frame of %d bytes" % size)
                body = self.receive(size)
                if body is None:
                    return
                self.handle(pb.ServerFrame.FromString(body))
            self.answer_polls()

    def handle(self, frame):
        kind = frame.WhichOneof("kind")
        if kind == "start":
            if frame.start.module_number not in (0, NUMBER):
                error = "this is module %d" % NUMBER
                return self.answer(frame.id, NOT_OK, error)
            return self.answer(frame.id, module_number=NUMBER, supported_types=[BUTTON],
                               holds_polls=True)
        if kind == "ping":
            return self.answer(frame.id)
        if kind == "supports":
            return self.answer(frame.id, OK if frame.supports.type == BUTTON else NOT_OK)
        if kind == "open":
            try:
                car = Car({pair.key: pair.value for pair in frame.open.config})
            except ValueError as problem:
                return self.answer(frame.id, NOT_OK, str(problem))
            self.cars[frame.open.context] = car
            return self.answer(frame.id)
        if kind == "end_poll":
            car = self.cars.get(frame.end_poll.context)
            if car is not None and car.poll:
                car.poll = (car.poll[0], 0)  # it is over: answer_polls answers it
            return self.answer(frame.id)
        if kind not in ("call", "poll", "close"):
            return self.answer(frame.id, NOT_OK, "unknown frame")
        context = getattr(frame, kind).context
        car = self.cars.get(context)
        if car is None:
            return self.answer(frame.id, CONTEXT_INCORRECT, "there is no context %d" % context)
        if kind == "call":
            return self.answer(frame.id, *car.call(frame.call))
        if kind == "poll":
            hold = frame.poll.hold  # until there are commands, or end_poll comes
            timeout = float("inf") if hold else frame.poll.timeout_ms / 1000
            car.poll = (frame.id, time.monotonic() + timeout)
            return None
        del self.cars[context]
        return self.answer(frame.id)

    def answer_polls(self):
        now = time.monotonic()
        for car in self.cars.values():
            if car.poll and (car.commands or car.poll[1] <= now):
                number, car.poll = car.poll[0], None
                commands, car.commands = car.commands, []
                self.answer(number, commands=commands)


def main():
    if os.environ.get("FLEET_MODULE_PROTOCOL") != "1":
        sys.exit("this program is started by external-server; to try it, run: "
                 "external-server module check " + sys.argv[0])
    Module(socket.socket(fileno=int(os.environ["FLEET_MODULE_FD"]))).run()


if __name__ == "__main__":
    main()
