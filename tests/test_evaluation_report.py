"""The report in a real browser: a headless Chromium, driven over the DevTools protocol through two pipes."""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from codec.evaluation import cli, rows, viewer

BROWSER = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

# Popen hands descriptors on under their own numbers only; copies from 10 up are clear of 3 and 4.
RENUMBER = """
import fcntl, os, sys
incoming, outgoing = (fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3])
os.dup2(incoming, 3), os.dup2(outgoing, 4)
os.execvp(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page. Messages are JSON ended by a zero byte, ours on its descriptor 3, its own on descriptor 4."""

    def __init__(self, profile):
        their_in, self.out = os.pipe()
        self.into, their_out = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run --window-size=1200,900"
        browser = [BROWSER, *flags.split(), "--remote-debugging-pipe", f"--user-data-dir={profile}", "about:blank"]
        self.process = subprocess.Popen(
            [sys.executable, "-c", RENUMBER, str(their_in), str(their_out), *browser],
            pass_fds=(their_in, their_out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        os.close(their_in), os.close(their_out)
        self.number, self.events, self.rest, self.session = 0, [], b"", None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method, **parameters):
        self.number += 1
        message = {"id": self.number, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        os.write(self.out, json.dumps(message).encode() + b"\0")
        while (answer := self._receive()).get("id") != self.number:
            self.events.append(answer)
        assert "error" not in answer, answer
        return answer["result"]

    def _receive(self):
        while b"\0" not in self.rest:
            chunk = os.read(self.into, 1 << 16)
            assert chunk, "the browser has gone"
            self.rest += chunk
        message, self.rest = self.rest.split(b"\0", 1)
        return json.loads(message)

    def open(self, path):
        self.events.clear()
        self.call("Page.navigate", url=path.as_uri())
        while not any(event.get("method") == "Page.loadEventFired" for event in self.events):
            self.events.append(self._receive())

    def evaluate(self, expression):
        """The value of a JavaScript expression, awaited if it is a promise."""
        result = self.call("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def complaints(self):
        wanted = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event.get("method") in wanted]

    def requests(self):
        sent = [
            event["params"]["request"]["url"]
            for event in self.events
            if event.get("method") == "Network.requestWillBeSent"
        ]
        return [url for url in sent if not url.startswith(("data:", "about:"))]

    def mouse(self, kind, x, y, **more):
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)

    def press(self, key, **more):
        text = {"text": key} if len(key) == 1 else {}
        self.call("Input.dispatchKeyEvent", type="keyDown", key=key, **text, **more)
        self.call("Input.dispatchKeyEvent", type="keyUp", key=key, **more)

    def close(self):
        self.call("Browser.close")
        self.process.wait(timeout=30)
        os.close(self.out), os.close(self.into)


def shot(picture, rate, codec, size, pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True)
    name = f"{picture}_{rate}_{codec or 'original'}.webp"
    psnr = None if not codec else 30.0 + rate
    scores = {"ssimulacra2": 60.0 + rate, "of another version": 1.0} if codec == "lic" else {}
    setting = 50.0 if codec else None
    return viewer.Shot(picture, picture, rate, codec, "1", setting, size, psnr, name, scores), buffer.getvalue()


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    """A report over made-up rows of two codecs and three pictures, with shots of one picture at two rates."""
    folder = tmp_path_factory.mktemp("report")
    template = json.loads(
        '{"width": 96, "height": 64, "codec_version": "1", "psnr_y": 40.0, "encode_s": 0.1, "decode_s": 0.01,'
        '"encode_peak_mib": 50.0, "decode_peak_mib": 50.0, "threads": 1, "commit": null, "machine": "<b>&"}'
    )
    measured = [
        rows.Row(
            **template, image=f"{image}.png", image_sha256=image, codec=codec, setting=float(step),
            bytes=step * 100, bpp=0.1 * step * factor, psnr_rgb=28.0 + 2 * step, ms_ssim=1 - 0.1 / step,
            perceptual={"ssimulacra2": 20.0 + 10 * step},
        )
        for codec, factor in (("lic", 0.8), ("jpeg", 1.0))
        for image in ("a", "b", "c")
        for step in range(1, 6)
    ]  # fmt: skip
    rows.append(folder / "rows.jsonl", measured)
    ramp = np.arange(64 * 96 * 3, dtype=np.uint32).reshape(64, 96, 3).astype(np.uint8)
    viewer.append(folder, *shot("a", 0.0, "", 9000, ramp))
    for rate in (0.5, 1.0):
        viewer.append(folder, *shot("a", rate, "lic", round(768 * rate), ramp // 2 * 2))
        viewer.append(folder, *shot("a", rate, "jpeg", round(760 * rate), ramp // 16 * 16))
    parser = argparse.ArgumentParser()
    cli.add_arguments_plot(parser)
    assert cli.run_plot(parser.parse_args([str(folder), "--quiet"])) == 0
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium(tmp_path_factory):
    if BROWSER is None:
        pytest.skip("no Chromium on PATH")
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


@pytest.fixture
def browser(chromium, report):
    """The report, freshly opened."""
    chromium.open(report)
    return chromium


def settled(browser):
    """Waits, in the page, until the viewer has drawn what was chosen last."""
    look = "const look = () => +stage.dataset.shown === generation ? done() : requestAnimationFrame(look)"
    browser.evaluate(f"new Promise(done => {{ {look}; look(); }})")


def test_the_page_names_no_other_place(report):
    text = report.read_text("utf-8")
    assert "http://" not in text.replace("http://www.w3.org/2000/svg", "") and "https://" not in text
    assert "<b>&" not in text and "&lt;b&gt;&amp;" in text  # what rows say is text, not markup


def test_the_report_opens_without_a_complaint_or_a_request(browser, report):
    settled(browser)
    assert browser.complaints() == []
    assert browser.requests() == [report.as_uri()]
    assert browser.evaluate("document.querySelectorAll('#plot polyline').length") == 2
    assert browser.evaluate("document.querySelectorAll('table tr').length") == 12  # an overview and three metrics: heads and two codecs


def test_the_slider_moves_with_the_mouse_and_parts_the_pictures(browser):
    settled(browser)
    browser.evaluate("byId('viewer').scrollIntoView()")
    x, y, width = browser.evaluate("(b => [b.x, b.y + 100, b.width])(stage.getBoundingClientRect())")
    clip = browser.evaluate("over.style.clipPath")
    browser.mouse("mousePressed", x + width / 2, y, button="left", clickCount=1)
    browser.mouse("mouseMoved", x + width / 4, y, button="left", buttons=1)
    browser.mouse("mouseReleased", x + width / 4, y, button="left", clickCount=1)
    assert browser.evaluate("handle.getAttribute('aria-valuenow')") == "25"
    assert browser.evaluate("over.style.clipPath") != clip
    assert browser.complaints() == []


def test_zoom_and_pan_move_both_pictures_in_step(browser):
    settled(browser)
    browser.evaluate("stage.focus()")
    before = browser.evaluate("[view.zoom, view.x]")
    browser.press("+")
    browser.press("ArrowRight", modifiers=8)
    after = browser.evaluate("[view.zoom, view.x]")
    assert after[0] == pytest.approx(1.25 * before[0]) and after[1] != before[1]
    assert browser.evaluate("over.style.transform === under.style.transform")
    browser.press("0")
    assert browser.evaluate("[view.zoom, view.x]") == pytest.approx(before)


def test_keys_choose_rate_codec_original_and_error_map(browser):
    settled(browser)
    browser.evaluate("stage.focus()")
    assert browser.evaluate("byId('left').textContent") == "lic, setting 50: 384 B, 30.50 dB, SSIMULACRA 2 60.50"
    browser.press("r")
    settled(browser)
    assert browser.evaluate("byId('right').textContent") == "JPEG, setting 50: 760 B, 31.00 dB"
    browser.press("l")
    settled(browser)
    assert browser.evaluate("byId('left').textContent").startswith("JPEG")
    browser.press("o")
    settled(browser)
    assert browser.evaluate("byId('left').textContent") == "original, 9,000 B"
    browser.press("o")
    browser.press("e")
    settled(browser)
    assert browser.evaluate("byId('left').textContent").endswith("error ×4")
    # JPEG's stand-in is the ramp without its four low bits: bytes 12, 13, 14 are 13 off on average; 3 · 4 · 13 = 156.
    assert browser.evaluate("[...under.getContext('2d').getImageData(4, 0, 1, 1).data]") == [156, 0, 0, 255]
    assert browser.complaints() == []


def test_the_plot_tells_values_by_mouse_and_by_keyboard(browser):
    browser.evaluate("plot.scrollIntoView({ block: 'center' })")
    first = "document.querySelector('#plot circle').getBoundingClientRect()"
    x, y = browser.evaluate(f"(b => [b.x + b.width / 2, b.y + b.height / 2])({first})")
    browser.mouse("mouseMoved", x, y)
    assert browser.evaluate("byId('tip').textContent") == "lic, setting 1: 0.080 bpp, 30.00 dB"
    browser.evaluate("plot.focus()")
    browser.press("ArrowRight")
    assert browser.evaluate("byId('tip').textContent") == "lic, setting 2: 0.160 bpp, 32.00 dB"
    browser.press("ArrowDown")
    assert browser.evaluate("byId('tip').textContent") == "JPEG, setting 2: 0.200 bpp, 32.00 dB"


def test_the_plot_draws_one_image_or_the_other_metric(browser):
    browser.evaluate("byId('which').value = 1; byId('which').dispatchEvent(new Event('change'))")
    browser.evaluate("byId('metric').value = 1; byId('metric').dispatchEvent(new Event('change'))")
    assert browser.evaluate("document.querySelectorAll('#plot polyline').length") == 2
    browser.evaluate("byId('metric').value = 2; byId('metric').dispatchEvent(new Event('change'))")
    assert browser.evaluate("byId('metric').selectedOptions[0].textContent") == "SSIMULACRA 2, points"
    assert browser.evaluate("marks[0][0].text") == "lic, setting 1: 0.080 bpp, 30.00 points"
    browser.evaluate("toggle('jpeg')")
    assert browser.evaluate("document.querySelectorAll('#plot polyline').length") == 1
    assert browser.complaints() == []
