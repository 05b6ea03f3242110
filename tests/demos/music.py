#!/usr/bin/env python3
"""The page of `fleuve demo music` in a real browser: what it shows, what it takes, and what it sounds like.

    tests/demos/music.py [--picture FILE]

The mix is rendered by an OfflineAudioContext and compared sample by sample with the loops it should consist of: loops play in
phase, and what changes does so at a boundary, to the sample.
"""

import argparse
import json
import os
import pathlib
import re
import subprocess
import sys
import time

from browser import Browser, BrowserError

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = os.environ.get("FLEUVE_BINARY", str(ROOT / "target" / "release" / "fleuve"))

# A change in the middle of the second loop, another one taken back before its boundary, one that keeps a loop.
SWAP = """(async () => {
  const { Mixer } = await import('/mixer.js');
  const { framesOf, render } = await import('/sounds.js');
  const rate = 44100;
  const frames = framesOf(rate);
  const offline = new OfflineAudioContext(1, frames * 5, rate);
  const mixer = new Mixer(offline);
  const at = (loops) => (loops * frames) / rate;
  const first = ['drum/drum1', 'pad/pad1', 'melody/melody2'];
  const second = ['drum/drum1', 'heavy_bass/heavy_bass3', 'synth/synth4'];
  const third = ['vocal/vocal1', 'drum/drum2'];
  const boundaries = [
    mixer.change(first, 0),
    mixer.change(second, at(1.5)),
    mixer.change(third, at(2.2)),
    mixer.change(second, at(2.6)),
    mixer.change(third, at(3.4)),
  ].map((seconds) => (seconds * rate) / frames);
  const rendered = (await offline.startRendering()).getChannelData(0);
  const mix = (names) => {
    const sum = new Float32Array(frames);
    for (const name of names) {
      render(name, rate).forEach((sample, i) => { sum[i] += sample; });
    }
    return sum;
  };
  const expected = [mix(first), mix(first), mix(second), mix(second), mix(third)];
  const worst = expected.map((loop, number) => {
    let most = 0;
    for (let i = 0; i < frames; i++) {
      most = Math.max(most, Math.abs(rendered[number * frames + i] - loop[i]));
    }
    return most;
  });
  return { boundaries, worst, frames };
})()"""

# Every loop: right length, audible, never too loud, silent at its edges, unlike the others.
LOOPS = """(async () => {
  const { INSTRUMENTS, LOOPS, framesOf, render } = await import('/sounds.js');
  const rate = 22050;
  const faults = [];
  const energies = new Map();
  for (const instrument of INSTRUMENTS) {
    for (let number = 1; number <= LOOPS; number++) {
      const name = `${instrument}/${instrument}${number}`;
      const samples = render(name, rate);
      let peak = 0;
      let energy = 0;
      for (const sample of samples) {
        if (!Number.isFinite(sample)) { faults.push(`${name}: not a number`); break; }
        peak = Math.max(peak, Math.abs(sample));
        energy += sample * sample;
      }
      const loudness = Math.sqrt(energy / samples.length);
      if (samples.length !== framesOf(rate)) faults.push(`${name}: ${samples.length} samples`);
      if (peak > 0.8 || loudness < 0.01) faults.push(`${name}: peak ${peak}, loudness ${loudness}`);
      if (samples[0] !== 0 || samples.at(-1) !== 0) faults.push(`${name}: does not begin and end in silence`);
      const key = energy.toFixed(6);
      if (energies.has(key)) faults.push(`${name}: the same as ${energies.get(key)}`);
      energies.set(key, name);
    }
  }
  for (const name of ['drum', 'drum/drum0', 'drum/drum5', 'drum/pad1', 'flute/flute1', '']) {
    if (render(name, rate) !== null) faults.push(`${name}: should not exist`);
  }
  return { faults, loops: energies.size, seconds: framesOf(44100) / 44100 };
})()"""

POST = """(() => {
  document.getElementById('name').value = %s;
  document.getElementById('text').value = %s;
  document.querySelector('#post button').click();
})()"""

failures = []


def check(good, what, found=""):
    print(f"{'ok  ' if good else 'FAIL'}  {what}{f': {found}' if found != '' else ''}")
    if not good:
        failures.append(what)


def post(browser, name, text, answer):
    browser.run(POST % (json.dumps(name), json.dumps(text)))
    note = "document.getElementById('post-note')"
    try:
        browser.wait(f"{note}.textContent.includes({json.dumps(answer)})", timeout=20)
        check(True, f"a post is answered: {answer}")
    except BrowserError:
        check(False, f"a post is answered: {answer}", browser.run(f"{note}.textContent"))


def start(*arguments):
    demo = subprocess.Popen([BINARY, "demo", "music", "--listen", "127.0.0.1:0", *arguments], stdout=subprocess.PIPE, text=True)
    for line in demo.stdout:
        found = re.search(r"open (http://\S+)", line)
        if found:
            return demo, found[1]
    raise SystemExit("the demo ended before it named its page")


def look(browser, page, picture):
    browser.open(page)
    browser.wait("document.querySelector('#connection.on')")
    check(True, "the page is connected")
    browser.wait("document.querySelectorAll('#channels [data-sound]').length > 0")
    names = browser.run("[...document.querySelectorAll('#channels [data-sound]')].map(row => row.dataset.sound)")
    check(0 < len(names) <= 5, "a round has been set to music", " ".join(names))
    browser.wait("document.querySelectorAll('#people li').length === 5")
    check(True, "users are shown")
    browser.wait("document.querySelector('#votes .in')")
    check(True, "votes are shown")

    post(browser, "Zoé", "More heavy bass <b>please</b>", "a vote for heavy bass")
    browser.wait("[...document.querySelectorAll('#messages .name')].some(name => name.textContent === 'Zoé')")
    shown = browser.run("[...document.querySelectorAll('#messages .what')].map(what => what.textContent).join('|')")
    check("<b>please</b>" in shown, "a post is shown as text, not as markup")
    post(browser, "Zoé", "just looking", "it names no instrument")

    check(browser.run(LOOPS)["faults"] == [], "32 loops of one length, audible, silent at their edges")
    swap = browser.run(SWAP, timeout=120)
    check(swap["boundaries"] == [0, 2, 3, 3, 4], "changes wait for the next boundary", swap["boundaries"])
    check(max(swap["worst"]) < 1e-5, "loops swap in phase, to the sample", f"off by {max(swap['worst']):.2g} at most")

    browser.run("document.getElementById('listen').click()")
    browser.wait("document.getElementById('listen').getAttribute('aria-pressed') === 'true'")
    browser.wait("parseFloat(document.getElementById('phase').style.strokeDasharray) > 0")
    check(True, "the music plays")
    if picture:
        browser.wait("!document.querySelector('#channels .empty, #channels .coming, #channels .leaving')", timeout=180)
        browser.wait("document.querySelectorAll('#votes .in').length === 5", timeout=120)
        browser.run("document.getElementById('post-note').textContent = 'name an instrument in your post'; "
                    "document.getElementById('post-note').className = ''")
        browser.wait("(p => p > 40 && p < 75)(parseFloat(document.getElementById('phase').style.strokeDasharray))")
        browser.wait("document.getAnimations().length === 0")
        browser.picture(picture)
    check(browser.log == [], "the page has nothing to complain about", " | ".join(browser.log))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--picture", help="where to keep a picture of the page")
    options = parser.parse_args()
    arguments = ["--rate", "4", "--round", "12" if options.picture else "3"]
    demo, page = start(*arguments)
    began = time.monotonic()
    try:
        with Browser(height=1030) as browser:
            look(browser, page, options.picture)
        demo.terminate()
        last = demo.stdout.read().splitlines()[-1]
        check(demo.wait(timeout=60) == 0, "the demo ends cleanly", last)
    finally:
        demo.kill()
        demo.wait()
    print(f"music: {len(failures)} failures in {time.monotonic() - began:.0f} s")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
