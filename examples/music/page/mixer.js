// Plays loops in phase: all began at one moment, and what comes or goes does so where the loops come to their end.

import { framesOf, render } from './sounds.js';

/** How long before a boundary a change must be known to still make it. */
const LEAD_SECONDS = 0.06;

export class Mixer {
  #context;
  #output;
  #buffers = new Map();
  #voices = [];
  #origin = null;

  /** A mixer that plays into `output` of an AudioContext, or of an OfflineAudioContext. */
  constructor(context, output = context.destination) {
    this.#context = context;
    this.#output = output;
    this.frames = framesOf(context.sampleRate);
  }

  /** Seconds of a loop. */
  get seconds() {
    return this.frames / this.#context.sampleRate;
  }

  /** The part of the loop that has been played, from 0 to 1; null before the beginning. */
  phase(now = this.#context.currentTime) {
    if (this.#origin === null) {
      return null;
    }
    const played = now * this.#context.sampleRate - this.#origin;
    return played < 0 ? null : (played % this.frames) / this.frames;
  }

  /** What sounds at a time. */
  playing(now = this.#context.currentTime) {
    const frame = now * this.#context.sampleRate;
    return this.#voices.filter((voice) => voice.from <= frame && frame < voice.until).map((voice) => voice.name);
  }

  /**
   * From the next boundary on, exactly these loops sound; the first time, at once.
   *
   * A loop that goes on is not touched. A change of mind before the boundary takes the place of the former one.
   */
  change(names, now = this.#context.currentTime) {
    const rate = this.#context.sampleRate;
    // Whole frames: a sound that began between two would be a little blurred, and out of phase.
    const earliest = Math.ceil((now === 0 ? 0 : now + LEAD_SECONDS) * rate);
    this.#origin ??= earliest;
    const loops = Math.max(0, Math.ceil((earliest - this.#origin) / this.frames));
    const boundary = this.#origin + loops * this.frames;
    this.#voices = this.#voices.filter((voice) => voice.until > now * rate);

    const wanted = new Set(names.filter((name) => this.#buffer(name)));
    for (const voice of this.#voices) {
      if (voice.until < boundary) {
        continue;
      }
      if (wanted.delete(voice.name)) {
        voice.until = Infinity;
        voice.source.stop(FAR_SECONDS);
      } else if (voice.from >= boundary) {
        voice.until = voice.from;
        voice.source.stop();
        voice.source.disconnect();
      } else {
        voice.until = boundary;
        voice.source.stop(boundary / rate);
      }
    }
    for (const name of wanted) {
      const source = this.#context.createBufferSource();
      source.buffer = this.#buffer(name);
      source.loop = true;
      source.connect(this.#output);
      source.start(boundary / rate);
      this.#voices.push({ name, source, from: boundary, until: Infinity });
    }
    return boundary / rate;
  }

  #buffer(name) {
    if (!this.#buffers.has(name)) {
      const samples = render(name, this.#context.sampleRate);
      let buffer = null;
      if (samples) {
        buffer = this.#context.createBuffer(1, samples.length, this.#context.sampleRate);
        buffer.copyToChannel(samples, 0);
      }
      this.#buffers.set(name, buffer);
    }
    return this.#buffers.get(name);
  }
}

/** Later than any page is open. */
const FAR_SECONDS = 1e7;
