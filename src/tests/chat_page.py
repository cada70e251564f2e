"""The chat page of a running `kindling serve` in headless Chromium: what a person does, what the page shows then.

Screenshots go to a folder, to be looked at. Needs Chromium and nothing else: python3 chat_page.py URL FOLDER
"""

import argparse
import base64
import fcntl
import json
import os
import pathlib
import subprocess
import tempfile
import time

HOSTILE = """# <script>window.pwned = 1</script>
<img src=x onerror="window.pwned = 2"> and [a link](javascript:window.pwned=3) and [another](https://example.org/"onclick="x)
- **<svg onload=alert(1)>** `</code><script>window.pwned = 4</script>`

| <b>a</b> | b |
|---|---|
| <iframe src="javascript:window.pwned=5"></iframe> | 1 |

```html
<script>window.pwned = 6</script>
```
> quoted <details open ontoggle="window.pwned = 7">"""


class Browser:
    """Chromium over its debugging pipe: JSON texts that end in NUL."""

    def __init__(self, program, profile):
        theirs_in, self.commands = os.pipe()
        self.events, theirs_out = os.pipe()
        high = [fcntl.fcntl(end, fcntl.F_DUPFD, 10) for end in (theirs_in, theirs_out)]
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        self.process = subprocess.Popen([program, *flags, "about:blank"], stderr=subprocess.DEVNULL, pass_fds=(3, 4),
                                        preexec_fn=lambda: [os.dup2(end, place) for end, place in zip(high, (3, 4))])
        self.unread, self.number, self.session, self.problems = b"", 0, None, []
        page = next(info for info in self.ask("Target.getTargets")["targetInfos"] if info["type"] == "page")
        self.session = self.ask("Target.attachToTarget", targetId=page["targetId"], flatten=True)["sessionId"]
        for domain in ("Runtime", "Log", "Page"):
            self.ask(f"{domain}.enable")

    def ask(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params} | ({"sessionId": self.session} if self.session else {})
        os.write(self.commands, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.unread:
                self.unread += os.read(self.events, 1 << 20)
            answer, self.unread = self.unread.split(b"\0", 1)
            answer = json.loads(answer)
            is_advice = answer.get("params", {}).get("entry", {}).get("level") in ("verbose", "info")
            if answer.get("method") in ("Runtime.exceptionThrown", "Log.entryAdded") and not is_advice:
                self.problems.append(answer["params"])
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def js(self, expression):
        answer = self.ask("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait(self, expression, secs=120):
        end = time.monotonic() + secs
        while not self.js(expression):
            assert time.monotonic() < end, f"not so after {secs} s: {expression}"
            time.sleep(0.1)

    def open(self, url):
        self.ask("Page.navigate", url=url)
        self.wait("document.readyState === 'complete' && !!window.listModels && document.getElementById('model').options.length > 0")

    def resize(self, width, height, is_phone=False):
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=2 if is_phone else 1, mobile=is_phone)
        time.sleep(0.4)

    def close(self):
        self.process.terminate()
        self.process.wait()


def say(browser, text):
    browser.js(f"$('input').value = {json.dumps(text)}; $('form').requestSubmit(); true")


def is_done(browser):
    browser.wait("!running")


def click(browser, turn, word):
    """Presses a turn's button by its word in the open language."""
    browser.js(f"[...document.querySelectorAll('.turn')].at({turn}).querySelectorAll('.tools button').forEach("
               f"b => {{ if (b.textContent === t({json.dumps(word)})) b.click(); }}); true")


def texts(browser):
    return browser.js("chat().turns.map(turn => turn.content)")


def check(browser, url, shot):
    browser.resize(1200, 800)
    browser.open(url)
    shot("1_empty")

    say(browser, "3+4=?")
    is_done(browser)
    say(browser, "Tell me a story.")
    is_done(browser)
    turns = texts(browser)
    assert len(turns) == 4 and all(turns), turns
    assert browser.js("/\\d/.test(document.querySelector('.turn:last-child .tools span').textContent)")
    shot("2_answered")

    # An answer grows before one's eyes, and stops when told to, at the server too.
    browser.js("window.ask = fetch; window.fetch = (address, options) => { if (options?.body) { const body = JSON.parse(options.body);"
               "body.logit_bias = {2: -100}; body.max_tokens = 200; options.body = JSON.stringify(body); } return ask(address, options); }; true")
    say(browser, "Tell me another story.")
    browser.wait("chat().turns.at(-1).content.length > 3")
    before = len(texts(browser)[-1])
    browser.wait(f"chat().turns.at(-1).content.length > {before}")
    shot("3_streaming")
    say(browser, "")
    assert browser.js("!running")
    stopped = texts(browser)[-1]
    browser.wait("ask('metrics').then(r => r.text()).then(page => page.includes('kindling_requests_running 0'))")
    assert texts(browser)[-1] == stopped and len(texts(browser)) == 6
    browser.js("window.fetch = ask; true")
    shot("4_stopped")

    click(browser, -1, "again")
    is_done(browser)
    assert len(texts(browser)) == 6

    click(browser, 0, "edit")
    shot("5_editing")
    browser.js("document.querySelector('.turn textarea').value = 'Who are you?'; true")
    click(browser, 0, "resend")
    is_done(browser)
    assert texts(browser)[0] == "Who are you?" and len(texts(browser)) == 2, texts(browser)

    # Nothing that a model writes becomes markup.
    events = [json.dumps({"choices": [{"index": 0, "delta": {"content": HOSTILE[i:i + 7]}}]}) for i in range(0, len(HOSTILE), 7)]
    events += [json.dumps({"choices": [{"index": 0, "delta": {"reasoning_content": "<img src=x onerror='window.pwned = 8'>",
               "tool_calls": [{"index": 0, "function": {"name": "<b>f</b>", "arguments": "{\"a\": 1}"}}]}}]}), "[DONE]"]
    stream = json.dumps("".join(f"data: {event}\n\n" for event in events))
    browser.js(f"window.fetch = () => Promise.resolve(new Response({stream})); true")
    say(browser, HOSTILE)
    is_done(browser)
    browser.js("window.fetch = ask; true")
    time.sleep(0.5)
    assert browser.js("window.pwned") is None
    made = browser.js("[...new Set([...document.querySelectorAll('#log *')].map(e => e.tagName))].sort()")
    assert not {"SCRIPT", "IMG", "IFRAME", "SVG", "svg"} & set(made), made
    assert browser.js("[...document.querySelectorAll('#log a')].every(a => a.href.startsWith('https://') && !a.onclick)")
    shot("6_hostile")

    # Kept by the browser, in both lights and languages, on a phone.
    browser.open(url)
    assert len(texts(browser)) == 4
    browser.js("$('theme').click(); $('language').click(); true")
    shot("7_other_light_chinese")
    for width in (360, 1200):
        browser.resize(width, 780, width == 360)
        assert browser.js("document.documentElement.scrollWidth <= innerWidth"), f"wider than {width}"
    browser.resize(390, 844, True)
    shot("8_phone")
    browser.js("$('menu').click(); $('settings').open = true; true")
    time.sleep(0.5)
    shot("9_phone_menu")
    browser.js("$('menu').click(); $('theme').click(); $('language').click(); true")
    time.sleep(0.5)
    shot("10_phone_first_light")


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("url")
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--chromium", default="chromium")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        browser = Browser(args.chromium, profile)

        def shot(name):
            picture = browser.ask("Page.captureScreenshot")["data"]
            (args.folder / f"{name}.png").write_bytes(base64.b64decode(picture))

        try:
            check(browser, args.url, shot)
        finally:
            browser.close()
    assert not browser.problems, browser.problems
    print("all is as it should be; look at", args.folder)


main()
