// The page of claude-proxy: the feed of /events, the figures of /v1/stats, what /test-connection knows of routes.
// Names of models and errors come from outside, so text is only ever set as text.
"use strict";

const TOKEN_KEY = "claude-proxy-token";
const MAX_ROWS = 300;
const COLOURS = 8;
const RETRY_MS = [1000, 2000, 4000, 8000];
const STATS_EVERY_MS = 15000;

const $ = (id) => document.getElementById(id);
const state = { active: [], recent: [], totals: [], stats: null, routes: [], startedAt: 0, period: "hours", measure: "tokens", tries: 0 };
const seen = new Set();

// -- words and numbers

const short = (count) => {
  for (const [size, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (count >= size) return (count / size).toFixed(count < 100 * size ? 1 : 0) + sign;
  }
  return String(Math.round(count));
};
const usd = (value) => (value == null ? "" : "$" + value.toFixed(value > 0 && value < 0.1 ? 4 : 2));
const seconds = (ms) => (ms == null ? "" : ms < 950 ? Math.round(ms) + " ms" : ms < 60000 ? (ms / 1000).toFixed(1) + " s" : span(ms / 1000));
const span = (s) => {
  s = Math.floor(s);
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
};
const taken = (call) => call.input_tokens + call.cache_read_tokens + call.cache_write_tokens;
const isFailure = (call) => !["ok", "client_gone"].includes(call.outcome);
const RESULTS = { ok: "done", client_gone: "client left", refused: "refused", failed: "broke off", crashed: "crashed" };

// -- elements

function element(tag, options = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(options)) {
    if (name === "class") made.className = value;
    else if (name === "label") made.dataset.label = value;
    else made.setAttribute(name, value);
  }
  made.append(...children.filter((child) => child != null && child !== ""));
  return made;
}
const cell = (label, text, kind = "") => element("td", { label, class: kind }, text);
const number = (label, text) => cell(label, text, "num");

function modelCell(call) {
  const td = element("td", { class: "wide" }, call.route || call.model);
  const notes = [];
  if (call.route && call.model !== call.route) notes.push("asked as " + call.model);
  if (call.fallback_from) notes.push("in place of " + call.fallback_from);
  if (notes.length) td.append(element("small", {}, notes.join(", ")));
  return td;
}

function fill(body, rows) {
  // The focus stays where it is: rows themselves take none.
  $(body).replaceChildren(...rows);
}

// -- what is in flight

function showActive() {
  const calls = state.active;
  $("active-empty").hidden = calls.length > 0;
  $("active-box").hidden = calls.length === 0;
  fill("active", calls.map((call) => element("tr", {},
    modelCell(call),
    cell("For", call.kind),
    element("td", { label: "Phase", class: "nowrap" }, element("span", { class: "pulse " + call.phase }), call.phase),
    number("Age", span(call.duration_ms / 1000)),
    number("Tokens", call.output_tokens ? "~" + short(call.output_tokens) : ""),
    number("Tokens/s", call.tokens_per_s == null ? "" : String(call.tokens_per_s)),
    number("Retries", call.retries ? String(call.retries) : ""),
  )));
  $("tile-active").textContent = calls.length;
  const streaming = calls.filter((call) => call.phase === "streaming").length;
  const speed = calls.reduce((sum, call) => sum + (call.tokens_per_s || 0), 0);
  $("tile-active-note").textContent = calls.length ? `${streaming} streaming, ${speed.toFixed(0)} tokens/s` : "";
}

// -- what is over

function resultCell(call) {
  const kind = call.outcome === "ok" ? "good" : isFailure(call) ? "bad" : "warn";
  const words = RESULTS[call.outcome] || call.outcome;
  const td = element("td", { class: "wide", label: "Result" }, element("span", { class: kind }, call.outcome === "refused" ? `${words} ${call.status}` : words));
  const cause = call.error || call.error_type || (["end_turn", "tool_use", null].includes(call.stop_reason) ? "" : call.stop_reason);
  if (call.cache_break) td.append(element("small", { class: "warn" }, "cache lost: " + call.cache_break));
  if (cause) td.append(element("small", {}, cause));
  return td;
}

function showRecent() {
  const calls = $("only-failures").checked ? state.recent.filter(isFailure) : state.recent;
  $("recent-empty").hidden = state.recent.length > 0;
  $("recent-box").hidden = state.recent.length === 0;
  fill("recent", calls.map((call) => {
    const when = new Date(call.started_at * 1000);
    const all = taken(call);
    return element("tr", { "data-request": call.request_id },
      element("td", { label: "Time", class: "nowrap", title: when.toLocaleString() }, when.toLocaleTimeString([], { hour12: false })),
      modelCell(call),
      cell("For", call.kind),
      resultCell(call),
      number("In", all ? short(all) : ""),
      number("Cached", call.cache_read_tokens ? Math.round((100 * call.cache_read_tokens) / all) + "%" : ""),
      number("Out", call.output_tokens ? (call.is_estimated ? "~" : "") + short(call.output_tokens) : ""),
      number("First byte", seconds(call.ttfb_ms)),
      number("Total", seconds(call.duration_ms)),
      number("USD", usd(call.cost_usd)),
    );
  }));
}

function remember(call) {
  if (seen.has(call.request_id)) return;
  seen.add(call.request_id);
  const at = state.recent.findIndex((other) => other.started_at <= call.started_at);
  state.recent.splice(at < 0 ? state.recent.length : at, 0, call);
  for (const gone of state.recent.splice(MAX_ROWS)) seen.delete(gone.request_id);
}

// -- sums and the chart

function showSums() {
  const today = state.stats && state.stats.today;
  if (today) {
    const total = today.total;
    const all = taken(total) + total.output_tokens;
    $("tile-tokens").textContent = short(all);
    $("tile-tokens-note").textContent = all ? `${short(taken(total))} in, ${total.estimated_calls ? "~" : ""}${short(total.output_tokens)} out` : "";
    const priced = total.calls - total.unpriced_calls;
    $("tile-cost").textContent = priced ? usd(total.cost_usd) : "–";
    $("tile-cost-note").textContent = total.calls && !priced ? "no pricing is configured" : total.unpriced_calls ? `${total.unpriced_calls} calls have no price` : "";
    const failed = today.by_outcome.filter((row) => isFailure(row)).reduce((sum, row) => sum + row.calls, 0);
    $("tile-failed").textContent = failed;
    $("tile-failed").className = failed ? "figure bad" : "figure";
    $("tile-failed-note").textContent = `of ${total.calls} calls`;
  } else if (state.stats) {
    for (const id of ["tile-tokens", "tile-cost", "tile-failed"]) $(id).textContent = "–";
    $("tile-tokens-note").textContent = state.stats.ledger.trouble || "no ledger is kept";
  }
  const times = state.totals.filter((row) => row.ttfb_ms != null).map((row) => [row.ttfb_ms, row.calls]);
  const calls = times.reduce((sum, [, count]) => sum + count, 0);
  $("tile-ttfb").textContent = calls ? seconds(times.reduce((sum, [ms, count]) => sum + ms * count, 0) / calls) : "–";
  showRoutes();
}

const SVG = "http://www.w3.org/2000/svg";
function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

function steps() {
  // Every hour or day of the period, those without a call too.
  const pad = (n) => String(n).padStart(2, "0");
  const day = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  const found = [];
  const now = new Date();
  for (let back = state.period === "hours" ? 23 : 29; back >= 0; back--) {
    const at = new Date(now);
    if (state.period === "hours") at.setHours(now.getHours() - back);
    else at.setDate(now.getDate() - back);
    found.push(state.period === "hours" ? `${day(at)} ${pad(at.getHours())}:00` : day(at));
  }
  return found;
}

function showChart() {
  const rows = (state.stats && state.stats[state.period]) || [];
  const key = state.period === "hours" ? "hour" : "day";
  const sums = new Map();
  for (const row of rows) sums.set(row.model, (sums.get(row.model) || 0) + row[state.measure]);
  const models = [...sums].filter(([, sum]) => sum > 0).sort((a, b) => b[1] - a[1]).map(([model]) => model);
  const colour = (model) => Math.min(models.indexOf(model), COLOURS - 1);
  $("chart-empty").hidden = models.length > 0;
  $("chart-box").hidden = models.length === 0;
  if (!models.length) return;
  $("chart-empty").textContent = state.measure === "cost_usd" ? "No priced calls in this time." : "No calls in this time.";
  const at = steps();
  const stacks = new Map(at.map((step) => [step, []]));
  for (const row of rows) if (stacks.has(row[key]) && row[state.measure] > 0) stacks.get(row[key]).push(row);
  const heights = [...stacks.values()].map((stack) => stack.reduce((sum, row) => sum + row[state.measure], 0));
  const most = Math.max(...heights) || 1;
  const chart = $("chart");
  chart.setAttribute("viewBox", `0 0 ${at.length * 10} 100`);
  const shapes = [0.5, 50, 99.5].map((y) => shape("line", { class: "grid", x1: 0, x2: at.length * 10, y1: y, y2: y }));
  const format = state.measure === "cost_usd" ? usd : short;
  at.forEach((step, place) => {
    let top = 100;
    for (const row of stacks.get(step).sort((a, b) => colour(a.model) - colour(b.model))) {
      const height = (97 * row[state.measure]) / most;
      top -= height;
      const bar = shape("rect", { class: "c" + colour(row.model), x: place * 10 + 1, y: top, width: 8, height });
      const title = shape("title", {});
      title.textContent = `${step}: ${row.model || "none"}, ${format(row[state.measure])}, ${row.calls} calls`;
      bar.append(title);
      shapes.push(bar);
    }
  });
  chart.replaceChildren(...shapes);
  const label = (step) => (state.period === "hours" ? step.slice(11) : step.slice(5));
  const peak = `peak ${format(most)} ${state.period === "hours" ? "an hour" : "a day"}`;
  $("chart-axis").replaceChildren(element("span", {}, label(at[0])), element("span", {}, peak), element("span", {}, label(at[at.length - 1])));
  $("legend").replaceChildren(...models.slice(0, COLOURS).map((model) =>
    element("span", { class: "c" + colour(model) }, element("b", {}, model || "none"), " ", element("i", {}, format(sums.get(model)))),
  ));
}

// -- routes and settings

function showRoutes() {
  const totals = new Map(state.totals.map((row) => [row.route, row]));
  fill("routes", state.routes.map((route) => {
    const sums = totals.get(route.model_id);
    const name = element("td", { class: "wide" }, route.model_id);
    const notes = [];
    if (route.model_name !== route.model_id) notes.push("as " + route.model_name);
    if (route.fallback.length) notes.push("then " + route.fallback.join(", "));
    if (notes.length) name.append(element("small", {}, notes.join("; ")));
    return element("tr", {},
      name,
      cell("Upstream", route.upstream, "wide"),
      cell("Mode", route.mode),
      cell("Key", route.credential),
      element("td", { label: "Circuit", class: route.circuit === "closed" ? "good" : "bad" }, route.circuit),
      number("Calls", sums ? String(sums.calls) : ""),
      number("Failed", sums && sums.failures ? String(sums.failures) : ""),
      number("First byte", sums ? seconds(sums.ttfb_ms) : ""),
    );
  }));
}

function showSettings(settings) {
  const shown = (value) => (typeof value === "string" ? value : JSON.stringify(value));
  fill("settings", Object.entries(settings).map(([name, { value, from }]) => element("tr", {},
    element("td", { class: "wide" }, element("code", {}, name)),
    cell("Value", value === "" ? "–" : shown(value)),
    cell("From", from),
  )));
}

// -- talking to the daemon

class NotLetIn extends Error {}

async function ask(path) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  const headers = token ? { "x-claude-proxy-token": token } : {};
  const response = await fetch(path, { headers, cache: "no-store" });
  if (response.status === 401) throw new NotLetIn();
  if (!response.ok) throw new Error(`the daemon answered ${response.status}`);
  return response;
}

async function refresh() {
  try {
    const [stats, connection] = await Promise.all(
      ["v1/stats", "test-connection"].map((path) => ask(path).then((response) => response.json())),
    );
    state.stats = stats;
    state.routes = connection.routes;
    (stats.recent || []).forEach(remember);
    showSettings(connection.settings);
    showSums();
    showChart();
    showRecent();
  } catch (error) {
    if (error instanceof NotLetIn) signIn();
    // Anything else shows as a lost feed, which tries again and then comes back here.
  }
}

const onMessage = {
  hello(data) {
    state.startedAt = data.started_at;
    $("version").textContent = data.version;
    data.recent.forEach(remember);
    onMessage.active(data);
    showRecent();
    refresh();
  },
  active(data) {
    state.active = data.active;
    state.totals = data.totals;
    showActive();
    showSums();
    say(data.is_draining ? "draining" : "live", data.is_draining ? "Stopping: open calls are finishing" : "Live");
    $("uptime").textContent = `up ${span(data.now - state.startedAt)}`;
  },
  call(data) {
    remember(data);
    showRecent();
  },
};

async function follow() {
  const response = await ask("events");
  state.tries = 0;
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { value, done } = await reader.read();
    if (done) throw new Error("the feed ended");
    const frames = (rest + value).split("\n\n");
    rest = frames.pop();
    for (const frame of frames) {
      const lines = frame.split("\n");
      const name = lines.find((line) => line.startsWith("event: "));
      const data = lines.filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      if (name && data && onMessage[name.slice(7)]) onMessage[name.slice(7)](JSON.parse(data));
    }
  }
}

async function stayConnected() {
  for (;;) {
    try {
      await follow();
    } catch (error) {
      if (error instanceof NotLetIn) {
        await signIn();
        continue;
      }
    }
    const wait = RETRY_MS[Math.min(state.tries++, RETRY_MS.length - 1)];
    for (let left = wait / 1000; left > 0; left--) {
      say("lost", `The daemon does not answer; trying again in ${left} s`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    say("loading", "Connecting …");
  }
}

let signingIn = null;
function signIn() {
  signingIn ||= new Promise((resolve) => {
    say("loading", "Waiting for the access token");
    const dialog = $("sign-in");
    $("sign-in-error").textContent = sessionStorage.getItem(TOKEN_KEY) ? "That token is not accepted." : "";
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN_KEY, $("token").value);
      $("token").value = "";
      signingIn = null;
      resolve();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return signingIn;
}

function say(name, words) {
  document.body.dataset.state = name;
  if (name !== "live") $("uptime").textContent = "";
  if ($("connection-text").textContent !== words) $("connection-text").textContent = words;
}

for (const button of document.querySelectorAll(".choice button")) {
  button.addEventListener("click", () => {
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
    Object.assign(state, button.dataset.period ? { period: button.dataset.period } : { measure: button.dataset.measure });
    showChart();
  });
}
$("only-failures").addEventListener("change", showRecent);
$("hint").textContent = `ANTHROPIC_BASE_URL=${location.origin} ANTHROPIC_AUTH_TOKEN=any claude --model MODEL`;
setInterval(() => document.body.dataset.state === "live" && refresh(), STATS_EVERY_MS);
stayConnected();
