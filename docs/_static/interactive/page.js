// The page's arithmetic is that of the package, in float64; tests/docs/test_interactive.py compares the two.
"use strict";

// ------------------------------------------------------------------ the exact answer: a mixture's score and its flow
const { mixture, sigma_data: SD, t_min: T_MIN, t_max: T_MAX } = MINICM;
const VAR = mixture.std ** 2;

/** E[x0 | x_t], the exact denoiser of equal round components. */
function denoise(x, t) {
  const total = VAR + t * t;
  const logs = mixture.means.map((m) => -((x[0] - m[0]) ** 2 + (x[1] - m[1]) ** 2) / (2 * total));
  const top = Math.max(...logs);
  const r = logs.map((l) => Math.exp(l - top));
  const sum = r.reduce((a, b) => a + b, 0);
  return [0, 1].map((i) =>
    r.reduce((mean, p, k) => mean + (p / sum) * (VAR * x[i] + t * t * mixture.means[k][i]), 0) / total);
}

/** The exact trajectory from x at t_max to t_min: Runge-Kutta steps, equal in q = asinh(t/c), of v = x/width(t). */
function trajectory(x, steps = 600) {
  const c = mixture.std;
  const width = (t) => Math.hypot(t, SD);
  const rate = (v, q) => {
    const t = c * Math.sinh(q), w = width(t);
    const x0 = denoise(v.map((a) => a * w), t);
    return v.map((a, i) => ((a * w - x0[i]) / (t * w) - a * t / (w * w)) * Math.hypot(t, c));
  };
  const from = Math.asinh(T_MAX / c), h = (Math.asinh(T_MIN / c) - from) / steps;
  let v = x.map((a) => a / width(T_MAX));
  const path = [{ t: T_MAX, x: x.slice() }];
  for (let n = 0; n < steps; n++) {
    const q = from + n * h;
    const move = (k, by) => v.map((a, i) => a + by * k[i]);
    const k1 = rate(v, q), k2 = rate(move(k1, h / 2), q + h / 2);
    const k3 = rate(move(k2, h / 2), q + h / 2), k4 = rate(move(k3, h), q + h);
    v = v.map((a, i) => a + (h / 6) * (k1[i] + 2 * k2[i] + 2 * k3[i] + k4[i]));
    const t = n + 1 === steps ? T_MIN : c * Math.sinh(q + h);
    path.push({ t, x: v.map((a) => a * width(t)) });
  }
  return path;
}

// ------------------------------------------------------------------------------- what is learned: the network and f
/** A model's tensors, from base64: each a Float32Array. */
function unpack(tensors) {
  return Object.fromEntries(Object.entries(tensors).map(([name, { data }]) => {
    const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
    return [name, new Float32Array(bytes.buffer)];
  }));
}

/** W h + b, W stored row by row. */
function linear(W, b, h) {
  return Array.from(b, (bias, i) => h.reduce((sum, a, j) => sum + W[i * h.length + j] * a, bias));
}

/** minicm.nets.mlp.MLP, for one point. */
function mlp(net, x, cNoise) {
  const F = net["features.frequencies"], n = F.length / 2;
  const phase = Array.from({ length: n }, (_, j) => x[0] * F[j] + x[1] * F[n + j]);
  const octaves = Array.from({ length: (net["conditioning.time.weight"].length / net["enter.bias"].length - 1) / 2 },
    (_, j) => cNoise * 2 ** j);
  const time = linear(net["conditioning.time.weight"], net["conditioning.time.bias"],
    [cNoise, ...octaves.map(Math.sin), ...octaves.map(Math.cos)]);
  const silu = (a) => a / (1 + Math.exp(-a));
  let h = linear(net["enter.weight"], net["enter.bias"], [...x, ...phase.map(Math.cos), ...phase.map(Math.sin)])
    .map((a, i) => a + time[i]);
  for (let l = 0; `layers.${l}.weight` in net; l++) {
    const more = linear(net[`layers.${l}.weight`], net[`layers.${l}.bias`], h.map(silu));
    h = h.map((a, i) => a + more[i]);
  }
  return linear(net["out.weight"], net["out.bias"], h.map(silu));
}

/** f(x, t) = c_skip x + c_out F(c_in x, ln(t)/4), with f(x, t_min) = x (CM, appendix C). */
function f(net, x, t) {
  const gap = t - T_MIN, width = Math.hypot(t, SD);
  const F = mlp(net, x.map((a) => a / width), Math.log(t) / 4);
  return x.map((a, i) => a / (1 + (gap / SD) ** 2) + (gap * SD / width) * F[i]);
}

/** CM's Algorithm 1: predict, add noise for the next level, predict again. */
function sample(net, xT, levels) {
  let x = xT;
  levels.forEach((t, n) => {
    if (n) x = x.map((a, i) => a + Math.sqrt(t * t - T_MIN * T_MIN) * MINICM.noise[n - 1][i]);
    x = f(net, x, t);
  });
  return x;
}

/** The ODE in so many steps on the Karras grid, with the exact score. */
function solve(xT, steps, heun) {
  const times = Array.from({ length: steps + 1 }, (_, i) =>
    (T_MAX ** (1 / 7) + (i / steps) * (T_MIN ** (1 / 7) - T_MAX ** (1 / 7))) ** 7);
  times[0] = T_MAX;
  times[steps] = T_MIN;
  const path = [{ t: T_MAX, x: xT }];
  for (let n = 0; n < steps; n++) {
    const t = times[n], s = times[n + 1], x = path[n].x;
    const slope = (y, time) => denoise(y, time).map((a, i) => (y[i] - a) / time);
    const d = slope(x, t);
    let next = x.map((a, i) => a + (s - t) * d[i]);
    if (heun) {
      const e = slope(next, s);
      next = x.map((a, i) => a + ((s - t) * (d[i] + e[i])) / 2);
    }
    path.push({ t: s, x: next });
  }
  return path;
}

// ------------------------------------------------------------------------------------------------- state and numbers
const get = (id) => document.getElementById(id);
const plane = get("plane"), errors = get("errors");
const nets = {}; // unpacked when first asked for
let xT = [-28, 96]; // dragged

function options(select, values, chosen) {
  select.replaceChildren(...values.map((v) => new Option(v, v, v === chosen, v === chosen)));
}
options(get("method"), Object.keys(MINICM.models), "CD");
options(get("points"), Object.keys(MINICM.models.CD), "17");
options(get("steps"), Object.keys(MINICM.levels), "1");

function current() {
  const method = get("method").value, points = get("points").value, key = `${method} ${points}`;
  nets[key] ??= unpack(MINICM.models[method][points]);
  return nets[key];
}

const distance = (a, b) => Math.hypot(a[0] - b[0], a[1] - b[1]) / SD;

/** Everything that is shown, computed from the state. */
function compute() {
  const net = current(), path = trajectory(xT), end = path.at(-1).x;
  const along = path.filter((_, n) => n % 10 === 0).map(({ t, x }) => {
    const y = f(net, x, t);
    return { t, x, y, error: distance(y, end) };
  });
  const at = path[Math.round((1 - Number(get("t").value)) * (path.length - 1))];
  const answer = f(net, at.x, at.t);
  const levels = MINICM.levels[get("steps").value];
  const solved = solve(xT, Number(get("solver-steps").value), get("solver").value === "Heun");
  return { path, end, along, at, answer, sampled: sample(net, xT, levels), solved };
}

function say(id, value) {
  const numbers = Array.isArray(value) ? value : [value];
  get(id).dataset.value = JSON.stringify(value); // in full, for the tests
  const said = numbers.map((a) => (Array.isArray(value) ? a.toFixed(3) : a.toPrecision(2)));
  get(id).textContent = said.join(", ");
}

// -------------------------------------------------------------------------------------------------------- the figures
const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

/** A canvas in CSS pixels, cleared; returns its context and side. */
function blank(canvas) {
  const side = canvas.clientWidth, ratio = window.devicePixelRatio || 1;
  canvas.width = canvas.height = Math.round(side * ratio);
  const c = canvas.getContext("2d");
  c.scale(ratio, ratio);
  c.font = "13px system-ui, sans-serif";
  c.lineWidth = 1.6;
  return [c, side];
}

const REACH = 3.6; // half the side of the plane, in units of the scaled position
/** By how much a point at t is drawn smaller: noise would dwarf the data, so it is shown about twice as wide as they are. */
const shrink = (t) => (1 + Math.asinh(t / SD) / 6) / Math.hypot(t, SD);
const scaled = ({ t, x }) => x.map((a) => a * shrink(t));

function line(c, points, dash = []) {
  c.setLineDash(dash);
  c.beginPath();
  points.forEach((p, i) => (i ? c.lineTo(...p) : c.moveTo(...p)));
  c.stroke();
  c.setLineDash([]);
}

function mark(c, [x, y], shape, size) {
  c.beginPath();
  if (shape === "ring" || shape === "dot") c.arc(x, y, size, 0, 7);
  if (shape === "square") c.rect(x - size, y - size, 2 * size, 2 * size);
  if (shape === "triangle") [[0, -1.3], [1.2, 0.9], [-1.2, 0.9], [0, -1.3]].forEach(([a, b], i) =>
    (i ? c.lineTo(x + a * size, y + b * size) : c.moveTo(x + a * size, y + b * size)));
  if (shape === "cross") for (const s of [-1, 1]) {
    c.moveTo(x - size, y - s * size);
    c.lineTo(x + size, y + s * size);
  }
  shape === "ring" || shape === "cross" ? c.stroke() : c.fill();
}

function drawPlane({ path, end, along, at, answer, sampled, solved }) {
  const [c, side] = blank(plane);
  const px = (p) => [side / 2 + (p[0] / REACH) * (side / 2), side / 2 - (p[1] / REACH) * (side / 2)];
  const place = (x) => px(scaled({ t: T_MIN, x }));
  c.strokeStyle = colour("grey");
  for (const m of mixture.means) {
    mark(c, place(m), "ring", ((2 * mixture.std) / SD / REACH) * (side / 2));
  }
  c.strokeStyle = colour("solver");
  line(c, solved.map((p) => px(scaled(p))), [6, 4]);
  c.strokeStyle = colour("ink");
  line(c, path.map((p) => px(scaled(p))));
  c.fillStyle = colour("model");
  c.globalAlpha = 0.55;
  along.forEach(({ y }) => mark(c, place(y), "dot", 3));
  c.globalAlpha = 1;
  c.strokeStyle = colour("model");
  line(c, [px(scaled(at)), place(answer)], [2, 3]);
  c.fillStyle = colour("ink");
  mark(c, px(scaled(at)), "dot", 4.5);
  c.fillText("x at t", px(scaled(at))[0] - 44, px(scaled(at))[1] + 4);
  c.fillStyle = colour("solver");
  mark(c, px(scaled(solved.at(-1))), "triangle", 6);
  c.fillStyle = colour("sample");
  mark(c, place(sampled), "square", 4.5);
  c.fillStyle = colour("model");
  mark(c, place(answer), "dot", 5.5);
  c.strokeStyle = colour("ink");
  c.lineWidth = 2.5;
  mark(c, place(end), "cross", 6);
  mark(c, px(scaled(path[0])), "ring", 9);
}

function drawErrors({ along, at, answer, end, solved }) {
  const [c, side] = blank(errors);
  const left = 46, bottom = side - 40, low = -4, high = 1;
  const across = (t) => left + (Math.log(t / T_MIN) / Math.log(T_MAX / T_MIN)) * (side - left - 10);
  const up = (e) => bottom - ((Math.min(high, Math.max(low, Math.log10(e))) - low) / (high - low)) * (bottom - 24);
  c.fillStyle = colour("ink");
  for (let d = low; d <= high; d++) {
    c.strokeStyle = colour("faint");
    line(c, [[left, up(10 ** d)], [side - 10, up(10 ** d)]]);
    c.fillText(d < -2 ? `1e${d}` : String(10 ** d), 6, up(10 ** d) + 4);
  }
  for (const t of [0.01, 0.1, 1, 10]) {
    line(c, [[across(t), bottom], [across(t), 24]]);
    c.fillText(String(t), across(t) - 8, bottom + 16);
  }
  c.fillText("time t (noise level)", side / 2 - 40, bottom + 34);
  c.fillText("distance from the exact answer / σd", left, 12);
  c.strokeStyle = colour("solver");
  line(c, [[left, up(distance(solved.at(-1).x, end))], [side - 10, up(distance(solved.at(-1).x, end))]], [6, 4]);
  c.strokeStyle = c.fillStyle = colour("model");
  line(c, along.filter((p) => p.error > 0).map((p) => [across(p.t), up(p.error)]));
  mark(c, [across(at.t), up(distance(answer, end))], "dot", 5.5);
}

function show() {
  const all = compute();
  drawPlane(all);
  drawErrors(all);
  say("exact", all.end);
  say("answer", all.answer);
  say("answer-error", distance(all.answer, all.end));
  say("sample", all.sampled);
  say("sample-error", distance(all.sampled, all.end));
  say("solved", all.solved.at(-1).x);
  say("solved-error", distance(all.solved.at(-1).x, all.end));
  get("t-value").dataset.value = JSON.stringify([all.at.t, ...all.at.x]);
  get("t-value").textContent = all.at.t.toPrecision(3);
  plane.dataset.value = JSON.stringify(xT);
  get("steps-said").textContent = get("steps").value === "1" ? "1 step" : `${get("steps").value} steps`;
}

// ---------------------------------------------------------------------------------------------------------- the hand
let asked = false;
function soon() { // at most once a frame
  if (asked) return;
  asked = true;
  requestAnimationFrame(() => {
    asked = false;
    show();
  });
}

function moveTo(y) {
  const far = (REACH - 0.1) / shrink(T_MAX);
  xT = y.map((a) => Math.min(far, Math.max(-far, a)));
  soon();
}

plane.addEventListener("pointerdown", (event) => {
  plane.setPointerCapture(event.pointerId);
  drag(event);
});
plane.addEventListener("pointermove", drag);
function drag(event) {
  if (!event.buttons) return;
  const box = plane.getBoundingClientRect(), unit = (box.width / 2 / REACH) * shrink(T_MAX);
  moveTo([(event.clientX - box.left - box.width / 2) / unit, -(event.clientY - box.top - box.height / 2) / unit]);
}
plane.addEventListener("keydown", (event) => {
  const by = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, 1], ArrowDown: [0, -1] }[event.key];
  if (!by) return;
  event.preventDefault();
  moveTo(xT.map((a, i) => a + 2 * by[i]));
});
document.querySelectorAll("select, input").forEach((control) => control.addEventListener("input", soon));
window.addEventListener("resize", soon);
window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", soon);
show();
