#!/usr/bin/env python3
"""Load on `vitx worker`: many requests, each tenth hostile. Prints memory, latencies and whether every request had its answer.

    cargo build --release && python3 benches/worker.py target/release/vitx [--requests 5000] [--http]

Standard library only; Linux, whose /proc says how much memory a process has.
"""

import argparse
import base64
import collections
import http.client
import json
import os
import subprocess
import threading
import time

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")


def pictures():
    """The pictures of assets/ in base64."""
    folder = os.path.join(ROOT, "assets")
    names = sorted(name for name in os.listdir(folder) if name.endswith(".jpg"))
    return [open(os.path.join(folder, name), "rb").read() for name in names]


def hostile(number, picture):
    """A request that has no explanation, each time another kind; and its id in the answer."""
    encoded = base64.b64encode(picture).decode()
    kinds = [
        (None, '{"id": %d, "image": "' % number),
        (None, "\x00\x01\x02 not json"),
        (None, "[" * 5000),
        (None, "x" * 3_000_000),
        (number, json.dumps({"id": number, "image": encoded, "colour": "red"})),
        (number, json.dumps({"id": number, "image": encoded, "path": "/etc/passwd"})),
        (number, json.dumps({"id": number, "path": "../../../etc/passwd"})),
        (number, json.dumps({"id": number, "image": base64.b64encode(picture[: len(picture) // 2]).decode()})),
        (number, json.dumps({"id": number, "image": "A" * 1_700_000})),
        (number, json.dumps({"id": number, "image": encoded, "method": "no-such-method"})),
        (number, json.dumps({"id": number, "image": encoded, "target": "no such class"})),
        (number, json.dumps({"id": number, "text": "a text for a model of pictures"})),
        (number, json.dumps({"id": number, "image": base64.b64encode(bomb()).decode()})),
        (number, json.dumps({"id": number, "image": {"deep": [[[]]]}})),
    ]
    return kinds[(number // 10) % len(kinds)]


def bomb():
    """A PNG whose head promises 30000 x 30000 pixels."""
    import struct
    import zlib

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 30000, 30000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


def requests(total):
    """Lines, and the ids their answers will have."""
    own = pictures()
    for number in range(total):
        picture = own[number % len(own)]
        if number % 10 == 9:
            yield hostile(number, picture)
        else:
            yield number, json.dumps({"id": number, "image": base64.b64encode(picture).decode()})


def resident(process):
    """Resident memory in MiB."""
    with open(f"/proc/{process}/status") as status:
        line = next(line for line in status if line.startswith("VmRSS"))
    return int(line.split()[1]) / 1024


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(share * len(values)))]


def report(total, answers, sent, memory, seconds):
    expected = collections.Counter(key for key, _ in sent)
    got = collections.Counter(key for key, _, _ in answers)
    status = collections.Counter(status for _, status, _ in answers)
    took = [seconds for _, _, seconds in answers]
    print(f"requests {total}, answers {len(answers)}, by status {dict(status)}, in {seconds:.1f} s")
    print(f"ids lost {sum((expected - got).values())}, ids too many {sum((got - expected).values())}")
    print(f"latency p50 {percentile(took, 0.5) * 1e3:.1f} ms, p99 {percentile(took, 0.99) * 1e3:.1f} ms")
    print("RSS " + ", ".join(f"{value:.0f} MiB at {at}" for at, value in memory))


def over_lines(program, total):
    """Through a pipe, with few requests on their way at a time, so that latencies are those of the worker."""
    command = [program, "worker", "-q", "-m", "demo-vit", "--max-body", "2M", "--max-picture", "1M"]
    child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    sent, answers, memory, begun = [], [], [], collections.deque()
    window = threading.Semaphore(8)
    start = time.time()

    def write():
        for key, line in requests(total):
            window.acquire()
            sent.append((key, None))
            begun.append(time.time())
            child.stdin.write(line.encode() + b"\n")
            child.stdin.flush()
        child.stdin.close()

    writer = threading.Thread(target=write)
    writer.start()
    for line in child.stdout:
        record = json.loads(line)
        answers.append((record["id"], record["status"], time.time() - begun.popleft()))
        # After the last answer there may be no process any more.
        if len(answers) in (500, total - 10):
            memory.append((len(answers), resident(child.pid)))
        window.release()
    writer.join()
    report(total, answers, sent, memory, time.time() - start)
    order = [key for key, _ in sent] == [key for key, _, _ in answers]
    print(f"in order: {order}; exit code {child.wait()}")


def over_http(program, total):
    """By eight clients, each with a connection that it keeps."""
    command = [program, "worker", "-m", "demo-vit", "--max-body", "2M", "--max-picture", "1M", "--listen", "127.0.0.1:0"]
    child = subprocess.Popen(command, stderr=subprocess.PIPE)
    place = next(line for line in child.stderr if b"listening on" in line).decode().split("http://")[1].split()[0]
    todo, lock = iter(requests(total)), threading.Lock()
    sent, answers, memory = [], [], []
    start = time.time()

    def client():
        connection = http.client.HTTPConnection(place)
        while True:
            with lock:
                key, line = next(todo, (None, None))
                if line is None:
                    return
                sent.append((key, None))
            begun = time.time()
            while True:
                try:
                    connection.request("POST", "/explain", line.encode())
                    answer = connection.getresponse()
                    body = answer.read()
                except (ConnectionError, http.client.HTTPException):
                    # The worker closes connections it has answered for a minute, and those of bodies it does not read.
                    connection.close()
                    if len(line) > 2 << 20:
                        body = b'{"id": null, "status": "error"}'
                        break
                    continue
                if answer.status != 503:
                    break
                time.sleep(0.05)
            record = json.loads(body)
            with lock:
                answers.append((record["id"], record["status"], time.time() - begun))
                if len(answers) in (500, total):
                    memory.append((len(answers), resident(child.pid)))

    clients = [threading.Thread(target=client) for _ in range(8)]
    for thread in clients:
        thread.start()
    for thread in clients:
        thread.join()
    report(total, answers, sent, memory, time.time() - start)
    child.terminate()
    print(f"exit code {child.wait()}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("program")
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--http", action="store_true")
    given = parser.parse_args()
    (over_http if given.http else over_lines)(given.program, given.requests)
