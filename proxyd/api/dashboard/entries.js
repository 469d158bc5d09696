// Adding and removing models: the dialog, and the buttons of each row. It uses the helpers of dashboard.js.
"use strict";

const OTHER = "another address";
const adding = { vendors: [], local: [], models: null };

function showCanAdd() {
  const can = Boolean(state.config.can_be_changed_here);
  $("add-model").hidden = !can;
  $("add-hint").textContent = can ? "" : "Add one with claude-proxy add. Where auth_token is set, models can be added and removed here, too.";
}

function actionsCell(route) {
  const copyButton = element("button", { type: "button", "data-key": "copy " + route.model_id, "data-copy": route.model_id, title: `claude-proxy code ${route.model_id}`, "aria-label": `Copy the command for ${route.model_id}` }, "Copy command");
  const box = element("div", { class: "actions" }, copyButton);
  if (state.config.can_be_changed_here) {
    box.append(element("button", { type: "button", "data-key": "remove " + route.model_id, "data-remove": route.model_id, "aria-label": `Remove ${route.model_id}` }, "Remove"));
  }
  return element("td", { label: "Entry", class: "wide" }, box);
}

async function removeModel(model) {
  if (!confirm(`Remove ${model} from models.yaml?`)) return;
  $("entries-error").textContent = "";
  try {
    await fetchFrom(`v1/entries/${encodeURIComponent(model)}`, { method: "DELETE" });
  } catch (error) {
    $("entries-error").textContent = error.message;
  }
}

// -- the dialog

function chosenVendor() {
  const [kind, number] = $("add-vendor").value.split(" ");
  return kind === "vendor" ? adding.vendors[number] : kind === "local" ? { ...adding.local[number], isLocal: true } : null;
}

function showForm() {
  const vendor = chosenVendor();
  const wantsAddress = !vendor || vendor.needs_address;
  $("add-address-label").hidden = !wantsAddress;
  $("add-key-label").hidden = Boolean(vendor && vendor.isLocal);
  $("add-key-note").textContent = vendor && vendor.has_key ? `${vendor.key_env} is set: leave the key empty to use it.` : vendor && vendor.isLocal ? "" : "It is kept in the file env beside models.yaml.";
  const models = adding.models;
  $("add-model-label").hidden = !models;
  $("add-submit").textContent = models ? "Add" : "Show the models";
  if (models) {
    $("add-name").replaceChildren(...models.map((model) => {
      const notes = [];
      if (model.max_input_tokens) notes.push(`${short(model.max_input_tokens)} window`);
      if (model.input_price != null) notes.push(`$${model.input_price} in, $${model.output_price} out per million`);
      if (model.thinking) notes.push("thinking");
      if (model.vision) notes.push("images");
      return element("option", { value: model.name }, notes.length ? `${model.name} (${notes.join("; ")})` : model.name);
    }));
  }
}

function startAgain() {
  adding.models = null;
  $("add-error").textContent = "";
  showForm();
}

async function openAdd() {
  $("add-error").textContent = "";
  $("add-form").reset();
  $("add").showModal();
  try {
    Object.assign(adding, await fetchFrom("v1/entries/vendors").then((response) => response.json()));
  } catch (error) {
    $("add-error").textContent = error.message || "the daemon does not respond";
  }
  $("add-vendor").replaceChildren(
    ...adding.local.map((each, number) => element("option", { value: `local ${number}` }, `${each.title}, ${each.api_base}`)),
    ...adding.vendors.map((each, number) => element("option", { value: `vendor ${number}` }, each.title)),
    element("option", { value: "other" }, OTHER),
  );
  startAgain();
}

async function submitAdd() {
  const vendor = chosenVendor();
  const body = { key: $("add-key").value };
  if (vendor && !vendor.isLocal) body.vendor = vendor.vendor;
  if (vendor && vendor.isLocal) body.api_base = vendor.api_base;
  if (!$("add-address-label").hidden) body.api_base = $("add-address").value;
  const send = (path, more) => fetchFrom(path, { method: "POST", body: JSON.stringify({ ...body, ...more }) }).then((response) => response.json());
  $("add-submit").disabled = true;
  $("add-error").textContent = "";
  try {
    if (!adding.models) {
      adding.models = (await send("v1/entries/models")).models;
      showForm();
      return;
    }
    const added = await send("v1/entries", { model: $("add-name").value });
    $("add-key").value = "";
    $("add").close();
    await testOnceThere(added.model_id);
  } catch (error) {
    $("add-error").textContent = error.message || "the daemon does not respond";
  } finally {
    $("add-submit").disabled = false;
  }
}

async function testOnceThere(model) {
  // The daemon reads the file by itself, about once a second.
  for (let tries = 0; tries < 20; tries++) {
    await refreshConfiguration();
    if (state.routes.some((route) => route.model_id === model)) return testModel(model);
    await new Promise((resolve) => setTimeout(resolve, 500));
  }
  $("entries-error").textContent = `${model} was written, but the daemon has not taken models.yaml over; see its log`;
}

$("add-model").addEventListener("click", openAdd);
$("add-cancel").addEventListener("click", () => $("add").close());
for (const name of ["add-vendor", "add-address", "add-key"]) $(name).addEventListener("input", startAgain);
$("add-form").addEventListener("submit", (event) => {
  event.preventDefault();
  submitAdd();
});
$("routes").addEventListener("click", (event) => {
  const { copy: model, remove } = event.target.dataset;
  if (model) copy(`claude-proxy code ${model}`, event.target, event.target.closest("tr").firstChild);
  if (remove) removeModel(remove);
});
