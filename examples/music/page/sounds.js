// The loops, computed: eight instruments with four loops each, two bars at 110 beats a minute in A minor.
//
// Every loop has the same number of samples, begins and ends in silence for a moment, and takes the tail of its last notes
// to its beginning, so that it repeats without a seam and any set of loops fits together.

export const INSTRUMENTS = ['drum', 'heavy_bass', 'lead_bass', 'line_bass', 'melody', 'pad', 'synth', 'vocal'];
export const LOOPS = 4;
export const BEATS = 8;
export const BEATS_PER_MINUTE = 110;

const STEPS = 32;
const FADE_SECONDS = 0.003;

/** How many samples a loop has. */
export function framesOf(rate) {
  return Math.round((rate * 60 * BEATS) / BEATS_PER_MINUTE);
}

/** Computes a loop, named as `drum/drum3`; null if there is none of that name. */
export function render(name, rate) {
  const [instrument, file = ''] = name.split('/');
  const number = Number(file.slice(instrument.length));
  const play = PLAYERS[instrument];
  if (!play || !file.startsWith(instrument) || !(number >= 1 && number <= LOOPS)) {
    return null;
  }
  const track = new Track(rate, number * 7919);
  play(track, number - 1);
  return track.finish(LEVELS[instrument]);
}

const LEVELS = {
  drum: 0.75, heavy_bass: 0.5, lead_bass: 0.4, line_bass: 0.5, melody: 0.34, pad: 0.3, synth: 0.24, vocal: 0.34,
};

/** The samples of one loop while it is composed. */
class Track {
  constructor(rate, seed) {
    this.rate = rate;
    this.samples = new Float32Array(framesOf(rate));
    this.seed = seed;
  }

  /** Frames of a step, a sixteenth note. */
  at(step) {
    return Math.round((step * this.samples.length) / STEPS);
  }

  /** Seconds of so many steps. */
  steps(count) {
    return (count * this.samples.length) / STEPS / this.rate;
  }

  /** Adds `seconds` of `voice`, a function of seconds and index, beginning at a step; the tail wraps around. */
  add(step, seconds, voice) {
    const length = this.samples.length;
    const begin = this.at(step);
    const count = Math.min(length, Math.round(seconds * this.rate));
    for (let i = 0; i < count; i++) {
      this.samples[(begin + i) % length] += voice(i / this.rate, i);
    }
  }

  /** A number between -1 and 1, the same ones in every browser. */
  noise() {
    this.seed = (this.seed + 0x6d2b79f5) | 0;
    let t = Math.imul(this.seed ^ (this.seed >>> 15), 1 | this.seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 2147483648 - 1;
  }

  finish(level) {
    const { samples, rate } = this;
    let peak = 1e-9;
    for (const sample of samples) {
      peak = Math.max(peak, Math.abs(sample));
    }
    const fade = Math.round(FADE_SECONDS * rate);
    for (let i = 0; i < samples.length; i++) {
      const edge = Math.min(1, Math.min(i, samples.length - 1 - i) / fade);
      samples[i] *= (level / peak) * edge;
    }
    return samples;
  }
}

// A note by its number as in MIDI, as a frequency.
const hertz = (note) => 440 * 2 ** ((note - 69) / 12);
const sine = (cycles) => Math.sin(2 * Math.PI * cycles);
const saw = (cycles) => 2 * (cycles - Math.floor(cycles + 0.5));
const square = (cycles, width = 0.5) => (cycles - Math.floor(cycles) < width ? 1 : -1);
const triangle = (cycles) => 4 * Math.abs(cycles - Math.floor(cycles + 0.5)) - 1;

/** Rises for `attack` seconds, then falls so that little is left at the end. */
function envelope(time, attack, length) {
  const rise = Math.min(1, time / attack);
  const left = Math.max(0, 1 - time / length);
  return rise * left * left;
}

/** A filter that lets low frequencies through, of two poles. */
function lowpass(rate) {
  let low = 0;
  let band = 0;
  return (input, cutoff, resonance) => {
    const f = Math.min(0.9, 2 * Math.sin((Math.PI * Math.min(cutoff, rate / 7)) / rate));
    low += f * band;
    band += f * (input - low - resonance * band);
    return low;
  };
}

/** A filter that rings at one frequency. */
function formant(rate, frequency, width) {
  const r = Math.exp((-Math.PI * width) / rate);
  const a = 2 * r * Math.cos((2 * Math.PI * frequency) / rate);
  let one = 0;
  let two = 0;
  return (input) => {
    const out = (1 - r) * input + a * one - r * r * two;
    two = one;
    one = out;
    return out;
  };
}

// A minor, F, C and G, half a bar each: root, third and fifth.
const CHORDS = [[57, 60, 64], [53, 57, 60], [48, 52, 55], [55, 59, 62]];
const chordAt = (step) => CHORDS[Math.floor(step / 8) % 4];

// Rhythms of 32 sixteenths: where a note begins, and how hard.
const hits = (pattern) => [...pattern.replaceAll(' ', '')].flatMap((mark, step) => (mark === '.' ? [] : [[step, Number(mark) / 9]]));

const PLAYERS = {
  drum(track, variant) {
    const kicks = ['9...9...9...9... 9...9...9...9.5.', '9.....9.9....... 9.....9.9...7...', '9..9..7...9..... 9..9..7...9..7..', '9...9...9...9... 9...9..79...9.79'][variant];
    const snares = ['....8.......8... ....8.......8...', '....8.......8... ....8.......8.46', '....8....3..8... ....8....3..8.3.', '........8....... ........8.....68'][variant];
    const hats = ['..6...6...6...6. ..6...6...6...6.', '5.3.5.3.5.3.5.3. 5.3.5.3.5.3.5353', '6.6.6.6.6.6.6.6. 6.6.6.6.6.6.6.66', '3.63..633.63..63 3.63..633.63..66'][variant];
    for (const [step, force] of hits(kicks)) {
      track.add(step, 0.34, (t) => force * Math.exp(-9 * t) * sine(48 * t + 9.5 * (1 - Math.exp(-28 * t))));
    }
    for (const [step, force] of hits(snares)) {
      track.add(step, 0.22, (t) => force * (0.5 * Math.exp(-20 * t) * track.noise() + 0.35 * Math.exp(-26 * t) * sine(186 * t)));
    }
    for (const [step, force] of hits(hats)) {
      let before = 0;
      track.add(step, 0.07, (t) => {
        const noise = track.noise();
        const bright = noise - before;
        before = noise;
        return 0.16 * force * Math.exp(-60 * t) * bright;
      });
    }
  },

  heavy_bass(track, variant) {
    const rhythm = ['9.......6....... 9.......6.......', '9.....9.....6... 9.....9.....6...', '9...........7.7. 9...........7.7.', '9..9..9...9..... 9..9..9...9.....'][variant];
    const length = [7, 5, 8, 2.6][variant];
    for (const [step, force] of hits(rhythm)) {
      const root = hertz(chordAt(step)[0] - 24);
      const filter = lowpass(track.rate);
      const seconds = track.steps(length);
      track.add(step, seconds, (t) => {
        const raw = saw(root * t) + saw(root * 1.006 * t) + 1.2 * sine(root * t);
        return force * Math.min(1, t / 0.006) * envelope(t, 0.004, seconds * 1.2) * Math.tanh(1.6 * filter(raw, 130 + 520 * Math.exp(-7 * t), 0.7));
      });
    }
  },

  lead_bass(track, variant) {
    const rhythm = ['9..6..9..6..7.5. 9..6..9..6..7.5.', '9.6.9..6.9.6.9.6 9.6.9..6.9.6.9.6', '..9...9...9...96 ..9...9...9...96', '9.99.9..9.99.9.6 9.99.9..9.99.969'][variant];
    const turns = [[0, 0, 12, 0, 7, 12], [0, 12, 0, 7], [0, 0, 3, 7, 12], [0, 0, 12, 10, 7]][variant];
    hits(rhythm).forEach(([step, force], index) => {
      const pitch = hertz(chordAt(step)[0] - 12 + (turns[index % turns.length] === 3 ? 7 : turns[index % turns.length]));
      const filter = lowpass(track.rate);
      track.add(step, 0.26, (t) => force * envelope(t, 0.004, 0.26) * filter(square(pitch * t, 0.36) + 0.5 * saw(pitch * 0.5 * t), 220 + 2400 * Math.exp(-16 * t), 0.45));
    });
  },

  line_bass(track, variant) {
    const walks = [[0, 0, 2, 0], [0, 1, 2, 1], [0, 2, 1, 2], [2, 1, 0, 1]][variant];
    for (let step = 0; step < STEPS; step += 2) {
      const chord = chordAt(step);
      const pitch = hertz(chord[walks[(step / 2) % 4]] - 12);
      const force = step % 8 === 0 ? 1 : 0.72;
      track.add(step, 0.3, (t) => force * envelope(t, 0.006, 0.3) * (triangle(pitch * t) + 0.35 * sine(2 * pitch * t)));
    }
  },

  melody(track, variant) {
    const tunes = [
      [[0, 76], [3, 74], [6, 72], [8, 69], [11, 72], [14, 74], [16, 76], [19, 79], [22, 76], [24, 74], [28, 71]],
      [[0, 69], [2, 72], [4, 76], [8, 77], [10, 76], [12, 72], [16, 79], [18, 76], [20, 72], [24, 74], [26, 71], [30, 67]],
      [[2, 81], [6, 79], [10, 77], [14, 76], [18, 76], [22, 79], [26, 74], [28, 76], [30, 74]],
      [[0, 72], [6, 76], [8, 77], [14, 72], [16, 76], [22, 79], [24, 83], [27, 81], [30, 79]],
    ][variant];
    for (const [step, note] of tunes) {
      const pitch = hertz(note);
      track.add(step, 0.9, (t) => Math.min(1, t / 0.003) * Math.exp(-4.5 * t) * sine(pitch * t + 0.28 * Math.exp(-9 * t) * sine(3.01 * pitch * t)) * (1 - t / 0.9));
    }
  },

  pad(track, variant) {
    const spread = [[0, 12, 12], [12, 0, 12], [0, 0, 12], [12, 12, 0]][variant];
    const brightness = [900, 1400, 650, 1800][variant];
    for (let chord = 0; chord < 4; chord++) {
      CHORDS[chord].forEach((note, index) => {
        const pitch = hertz(note + spread[index]);
        const filter = lowpass(track.rate);
        const seconds = track.steps(8) + 0.5;
        track.add(chord * 8, seconds, (t) => {
          const swell = Math.min(1, t / 0.35) * Math.min(1, (seconds - t) / 0.6);
          const raw = saw(pitch * t) + saw(pitch * 1.004 * t + 0.3) + saw(pitch * 0.997 * t + 0.6);
          return swell * filter(raw, brightness * (0.7 + 0.3 * sine(t * 0.4)), 0.9);
        });
      });
    }
  },

  synth(track, variant) {
    const climbs = [[0, 1, 2, 1], [0, 1, 2, 3], [3, 2, 1, 0], [0, 2, 1, 3]][variant];
    for (let step = 0; step < STEPS; step += variant === 3 ? 2 : 1) {
      const chord = chordAt(step);
      const which = climbs[step % 4];
      const pitch = hertz((which === 3 ? chord[0] + 12 : chord[which]) + 12);
      const force = step % 4 === 0 ? 1 : 0.66;
      track.add(step, 0.2, (t) => force * envelope(t, 0.003, 0.2) * (square(pitch * t, 0.25) * 0.5 + 0.6 * triangle(pitch * 1.003 * t)));
    }
  },

  vocal(track, variant) {
    // Vowels by their formants: ah, oh, oo, eh.
    const vowels = [[800, 1150, 2900], [450, 800, 2830], [325, 700, 2530], [550, 1770, 2490]];
    const lines = [
      [[0, 6, 64, 0], [8, 6, 65, 1], [16, 6, 67, 0], [24, 6, 67, 1]],
      [[0, 3, 69, 1], [4, 3, 69, 0], [12, 3, 69, 1], [16, 3, 67, 2], [20, 3, 67, 0], [28, 3, 62, 1]],
      [[0, 14, 64, 2], [16, 14, 64, 1]],
      [[2, 2, 64, 3], [6, 2, 64, 0], [10, 2, 65, 3], [14, 2, 65, 0], [18, 2, 67, 3], [22, 5, 64, 0], [28, 3, 62, 1]],
    ][variant];
    for (const [step, length, note, vowel] of lines) {
      const rings = vowels[vowel].map((frequency, index) => formant(track.rate, frequency, [80, 100, 140][index]));
      const seconds = track.steps(length) + 0.15;
      let cycles = 0;
      track.add(step, seconds, (t) => {
        const vibrato = 1 + 0.006 * Math.min(1, t / 0.5) * sine(5.4 * t);
        cycles += (hertz(note - 12) * vibrato) / track.rate;
        const breath = saw(cycles) + 0.7 * saw(1.003 * cycles) + 0.04 * track.noise();
        const swell = Math.min(1, t / 0.06) * Math.min(1, (seconds - t) / 0.15);
        return swell * (rings[0](breath) + 0.6 * rings[1](breath) + 0.25 * rings[2](breath));
      });
    }
  },
};
