// Waveforms, curves and picks of a station on a canvas that is moved and zoomed by hand, wheel,
// touch and keyboard.

const FONT = "12px system-ui, sans-serif";
const ROW = 15; // of a label
const ROWS = 3; // of labels, above the waveforms
const AXIS = 36; // two lines: the time of day, and the date
const LEAST_S = 0.05; // that fill a canvas
const STEPS = [
  ...[0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 30, 60, 120, 300, 600, 1200, 1800, 3600],
  ...[7200, 10800, 21600, 43200, 86400, 172800, 432000, 864000, 2592000, 7776000, 31536000],
];
const DAY = 86400;

export const seconds = (text) => Date.parse(text) / 1000;

// Canvases that are far from the window hold no pixels: there may be hundreds of stations.
const near = new IntersectionObserver((entries) => {
  for (const entry of entries) {
    entry.target.near = entry.isIntersecting;
    if (entry.isIntersecting) entry.target.paint();
    else entry.target.width = entry.target.height = 0;
  }
}, { rootMargin: "600px" });
const sized = new ResizeObserver((entries) => entries.forEach((entry) => entry.target.paint()));
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const canvas of document.querySelectorAll("canvas")) canvas.paint();
});

// Draws `data` (waves, curves, picks) and returns what buttons do: zoom(factor) and all().
export function plot(canvas, data) {
  const spans = [...data.waves, ...data.curves].map((one) => {
    const length = one.low ? one.low.length : one.values[0].length;
    return [seconds(one.start), seconds(one.start) + length / one.sampling_rate];
  });
  const first = Math.min(...spans.map((one) => one[0]));
  const last = Math.max(...spans.map((one) => one[1]));
  let view = [first, last];
  let asked = false;
  canvas.paint = () => {
    if (!canvas.near || asked) return;
    asked = true;
    requestAnimationFrame(() => { asked = false; if (canvas.near) render(canvas, data, view); });
  };
  const put = (start, length) => {
    const most = last - first;
    const shown = Math.min(most, Math.max(length, Math.min(LEAST_S, most)));
    const from = Math.min(Math.max(start, first), last - shown);
    view = [from, from + shown];
    canvas.view = view; // for who looks from outside
    canvas.paint();
  };
  const timeAt = (x) => view[0] + ((view[1] - view[0]) * x) / canvas.clientWidth;
  const zoom = (factor, x = canvas.clientWidth / 2) => {
    const at = timeAt(x);
    put(at + (view[0] - at) * factor, (view[1] - view[0]) * factor);
  };
  const move = (pixels) => put(view[0] - ((view[1] - view[0]) * pixels) / canvas.clientWidth, view[1] - view[0]);
  const all = () => put(first, last - first);
  byHand(canvas, { zoom, move, all });
  all();
  near.observe(canvas);
  sized.observe(canvas);
  return { zoom, all };
}

function byHand(canvas, { zoom, move, all }) {
  const fingers = new Map();
  const apart = () => {
    const [one, two] = [...fingers.values()];
    return [Math.max(10, Math.abs(one - two)), (one + two) / 2];
  };
  canvas.onpointerdown = (event) => {
    if (event.button) return;
    fingers.set(event.pointerId, event.offsetX);
    canvas.setPointerCapture(event.pointerId);
  };
  canvas.onpointermove = (event) => {
    if (!fingers.has(event.pointerId)) return;
    if (fingers.size === 1) {
      move(event.offsetX - fingers.get(event.pointerId));
      fingers.set(event.pointerId, event.offsetX);
    } else {
      const [before, from] = apart();
      fingers.set(event.pointerId, event.offsetX);
      const [now, to] = apart();
      zoom(before / now, from);
      move(to - from);
    }
  };
  canvas.onpointerup = canvas.onpointercancel = (event) => fingers.delete(event.pointerId);
  canvas.ondblclick = all;
  // The wheel alone scrolls the page, which may be long; trackpads that pinch send it with Ctrl.
  canvas.onwheel = (event) => {
    if (event.ctrlKey || event.metaKey) zoom(Math.exp(Math.max(-0.5, Math.min(0.5, event.deltaY / 200))), event.offsetX);
    else if (event.shiftKey || Math.abs(event.deltaX) > Math.abs(event.deltaY)) move(-(event.deltaX || event.deltaY));
    else return;
    event.preventDefault();
  };
  canvas.onkeydown = (event) => {
    const step = canvas.clientWidth / 8;
    const does = {
      ArrowLeft: () => move(step), ArrowRight: () => move(-step),
      "+": () => zoom(0.67), "=": () => zoom(0.67), "-": () => zoom(1.5), 0: all, Home: all,
    }[event.key];
    if (!does || event.ctrlKey || event.metaKey || event.altKey) return;
    event.preventDefault();
    does();
  };
}

function render(canvas, data, view) {
  const scale = devicePixelRatio || 1;
  const [width, height] = [canvas.clientWidth, canvas.clientHeight];
  canvas.width = width * scale;
  canvas.height = height * scale;
  const pen = canvas.getContext("2d");
  pen.scale(scale, scale);
  const style = getComputedStyle(document.documentElement);
  const colour = (name) => style.getPropertyValue(`--${name}`).trim();
  const x = (time) => ((time - view[0]) / (view[1] - view[0])) * width;
  const channels = [...new Set(data.waves.map((one) => one.channel))];
  const head = data.picks.length ? ROWS * ROW : 0;
  const lane = (height - AXIS - head) / (channels.length + 1);
  pen.font = FONT;
  channels.forEach((channel, index) => {
    const pieces = data.waves.filter((one) => one.channel === channel);
    waves(pen, pieces, x, head + index * lane, lane, width, colour("wave"));
  });
  const top = head + channels.length * lane;
  for (const curve of data.curves) {
    curve.values.forEach((values, row) => line(pen, curve, values, x, top, lane, width, colour(curve.labels[row].toLowerCase())));
  }
  picks(canvas, pen, data.picks, x, width, top + lane, colour);
  channels.forEach((channel, index) => caption(pen, channel, 4, head + index * lane + 14, colour));
  caption(pen, "probability", 4, top + 14, colour);
  axis(canvas, pen, view, x, height, width, colour("soft"));
}

// Text on a ground of its own, so that it can be read in front of a waveform.
function caption(pen, text, x, y, colour) {
  pen.globalAlpha = 0.8;
  pen.fillStyle = colour("card");
  pen.fillRect(x - 2, y - 11, pen.measureText(text).width + 4, 14);
  pen.globalAlpha = 1;
  pen.fillStyle = colour("soft");
  pen.fillText(text, x, y);
}

// Lines of picks, and labels in the first row with room; where none has any, the line stands alone.
function picks(canvas, pen, found, x, width, bottom, colour) {
  const ends = new Array(ROWS).fill(-1);
  canvas.labels = []; // for who looks from outside
  const shown = found
    .map((one) => ({ phase: one.phase, at: x(seconds(one.time)) }))
    .filter((one) => one.at >= 0 && one.at <= width)
    .sort((one, other) => one.at - other.at);
  for (const one of shown) {
    const long = pen.measureText(one.phase).width;
    const left = Math.min(one.at + 3, width - long);
    const row = ends.findIndex((end) => left > end + 4);
    pen.strokeStyle = pen.fillStyle = colour(one.phase.toLowerCase());
    pen.beginPath();
    pen.moveTo(one.at, row < 0 ? ROWS * ROW : row * ROW + 2);
    pen.lineTo(one.at, bottom);
    pen.stroke();
    if (row < 0) continue;
    ends[row] = left + long;
    canvas.labels.push({ text: one.phase, left, right: left + long, top: row * ROW, bottom: (row + 1) * ROW });
  }
  // Behind the lines of others a label could not be read.
  for (const label of canvas.labels) {
    pen.fillStyle = colour("card");
    pen.fillRect(label.left - 1, label.top + 1, label.right - label.left + 2, ROW - 2);
    pen.fillStyle = colour(label.text.toLowerCase());
    pen.fillText(label.text, label.left, label.bottom - 3);
  }
}

function waves(pen, pieces, x, top, lane, width, stroke) {
  let [low, high] = [Infinity, -Infinity];
  for (const piece of pieces) {
    for (const value of piece.low) low = Math.min(low, value);
    for (const value of piece.high) high = Math.max(high, value);
  }
  const middle = (low + high) / 2;
  const half = Math.max((high - low) / 2, 1e-9);
  const y = (value) => top + lane / 2 - ((value - middle) / half) * lane * 0.46;
  pen.strokeStyle = stroke;
  pen.lineWidth = 0.8;
  for (const piece of pieces) {
    pen.beginPath();
    for (const [index, at] of within(piece, piece.low.length, x, width)) {
      pen.lineTo(at, y(piece.low[index]));
      if (piece.high[index] !== piece.low[index]) pen.lineTo(at, y(piece.high[index]));
    }
    pen.stroke();
  }
  pen.lineWidth = 1;
}

// Values of a piece that can be seen, and one more at each side, with where they are.
function* within(piece, length, x, width) {
  const start = x(seconds(piece.start));
  const step = x(seconds(piece.start) + 1 / piece.sampling_rate) - start;
  const from = Math.max(0, Math.floor(-start / step) - 1);
  const to = Math.min(length - 1, Math.ceil((width - start) / step) + 1);
  for (let index = from; index <= to; index++) yield [index, start + index * step];
}

function line(pen, curve, values, x, top, lane, width, stroke) {
  pen.strokeStyle = stroke;
  pen.beginPath();
  let on = false;
  for (const [index, at] of within(curve, values.length, x, width)) {
    if (values[index] === null) { on = false; continue; }
    const y = top + lane - 2 - values[index] * (lane - 6);
    if (on) pen.lineTo(at, y);
    else pen.moveTo(at, y);
    on = true;
  }
  pen.stroke();
}

// Times of day, and below them the date: at the left, and wherever a day begins.
function axis(canvas, pen, view, x, height, width, stroke) {
  const step = STEPS.find((one) => (width / (view[1] - view[0])) * one > 90) || STEPS.at(-1);
  const clock = step >= 60 ? [11, 16] : step >= 1 ? [11, 19] : step >= 0.1 ? [11, 21] : [11, 22];
  const iso = (time) => new Date(Math.round(time * 1000)).toISOString();
  pen.strokeStyle = pen.fillStyle = stroke;
  pen.beginPath();
  pen.moveTo(0, height - AXIS + 1.5);
  pen.lineTo(width, height - AXIS + 1.5);
  const dates = [{ text: iso(view[0]).slice(0, 10), at: 2 }];
  for (let tick = Math.ceil(view[0] / step); tick * step <= view[1]; tick++) {
    const time = tick * step;
    const at = x(time);
    pen.moveTo(at, height - AXIS + 1.5);
    pen.lineTo(at, height - AXIS + 6);
    if (time % DAY === 0) dates.push({ text: iso(time).slice(0, 10), at: at + 2, edge: at });
    const text = iso(time).slice(...clock);
    if (step < DAY && at + 2 + pen.measureText(text).width <= width) pen.fillText(text, at + 2, height - 20);
  }
  pen.stroke();
  canvas.dates = []; // for who looks from outside
  // The day that begins is worth more than the one that was on before it.
  const long = pen.measureText(dates[0].text).width + 6;
  if (dates.length > 1 && dates[1].at < dates[0].at + long) dates.shift();
  let end = -Infinity;
  for (const one of dates) {
    if (one.at < end || one.at + long - 6 > width) continue;
    pen.fillText(one.text, one.at, height - 5);
    canvas.dates.push(one.text);
    end = one.at + long;
  }
}
