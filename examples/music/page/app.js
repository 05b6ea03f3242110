// The page: shows what the events say, plays what won, sends posts.

import { INSTRUMENTS, render } from './sounds.js';
import { Mixer } from './mixer.js';

const TOP = 5;
const PEOPLE = 5;
const MESSAGES = 5;
/** Good enough to draw a wave by. */
const PICTURE_RATE = 8000;

const $ = (id) => document.getElementById(id);
const users = new Map();
const posts = [];
let charts = { round: null, charts: [] };
let sounds = { round: null, sounds: [] };
let roundMs = 30000;
let clockOffset = 0;
let mixer = null;
let context = null;

const plain = (instrument) => instrument.replace('_', ' ');

/** Makes an element with classes, text and children. Text stays text, whoever wrote it. */
function make(tag, classes = '', text = null, ...children) {
  const element = document.createElement(tag);
  if (classes) {
    element.className = classes;
  }
  if (text !== null) {
    element.textContent = text;
  }
  element.append(...children);
  return element;
}

function toned(element, instrument) {
  element.style.setProperty('--tone', `var(--${instrument})`);
  return element;
}

function avatar(name, small = false) {
  const element = make('span', small ? 'avatar small' : 'avatar', (name.trim()[0] ?? '?').toUpperCase());
  element.setAttribute('aria-hidden', 'true');
  element.style.setProperty('--hue', hueOf(name));
  return element;
}

function hueOf(name) {
  let hash = 7;
  for (const letter of name) {
    hash = (hash * 31 + letter.codePointAt(0)) % 3600;
  }
  return (hash * 47) % 360;
}

// On air: a strip for each loop, with its wave and where we are in it.

const waves = new Map();

/** The loudest samples of each of so many parts of a loop. */
function waveOf(name) {
  if (!waves.has(name)) {
    const samples = render(name, PICTURE_RATE);
    const parts = 160;
    const peaks = [];
    for (let part = 0; samples && part < parts; part++) {
      let peak = 0;
      const end = Math.floor(((part + 1) * samples.length) / parts);
      for (let i = Math.floor((part * samples.length) / parts); i < end; i++) {
        peak = Math.max(peak, Math.abs(samples[i]));
      }
      peaks.push(peak);
    }
    const most = Math.max(...peaks, 1e-9);
    waves.set(name, peaks.map((peak) => peak / most));
  }
  return waves.get(name);
}

function drawChannels() {
  const list = $('channels');
  const sounding = mixer?.playing() ?? null;
  const names = sounds.sounds;
  const leaving = sounding?.filter((name) => !names.includes(name)) ?? [];
  const rows = [...names, ...leaving].slice(0, Math.max(TOP, names.length)).map((name) => {
    const [instrument, file] = name.split('/');
    const row = toned(make('li'), instrument);
    row.dataset.sound = name;
    let state = `loop ${file.slice(instrument.length)}`;
    if (leaving.includes(name)) {
      row.classList.add('leaving');
      state = 'last time around';
    } else if (sounding?.length && !sounding.includes(name)) {
      row.classList.add('coming');
      state = 'from the next loop';
    }
    row.append(make('div', '', null, make('strong', '', plain(instrument)), make('small', '', state)), make('canvas'));
    return row;
  });
  while (rows.length < TOP) {
    rows.push(make('li', 'empty', null, make('small', '', names.length ? 'no vote for a fifth' : 'waiting for votes')));
  }
  list.replaceChildren(...rows);
  $('on-air-note').textContent = names.length ? `chosen in the round of ${timeOf(sounds.round)}` : 'waiting for the first round';
}

const timeOf = (ms) => new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit', second: '2-digit' });

function drawWave(canvas, name, phase) {
  const scale = window.devicePixelRatio || 1;
  const width = Math.round(canvas.clientWidth * scale);
  const height = Math.round(canvas.clientHeight * scale);
  if (!width || !height) {
    return;
  }
  if (canvas.width !== width || canvas.height !== height) {
    canvas.width = width;
    canvas.height = height;
  }
  const peaks = waveOf(name);
  const tone = getComputedStyle(canvas).getPropertyValue(`--${name.split('/')[0]}`);
  const pen = canvas.getContext('2d');
  pen.clearRect(0, 0, width, height);
  const step = width / peaks.length;
  peaks.forEach((peak, part) => {
    const tall = Math.max(2 * scale, peak * height * 0.78);
    const played = phase !== null && part / peaks.length <= phase;
    const near = phase === null ? 0 : Math.max(0, 1 - Math.abs(part / peaks.length - phase) * 40);
    pen.globalAlpha = played ? 0.95 : 0.32 + 0.5 * near;
    pen.fillStyle = tone;
    pen.fillRect(part * step, (height - tall) / 2, Math.max(1, step * 0.62), tall);
  });
  pen.globalAlpha = 1;
}

// The vote.

function drawVotes() {
  const counts = new Map(charts.charts.map((vote) => [vote.sound, vote.count]));
  const known = charts.charts.map((vote) => vote.sound).filter((sound) => INSTRUMENTS.includes(sound));
  const order = [...known, ...INSTRUMENTS.filter((instrument) => !known.includes(instrument))];
  const most = Math.max(1, ...counts.values());
  const list = $('votes');
  order.forEach((instrument, place) => {
    let row = list.querySelector(`[data-instrument="${instrument}"]`);
    if (!row) {
      row = toned(make('li', '', null, make('span', '', plain(instrument)), make('div', 'bar', null, make('i')), make('em')), instrument);
      row.dataset.instrument = instrument;
    }
    const count = counts.get(instrument) ?? 0;
    row.classList.toggle('in', place < TOP && count > 0);
    row.querySelector('i').style.transform = `scaleX(${count / most})`;
    row.querySelector('em').textContent = count;
    if (list.children[place] !== row) {
      list.insertBefore(row, list.children[place] ?? null);
    }
  });
}

// People and what they say.

function drawPeople() {
  const order = [...users.values()].sort((a, b) => b.tweetCount - a.tweetCount);
  const top = order.slice(0, PEOPLE);
  const most = top[0]?.tweetCount ?? 1;
  $('people').replaceChildren(
    ...top.map((user) => {
      const name = user.name || user.key;
      const bar = make('i');
      bar.style.transform = `scaleX(${user.tweetCount / most})`;
      const row = make('li', '', null, avatar(name), make('div', 'name', null, make('div', 'name', name), make('div', 'bar', null, bar)), make('em', '', user.tweetCount));
      row.style.setProperty('--hue', hueOf(name));
      return row;
    }),
  );
  const total = order.reduce((sum, user) => sum + user.tweetCount, 0);
  $('people-note').textContent = order.length ? `${order.length} people, ${total} posts` : 'nobody yet';
}

/** The text with the instruments that it names in their colours. */
function marked(text) {
  const pattern = new RegExp(INSTRUMENTS.map((instrument) => instrument.replace('_', '[ _-]')).join('|'), 'gi');
  const parts = [];
  let done = 0;
  for (const match of text.matchAll(pattern)) {
    const instrument = match[0].toLowerCase().replace(/[ -]/g, '_');
    parts.push(text.slice(done, match.index), toned(make('mark', '', match[0]), instrument));
    done = match.index + match[0].length;
  }
  return [...parts, text.slice(done)];
}

function addMessage(message) {
  posts.push(message);
  const row = make('li', '', null, avatar(message.name, true), make('div', '', null, make('div', 'name', message.name), make('div', 'what', null, ...marked(message.message))));
  const list = $('messages');
  list.prepend(row);
  while (list.children.length > MESSAGES) {
    list.lastChild.remove();
  }
  $('messages-note').textContent = `the last at ${timeOf(message.at)}`;
}

// Events.

function listenToEvents() {
  const events = new EventSource('/events');
  const on = (kind, act) => events.addEventListener(kind, (event) => act(JSON.parse(event.data)));
  const say = (state, text) => {
    $('connection').className = `connection ${state}`;
    $('connection').querySelector('span').textContent = text;
  };
  events.onopen = () => say('on', 'live');
  events.onerror = () => say('off', 'connecting again');
  on('rules', (rules) => {
    // Comes first, on every connection: what follows is the whole state anew.
    roundMs = rules.roundMs;
    clockOffset = rules.now - Date.now();
    posts.length = 0;
    $('messages').replaceChildren();
  });
  on('users', (user) => {
    users.set(user.key, user);
    drawPeople();
  });
  on('charts', (update) => {
    charts = update;
    drawVotes();
  });
  on('sounds', (update) => {
    sounds = update;
    mixer?.change(sounds.sounds);
    drawChannels();
  });
  on('message', addMessage);
}

// Sound.

async function toggleSound() {
  const button = $('listen');
  if (!context) {
    context = new AudioContext();
    const master = context.createGain();
    master.gain.value = 0.8;
    const limiter = context.createDynamicsCompressor();
    limiter.threshold.value = -8;
    limiter.ratio.value = 8;
    master.connect(limiter).connect(context.destination);
    mixer = new Mixer(context, master);
    mixer.change(sounds.sounds);
  }
  const play = button.getAttribute('aria-pressed') !== 'true';
  await (play ? context.resume() : context.suspend());
  button.setAttribute('aria-pressed', String(play));
  $('listen-label').textContent = play ? 'Pause' : 'Listen';
  drawChannels();
}

// Posts.

function preparePosts() {
  const name = $('name');
  const text = $('text');
  const note = $('post-note');
  name.value = localStorage.getItem('name') ?? '';
  $('chips').append(
    ...INSTRUMENTS.map((instrument) => {
      const chip = toned(make('button', '', plain(instrument)), instrument);
      chip.type = 'button';
      chip.addEventListener('click', () => {
        text.value = text.value ? `${text.value.trimEnd()} ${plain(instrument)}` : `More ${plain(instrument)}`;
        text.focus();
      });
      return chip;
    }),
  );
  $('post').addEventListener('submit', async (event) => {
    event.preventDefault();
    const button = event.target.querySelector('button');
    button.disabled = true;
    try {
      const response = await fetch('/posts', {
        method: 'POST',
        headers: { 'Content-Type': 'application/json' },
        body: JSON.stringify({ name: name.value, text: text.value }),
      });
      const answer = await response.json();
      note.className = response.ok ? 'good' : 'bad';
      if (!response.ok) {
        note.textContent = answer.error;
      } else {
        note.textContent = answer.instrument ? `a vote for ${plain(answer.instrument)}` : 'posted; it names no instrument';
        text.value = '';
        localStorage.setItem('name', name.value);
      }
    } catch {
      note.className = 'bad';
      note.textContent = 'nobody answers: is the demo still running?';
    }
    button.disabled = false;
  });
}

// What moves.

let drawn = '';
function frame() {
  const now = Date.now() + clockOffset;
  const left = roundMs - (now % roundMs);
  const begun = charts.round !== null && now - (now % roundMs) > charts.round;
  if (begun) {
    // A new round: its votes have yet to come.
    charts = { round: now - (now % roundMs), charts: [] };
    drawVotes();
  }
  $('countdown').textContent = `ends in ${Math.ceil(left / 1000)} s`;
  $('fuse').style.transform = `scaleX(${left / roundMs})`;
  const running = context?.state === 'running';
  const phase = running ? mixer.phase() : null;
  $('phase').style.strokeDasharray = `${(phase ?? 0) * 100} 100`;
  const sounding = running ? mixer.playing().join() : '';
  if (sounding !== drawn) {
    drawn = sounding;
    drawChannels();
  }
  for (const row of $('channels').querySelectorAll('[data-sound]')) {
    const heard = !running || mixer.playing().includes(row.dataset.sound);
    drawWave(row.querySelector('canvas'), row.dataset.sound, heard ? phase : null);
  }
  requestAnimationFrame(frame);
}

preparePosts();
drawChannels();
drawVotes();
drawPeople();
listenToEvents();
$('listen').addEventListener('click', toggleSound);
requestAnimationFrame(frame);
