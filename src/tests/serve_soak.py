"""Many clients of one `kindling serve` for a while: is a stream lost or mixed with another, does memory grow?

Every question has a seed, so that its answer is known from asking it alone. Needs nothing but Python:
python3 serve_soak.py URL [--pid SERVER] [--clients 64] [--secs 300]
"""

import argparse
import http.client
import itertools
import json
import threading
import time
import urllib.parse

NUM_QUESTIONS = 48
TOPICS = ["{0}+{1}=?", "Name the {0} days before Monday.", "Tell me a story about {0}.", "{0}加{1}等于几?", "Who are you? {0}"]


def body(number, stream):
    text = TOPICS[number % len(TOPICS)].format(number % 90 + 1, number % 7 + 2)
    fields = {"messages": [{"role": "user", "content": text}], "seed": number, "temperature": 1, "max_tokens": 16 + number % 48}
    if number % 2 == 0:
        # Without its end token a model writes to the limit.
        fields["logit_bias"] = {"2": -100}
    if stream:
        fields |= {"stream": True, "stream_options": {"include_usage": True}}
    return json.dumps(fields)


def ask(connection, number, stream):
    connection.request("POST", "/v1/chat/completions", body(number, stream), {"Content-Type": "application/json"})
    return connection.getresponse()


def whole(connection, number):
    answer = json.load(ask(connection, number, False))
    choice = answer["choices"][0]
    return choice["message"]["content"], choice["finish_reason"], answer["usage"]["completion_tokens"]


def streamed(connection, number):
    """The same three, of a stream that ends as it should."""
    response = ask(connection, number, True)
    if response.status != 200:
        raise RuntimeError(f"status {response.status}: {response.read()[:200]}")
    text, reason, num_tokens, is_done = "", None, None, False
    for line in response:
        if not line.startswith(b"data: "):
            continue
        if line.strip() == b"data: [DONE]":
            is_done = True
            continue
        chunk = json.loads(line[6:])
        if "error" in chunk:
            raise RuntimeError(chunk["error"]["message"])
        if chunk.get("usage"):
            num_tokens = chunk["usage"]["completion_tokens"]
        for choice in chunk["choices"]:
            text += choice["delta"].get("content") or ""
            reason = choice["finish_reason"] or reason
    if not is_done:
        raise RuntimeError("the stream ended without [DONE]")
    return text, reason, num_tokens


def resident_mib(pid):
    with open(f"/proc/{pid}/status") as status:
        kib = next(line.split()[1] for line in status if line.startswith("VmRSS:"))
    return int(kib) / 1024


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("--pid", help="the server's process, to watch its memory (Linux)")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--secs", type=float, default=300)
    args = parser.parse_args()
    host = urllib.parse.urlparse(args.url).netloc

    alone = http.client.HTTPConnection(host)
    start = time.monotonic()
    expected = [whole(alone, number) for number in range(NUM_QUESTIONS)]
    speed = sum(answer[2] for answer in expected) / (time.monotonic() - start)
    print(f"{NUM_QUESTIONS} questions asked alone, {len(set(expected))} different answers, {speed:.0f} tokens/s", flush=True)

    start = time.monotonic()
    numbers, lock = itertools.count(), threading.Lock()
    sums = {"done": 0, "tokens": 0, "mixed": 0, "lost": 0}

    def client():
        connection = http.client.HTTPConnection(host, timeout=600)
        while time.monotonic() - start < args.secs:
            with lock:
                number = next(numbers) * 37 % NUM_QUESTIONS
            try:
                answer = streamed(connection, number)
            except Exception as error:
                print(f"question {number}: {error!r}")
                connection = http.client.HTTPConnection(host, timeout=600)
                with lock:
                    sums["lost"] += 1
                continue
            if answer != expected[number]:
                print(f"question {number}: found {answer}, expected {expected[number]}")
            with lock:
                sums["done"] += 1
                sums["tokens"] += answer[2]
                sums["mixed"] += answer != expected[number]

    clients = [threading.Thread(target=client) for _ in range(args.clients)]
    for thread in clients:
        thread.start()
    next_look = 0
    while any(thread.is_alive() for thread in clients):
        elapsed = time.monotonic() - start
        if elapsed >= next_look:
            memory = f", {resident_mib(args.pid):.1f} MiB resident" if args.pid else ""
            print(f"{elapsed:5.0f} s: {sums['done']} streams{memory}", flush=True)
            next_look += max(10, args.secs / 10)
        time.sleep(0.2)
    secs = time.monotonic() - start
    memory = f", {resident_mib(args.pid):.1f} MiB resident" if args.pid else ""
    print(f"{args.clients} clients, {secs:.0f} s: {sums['done']} streams, {sums['tokens'] / secs:.0f} tokens/s, "
          f"{sums['lost']} lost, {sums['mixed']} mixed{memory}")
    return sums["lost"] + sums["mixed"] > 0 or sums["done"] == 0


if __name__ == "__main__":
    raise SystemExit(main())
