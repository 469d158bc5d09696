// The dashboard: the feed of /events, the totals of /v1/stats, the configuration of /test-connection, and the details of
// calls of /v1/calls/ID. Clients and upstreams choose names and errors, so they are only ever set as text.
"use strict";

const TOKEN_KEY = "claude-proxy-token";
const MAX_ROWS = 300;
const COLOURS = 8;
const TIMED_CALLS = 100;
const RETRY_MS = [1000, 2000, 4000, 8000];
const STATS_EVERY_MS = 15000;
const CONFIGURATION_EVERY_MS = 3000;

const $ = (id) => document.getElementById(id);
const state = { active: [], recent: [], totals: [], stats: null, routes: [], virtualKeys: [], hooks: [], config: {}, tests: new Map(), startedAt: 0, period: "hours", measure: "tokens", tries: 0 };
const seen = new Set();

// -- formatting

const short = (count) => {
  for (const [size, sign] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) {
    if (count >= size) return (count / size).toFixed(count < 100 * size ? 1 : 0) + sign;
  }
  return String(Math.round(count));
};
const usd = (value) => (value == null ? "" : "$" + value.toFixed(value > 0 && value < 0.1 ? 4 : 2));
const seconds = (ms) => (ms == null ? "" : ms < 950 ? Math.round(ms) + "\u00a0ms" : ms < 60000 ? (ms / 1000).toFixed(1) + "\u00a0s" : span(ms / 1000));
const span = (s) => {
  s = Math.floor(s);
  if (s < 60) return s + " s";
  if (s < 3600) return Math.floor(s / 60) + " min " + (s % 60) + " s";
  if (s < 86400) return Math.floor(s / 3600) + " h " + Math.floor((s % 3600) / 60) + " min";
  return Math.floor(s / 86400) + " d " + Math.floor((s % 86400) / 3600) + " h";
};
const inputOf = (call) => call.input_tokens + call.cache_read_tokens + call.cache_write_tokens;
const isFailure = (call) => !["ok", "client_gone"].includes(call.outcome);
const RESULTS = { ok: "done", client_gone: "client left", refused: "refused", failed: "broke off", crashed: "crashed" };
const resultOf = (call) => (call.outcome === "refused" ? `refused ${call.status}` : RESULTS[call.outcome] || call.outcome);
const causeOf = (call) => call.error || call.error_type || (["end_turn", "tool_use", null].includes(call.stop_reason) ? "" : call.stop_reason);
const timeOf = (call) => new Date(call.started_at * 1000).toLocaleTimeString([], { hour12: false });

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
  if (call.route && call.model !== call.route) notes.push("requested as " + call.model);
  if (call.fallback_from) notes.push("in place of " + call.fallback_from);
  if (call.rule) notes.push("by " + call.rule);
  if (notes.length) td.append(element("small", {}, notes.join(", ")));
  return td;
}

function fill(body, rows) {
  // New rows replace the old ones; a focused button keeps the focus by its key.
  const key = $(body).contains(document.activeElement) ? document.activeElement.dataset.key : null;
  $(body).replaceChildren(...rows);
  if (key) [...$(body).querySelectorAll("[data-key]")].find((each) => each.dataset.key === key)?.focus({ preventScroll: true });
}

// -- calls in flight

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

// -- finished calls

function resultCell(call) {
  const kind = call.outcome === "ok" ? "good" : isFailure(call) ? "bad" : "warn";
  const td = element("td", { class: "wide", label: "Result" }, element("span", { class: kind }, resultOf(call)));
  const cause = causeOf(call);
  if (call.cache_break) td.append(element("small", { class: "warn" }, "cache lost: " + call.cache_break));
  if (call.safeguards) td.append(element("small", { class: /blocked|unavailable|unsupported|without/.test(call.safeguards) ? "warn" : "" }, "auto mode: " + call.safeguards));
  if (cause) td.append(element("small", {}, cause));
  return td;
}

const modelOf = (call) => call.route || call.model;
const OUTCOME_FILTERS = { failures: isFailure, ok: (call) => call.outcome === "ok", client_gone: (call) => call.outcome === "client_gone" };

function matchesFilters(call) {
  const [model, session, outcome] = ["model", "session", "outcome"].map((name) => $("filter-" + name).value);
  if (model && modelOf(call) !== model) return false;
  if (session && call.session_id !== session) return false;
  if (outcome && !OUTCOME_FILTERS[outcome](call)) return false;
  const text = $("filter-text").value.trim().toLowerCase();
  const fields = [call.request_id, call.model, call.route, call.upstream_model, call.kind, call.session_id, resultOf(call), call.status, causeOf(call)];
  return fields.join("\n").toLowerCase().includes(text);
}

function showChoices(name, values) {
  // The selection stays, even of a model whose calls have left the list.
  const select = $("filter-" + name);
  const chosen = select.value;
  const options = [...new Set([...values, chosen])].filter(Boolean).sort();
  const known = [...select.options].slice(1).map((option) => option.value);
  if (options.join("\n") === known.join("\n")) return;
  select.replaceChildren(element("option", { value: "" }, "all"), ...options.map((value) => element("option", { value }, value)));
  select.value = chosen;
}

function showRecent() {
  showChoices("model", state.recent.map(modelOf));
  showChoices("session", state.recent.map((call) => call.session_id));
  const calls = state.recent.filter(matchesFilters);
  $("recent-empty").hidden = state.recent.length > 0;
  $("filters").hidden = state.recent.length === 0;
  $("recent-none").hidden = calls.length > 0 || state.recent.length === 0;
  $("recent-box").hidden = calls.length === 0;
  fill("recent", calls.map((call) => {
    const when = new Date(call.started_at * 1000);
    const all = inputOf(call);
    const open = element("button", { type: "button", class: "link", "data-key": call.request_id, "aria-haspopup": "dialog", title: when.toLocaleString() + ": show the details" }, timeOf(call));
    return element("tr", { class: "open", "data-request": call.request_id },
      element("td", { label: "Time", class: "nowrap" }, open),
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

function keep(call) {
  if (seen.has(call.request_id)) return;
  seen.add(call.request_id);
  const at = state.recent.findIndex((other) => other.started_at <= call.started_at);
  state.recent.splice(at < 0 ? state.recent.length : at, 0, call);
  for (const old of state.recent.splice(MAX_ROWS)) seen.delete(old.request_id);
}

// -- details of a call

function rowsOf(pairs) {
  return element("dl", {}, ...pairs.filter(([, value]) => value != null && value !== "").flatMap(([name, value]) => [element("dt", {}, name), element("dd", {}, value)]));
}
const headersOf = (headers) => element("pre", {}, Object.entries(headers || {}).map(([name, value]) => `${name}: ${value}`).join("\n") || "none");
const folded = (title, ...content) => element("details", {}, element("summary", {}, title), ...content);
const milliseconds = (ms) => (ms == null ? "" : `${seconds(ms)} after the start`);

async function copy(text, button, shown) {
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    // Browsers allow it on localhost and https only: select the text instead.
    getSelection().selectAllChildren(shown);
    button.textContent = "Selected";
  }
}

function copyable(title, text) {
  const pre = element("pre", { tabindex: "0" }, text);
  const button = element("button", { type: "button" }, "Copy");
  button.addEventListener("click", () => copy(text, button, pre));
  return element("section", {}, element("div", { class: "bar" }, element("h3", {}, title), button), pre);
}

const quoted = (text) => `'${text.replaceAll("'", "'\\''")}'`;

function curlOf(call, request) {
  // Without a key: it is taken from a variable of the shell.
  const isOurs = !request;
  const headers = isOurs ? { "content-type": "application/json", "anthropic-version": "2023-06-01", "x-api-key": "***" } : request.headers;
  const body = { model: isOurs ? call.model : call.upstream_model, max_tokens: 64, messages: [{ role: "user", content: "Say hello." }] };
  const lines = [`curl ${quoted(isOurs ? `${location.origin}/v1/messages` : request.url)}`];
  for (const [name, value] of Object.entries(headers)) {
    if (["content-length", "host", "accept-encoding", "connection"].includes(name)) continue;
    lines.push(value.includes("***") ? `-H "${name}: ${value.replaceAll(/["\\`$]/g, "\\$&").replaceAll("***", "$API_KEY")}"` : `-H ${quoted(`${name}: ${value}`)}`);
  }
  return [...lines, `-d ${quoted(JSON.stringify(body))}`].join(" \\\n  ");
}

// The end of a response's body may come after its last event: then the call is complete without it.
function attemptOf({ request, response }, number, isComplete) {
  const status = response ? (response.status < 400 ? element("span", { class: "good" }, String(response.status)) : element("span", { class: "bad" }, String(response.status))) : element("span", { class: "bad" }, "no response");
  return element("section", {}, element("h3", {}, `Attempt ${number + 1}: ${request.route || ""}`),
    rowsOf([
      ["Address", `${request.method} ${request.url}`], ["Status", status], ["Sent", milliseconds(request.sent_ms)],
      ["Head received", response && milliseconds(response.head_ms)], ["Bytes", response && `${request.body_bytes} sent, ${response.body_bytes} received${response.is_whole || isComplete ? "" : ", cut off"}`],
    ]),
    folded("Request headers", headersOf(request.headers)), response && folded("Response headers", headersOf(response.headers)));
}

function detailsOf(call, found) {
  const route = state.routes.find((each) => each.model_id === call.route);
  const record = found && found.record;
  const cause = causeOf(call);
  const all = inputOf(call);
  return [
    rowsOf([
      ["Result", element("span", { class: call.outcome === "ok" ? "good" : isFailure(call) ? "bad" : "warn" }, resultOf(call))],
      ["Cause", cause], ["Request id", call.request_id], ["Client's address", record && record.call.facts.client_address], ["Session", call.session_id], ["Agent", call.agent_id],
      ["Model", call.model], ["Served by", call.route && `${call.route} (${call.mode}), upstream model ${call.upstream_model}`],
      ["In place of", call.fallback_from], ["Address", record ? null : route && route.upstream],
      ["Started", new Date(call.started_at * 1000).toLocaleString()], ["First byte", milliseconds(call.ttfb_ms)], ["Total", seconds(call.duration_ms)],
      ["Retries", call.retries ? String(call.retries) : ""],
      ["Tokens", all || call.output_tokens ? `${all} in (${call.cache_read_tokens} from the cache), ${call.output_tokens} out` : ""],
      ["Cost", usd(call.cost_usd)], ["Cache lost", call.cache_break],
      ["Chosen by", call.rule], ["Agent type", call.agent_type], ["Prompt", call.prompt_id], ["Auto mode", call.safeguards],
    ]),
    ...(found && found.altered.length ? [element("section", {}, element("h3", {}, "Altered on the way"),
      element("ul", {}, ...found.altered.map((each) => element("li", {}, element("code", {}, each.field), ` ${each.what}: ${each.why}`))))] : []),
    ...(record ? record.attempts.map((each, number) => attemptOf(each, number, call.outcome === "ok" && number === record.attempts.length - 1)) : []),
    ...(record && record.call.notes && record.call.notes.length ? [element("section", {}, element("h3", {}, "Notes"), element("ul", {}, ...record.call.notes.map((note) => element("li", {}, note))))] : []),
    record ? folded("Headers of the client", headersOf(record.client.headers)) : null,
    found && found.problem ? element("p", { class: "empty" }, `No attempts are shown: ${found.problem}.`) : null,
    found && found.replay ? copyable("Replay it offline", found.replay)
      : record ? element("p", { class: "empty" }, `To replay calls like this one offline, set ${record.folder ? "" : "'record: all' and "}'record_bodies: true' under 'settings' in models.yaml; prompts are then kept.`) : null,
    record && record.attempts.length ? copyable("Call the upstream as in the last attempt, with a short prompt", curlOf(call, record.attempts.at(-1).request)) : null,
    copyable("Call this proxy, with a short prompt", curlOf(call)),
  ].filter((each) => each != null);
}

async function openDetails(requestId) {
  const call = state.recent.find((each) => each.request_id === requestId);
  if (!call) return;
  $("detail-title").textContent = `${modelOf(call)}, ${timeOf(call)}`;
  $("detail-body").replaceChildren(...detailsOf(call, null));
  $("detail").dataset.request = requestId;
  if (!$("detail").open) $("detail").showModal();
  try {
    const found = await fetchFrom(`v1/calls/${encodeURIComponent(requestId)}`).then((response) => response.json());
    if ($("detail").dataset.request === requestId) $("detail-body").replaceChildren(...detailsOf(call, found));
  } catch (error) {
    $("detail-body").prepend(element("p", { class: "bad" }, `The details cannot be read: ${error.message || "the daemon does not respond"}`));
  }
}

// -- totals and the chart

function showSums() {
  const today = state.stats && state.stats.today;
  if (today) {
    const total = today.total;
    const all = inputOf(total) + total.output_tokens;
    $("tile-tokens").textContent = short(all);
    $("tile-tokens-note").textContent = all ? `${short(inputOf(total))} in, ${total.estimated_calls ? "~" : ""}${short(total.output_tokens)} out` : "";
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
  const times = state.recent.filter((call) => call.ttfb_ms != null && call.kind !== "count").slice(0, TIMED_CALLS).map((call) => call.ttfb_ms);
  $("tile-ttfb").textContent = times.length ? seconds(percentile(times, 0.5)) : "–";
  $("tile-ttfb-note").textContent = times.length ? `median of ${times.length === 1 ? "one call" : `the last ${times.length} calls`}; 95\u00a0% below ${seconds(percentile(times, 0.95))}` : "";
  showSessions();
  showRoutes();
}

function percentile(values, share) {
  // The nearest rank: a value that occurred.
  const ordered = [...values].sort((a, b) => a - b);
  return ordered[Math.max(0, Math.ceil(share * ordered.length) - 1)];
}

function showSessions() {
  const sessions = (state.stats && state.stats.sessions) || [];
  $("sessions-section").hidden = sessions.length === 0;
  fill("sessions", sessions.map((each) => {
    const all = inputOf(each);
    const open = element("button", { type: "button", class: "link", "data-key": "session " + each.session_id, "data-session": each.session_id, title: `${each.session_id}: show its calls` }, each.session_id.slice(0, 8));
    return element("tr", {},
      element("td", { class: "wide" }, open),
      cell("Last call", new Date(each.last_at * 1000).toLocaleTimeString([], { hour12: false }), "nowrap"),
      cell("Models", each.models.join(", ")),
      number("Calls", String(each.calls)),
      number("In", all ? short(all) : ""),
      number("Cached", each.cache_read_tokens ? Math.round((100 * each.cache_read_tokens) / all) + "%" : ""),
      number("Out", each.output_tokens ? (each.estimated_calls ? "~" : "") + short(each.output_tokens) : ""),
      number("Cache lost", each.cache_breaks ? `${each.cache_breaks} ${each.cache_breaks === 1 ? "time" : "times"}` : ""),
      number("USD", each.calls > each.unpriced_calls ? usd(each.cost_usd) : ""),
    );
  }));
}

const SVG = "http://www.w3.org/2000/svg";
function shape(tag, attributes) {
  const made = document.createElementNS(SVG, tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
}

const PERIODS = { minutes: ["minute", 60], hours: ["hour", 24], days: ["day", 30] };

function steps() {
  // Every minute, hour or day of the period, those without a call too.
  const pad = (n) => String(n).padStart(2, "0");
  const day = (d) => `${d.getFullYear()}-${pad(d.getMonth() + 1)}-${pad(d.getDate())}`;
  const [step, count] = PERIODS[state.period];
  const found = [];
  const now = new Date();
  for (let back = count - 1; back >= 0; back--) {
    const at = new Date(now);
    if (step === "minute") at.setMinutes(now.getMinutes() - back);
    else if (step === "hour") at.setHours(now.getHours() - back);
    else at.setDate(now.getDate() - back);
    found.push(step === "day" ? day(at) : `${day(at)} ${pad(at.getHours())}:${step === "hour" ? "00" : pad(at.getMinutes())}`);
  }
  return found;
}

function roundUp(value) {
  // The end of the scale: 1, 2 or 5 times a power of ten.
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((each) => each * power).find((each) => each >= value * (1 - 1e-9));
}

function showChart() {
  const rows = (state.stats && state.stats[state.period]) || [];
  const [key] = PERIODS[state.period];
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
  const most = roundUp(Math.max(...heights) || 1);
  const chart = $("chart");
  chart.setAttribute("viewBox", `0 0 ${at.length * 10} 100`);
  const shapes = [0.5, 50, 99.5].map((y) => shape("line", { class: "grid", x1: 0, x2: at.length * 10, y1: y, y2: y }));
  const format = state.measure === "cost_usd" ? usd : short;
  at.forEach((step, place) => {
    let top = 100;
    for (const row of stacks.get(step).sort((a, b) => colour(a.model) - colour(b.model))) {
      const height = (100 * row[state.measure]) / most;
      top -= height;
      const bar = shape("rect", { class: "c" + colour(row.model), x: place * 10 + 1, y: top, width: 8, height });
      const title = shape("title", {});
      title.textContent = `${step}: ${row.model || "none"}, ${format(row[state.measure])}, ${row.calls} calls`;
      bar.append(title);
      shapes.push(bar);
    }
  });
  chart.replaceChildren(...shapes);
  const label = (step) => (key === "day" ? step.slice(5) : step.slice(11));
  $("chart-scale").replaceChildren(...[most, most / 2, 0].map((value) => element("span", {}, value ? format(value) : "0")));
  $("chart-axis").replaceChildren(...[0, Math.floor(at.length / 2), at.length - 1].map((place) => element("span", {}, label(at[place]))));
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
    name.append(...members(route.targets));
    return element("tr", {},
      name,
      cell("Upstream", route.upstream, "wide"),
      cell("Mode", route.mode),
      keyCell(route),
      stateCell(route),
      number("Calls", sums ? String(sums.calls) : ""),
      number("Failed", sums && sums.failures ? String(sums.failures) : ""),
      number("First byte", sums ? seconds(sums.ttfb_ms) : ""),
      testCell(route),
      actionsCell(route),
    );
  }));
}

function members(of) {
  return of.map((each) => {
    const isAside = each.until != null;
    const state = isAside ? `${each.why}, until ${new Date(each.until * 1000).toLocaleTimeString([], { hour12: false })}` : "works";
    const kind = isAside ? (each.state === "limited" ? "warn" : "bad") : "good";
    return element("small", { class: kind }, `${each.name}: ${state}; ${each.calls} calls, ${short(each.input_tokens + each.output_tokens)} tokens`);
  });
}

function keyCell(route) {
  const td = cell("Key", route.has_key ? (route.keys.length ? `${route.keys.length} keys` : route.credential) : "missing", route.has_key ? "" : "bad");
  td.append(...members(route.keys));
  return td;
}

function stateOf(route) {
  const last = state.recent.find((call) => call.route === route.model_id && call.outcome !== "client_gone");
  const cause = last && isFailure(last) ? causeOf(last) : "";
  if (!route.has_key) return ["bad", "cannot work: no key", route.credential];
  if (route.circuit === "open") return ["bad", `paused after failures, next try in ${span(route.open_for_s + 0.5)}`, cause];
  if (route.circuit === "trial") return ["warn", "failed before, being tried again", cause];
  if (!last) return ["", "ready, not used yet", ""];
  return isFailure(last) ? ["warn", "last call failed", cause] : ["good", "works", ""];
}

function stateCell(route) {
  const [kind, text, cause] = stateOf(route);
  return element("td", { label: "State", class: "wide" }, element("span", { class: kind }, text), cause && element("small", {}, cause));
}

function testCell(route) {
  const test = state.tests.get(route.model_id);
  const button = element("button", { type: "button", "data-key": "test " + route.model_id, "data-test": route.model_id, "aria-label": `Test ${route.model_id}` }, test === "running" ? "Testing …" : "Test");
  button.disabled = test === "running";
  const td = element("td", { label: "Test", class: "wide" }, button);
  if (test && test !== "running") {
    td.append(element("small", { class: test.ok ? "good" : "bad", role: "status" }, test.ok ? `works, ${seconds(test.duration_ms)}` : `${test.status ? test.status + ": " : ""}${test.error || "failed"}`));
  }
  return td;
}

async function testModel(model) {
  state.tests.set(model, "running");
  showRoutes();
  try {
    const response = await fetchFrom("test-connection", { method: "POST", body: JSON.stringify({ probe: true, model }) });
    state.tests.set(model, (await response.json()).routes[0].probe);
  } catch (error) {
    state.tests.set(model, { ok: false, error: error.message || "the daemon does not respond" });
  }
  showRoutes();
}

// -- problems

function problem(title, lines, after) {
  return element("section", { class: "problem" }, element("h2", {}, title), element("ul", {}, ...lines.map((line) => element("li", {}, line))), after && element("p", {}, after));
}

function showProblems() {
  const error = state.config.error;
  const broken = state.hooks.filter((hook) => hook.error);
  const near = state.virtualKeys.flatMap((holder) => holder.limits.filter((limit) => limit.is_near).map((limit) =>
    `${holder.is_team ? "team" : "key"} ${holder.name}: ${Math.round(limit.share * 100)} % of ${limit.limit}; it resets at ${new Date(limit.resets_at * 1000).toLocaleString([], { hour12: false })}`));
  const off = state.hooks.filter((hook) => hook.is_off);
  const differing = Object.entries((state.config.replicas || {}).differing || {}).map(([name, hash]) => `${name} runs ${hash}`);
  const unusable = state.routes.filter((route) => stateOf(route)[0] === "bad");
  const found = [
    error && problem("models.yaml was rejected; the configuration before it is in force", error.faults, `Correct ${state.config.path} and save it: it is read again at once.`),
    broken.length && problem("Hooks that did not load; calls run without them", broken.map((hook) => `${hook.name}: ${hook.error}`), "Correct the file and save it: it is loaded again at once."),
    off.length && problem("Hooks that were switched off after failures", off.map((hook) => `${hook.name}: ${hook.last_failure || "failed"}`), "Correct the file and save it: it is loaded again at once."),
    differing.length && problem("Daemons on the same database that run another models.yaml", differing, `This one, ${state.config.replicas.name}, runs ${state.config.hash}.`),
    near.length && problem("Limits of keys and teams that are nearly used up", near),
    state.routes.length && unusable.length === state.routes.length && problem("No model can be used", unusable.map((route) => `${route.model_id}: ${stateOf(route).slice(1).filter(Boolean).join(": ")}`)),
  ].filter(Boolean);
  const text = found.map((each) => each.textContent).join("\n");
  if ($("problems").dataset.text !== text) {
    $("problems").dataset.text = text;
    $("problems").replaceChildren(...found);
  }
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

class TokenRequired extends Error {}

async function fetchFrom(path, options = {}) {
  const token = sessionStorage.getItem(TOKEN_KEY);
  const headers = { ...(token && { "x-claude-proxy-token": token }), ...(options.body && { "content-type": "application/json" }) };
  const response = await fetch(path, { ...options, headers, cache: "no-store" });
  if (response.status === 401) throw new TokenRequired();
  if (!response.ok) {
    const error = await response.json().catch(() => null);
    throw new Error((error && error.error && error.error.message) || `the daemon responded ${response.status}`);
  }
  return response;
}

async function refresh() {
  try {
    const [stats, connection] = await Promise.all(
      ["v1/stats", "test-connection"].map((path) => fetchFrom(path).then((response) => response.json())),
    );
    state.stats = stats;
    showConfiguration(connection);
    (stats.recent || []).forEach(keep);
    showSums();
    showChart();
    showRecent();
  } catch (error) {
    if (error instanceof TokenRequired) signIn();
    // Anything else shows as a lost feed, which tries again and then comes back here.
  }
}

function showConfiguration({ routes, hooks, config, settings, virtual_keys: virtualKeys }) {
  const model = routes.length ? routes[0].model_id : "MODEL";
  const needsKey = routes.length && routes[0].credential === "from the request" && !/\/\/(localhost|127\.|\[::1\])/.test(routes[0].upstream);
  const token = sessionStorage.getItem(TOKEN_KEY) ? "YOUR_ACCESS_TOKEN" : needsKey ? "YOUR_KEY" : "any";
  $("hint").textContent = `${token === "YOUR_KEY" ? "ANTHROPIC_AUTH_TOKEN=YOUR_KEY " : ""}claude-proxy code ${model}`;
  $("hint-others").textContent = `ANTHROPIC_BASE_URL=${location.origin} ANTHROPIC_AUTH_TOKEN=${token}`;
  Object.assign(state, { routes, hooks, config, virtualKeys });
  showSettings(settings);
  showRoutes();
  showProblems();
  showCanAdd();
}

async function refreshConfiguration() {
  try {
    showConfiguration(await fetchFrom("test-connection").then((response) => response.json()));
  } catch {
    // As in refresh.
  }
}

const onMessage = {
  hello(data) {
    state.startedAt = data.started_at;
    $("version").textContent = data.version;
    data.recent.forEach(keep);
    onMessage.active(data);
    showRecent();
    refresh();
  },
  active(data) {
    state.active = data.active;
    state.totals = data.totals;
    showActive();
    showSums();
    showConnection(data.is_draining ? "draining" : "live", data.is_draining ? "Stopping: open calls are finishing" : "Live");
    $("uptime").textContent = `up ${span(data.now - state.startedAt)}`;
  },
  call(data) {
    keep(data);
    showRecent();
  },
};

async function follow() {
  const response = await fetchFrom("events");
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
      if (error instanceof TokenRequired) {
        await signIn();
        continue;
      }
    }
    const wait = RETRY_MS[Math.min(state.tries++, RETRY_MS.length - 1)];
    for (let left = wait / 1000; left > 0; left--) {
      showConnection("lost", `The daemon does not respond; trying again in ${left} s`);
      await new Promise((resolve) => setTimeout(resolve, 1000));
    }
    showConnection("loading", "Connecting …");
  }
}

let signInPromise = null;
function signIn() {
  signInPromise ||= new Promise((resolve) => {
    showConnection("loading", "Waiting for the access token");
    const dialog = $("sign-in");
    $("sign-in-error").textContent = sessionStorage.getItem(TOKEN_KEY) ? "That token is not accepted." : "";
    dialog.addEventListener("close", () => {
      sessionStorage.setItem(TOKEN_KEY, $("token").value);
      $("token").value = "";
      signInPromise = null;
      resolve();
    }, { once: true });
    dialog.addEventListener("cancel", (event) => event.preventDefault());
    dialog.showModal();
  });
  return signInPromise;
}

function showConnection(name, text) {
  document.body.dataset.state = name;
  if (name !== "live") $("uptime").textContent = "";
  if ($("connection-text").textContent !== text) $("connection-text").textContent = text;
}

for (const button of document.querySelectorAll(".choice button")) {
  button.addEventListener("click", () => {
    for (const other of button.parentElement.children) other.setAttribute("aria-pressed", String(other === button));
    Object.assign(state, button.dataset.period ? { period: button.dataset.period } : { measure: button.dataset.measure });
    showChart();
  });
}
$("filters").addEventListener("input", showRecent);
$("filters").addEventListener("reset", () => setTimeout(showRecent));
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("recent").addEventListener("click", (event) => {
  const row = event.target.closest("tr");
  if (row && !String(getSelection())) openDetails(row.dataset.request);
});
$("sessions").addEventListener("click", (event) => {
  const session = event.target.dataset.session;
  if (!session) return;
  showChoices("session", [...state.recent.map((call) => call.session_id), session]);
  $("filter-session").value = session;
  showRecent();
  $("filters").scrollIntoView();
});
$("copy-hint").addEventListener("click", () => copy($("hint").textContent, $("copy-hint"), $("hint")));
$("routes").addEventListener("click", (event) => {
  if (event.target.dataset.test) testModel(event.target.dataset.test);
});
setInterval(() => document.body.dataset.state === "live" && refresh(), STATS_EVERY_MS);
setInterval(() => document.body.dataset.state === "live" && refreshConfiguration(), CONFIGURATION_EVERY_MS);
// After all scripts of the page.
addEventListener("DOMContentLoaded", stayConnected);
