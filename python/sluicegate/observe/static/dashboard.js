// The dashboard: samples come twice a second over a WebSocket; charts scroll with the clock.
import { Chart } from "./chart.js";
import { connect } from "./socket.js";

const SPAN = 120; // seconds on a chart
const LAG = 0.6; // the chart's edge stays this far behind, so that it never runs out of samples

const at = (id) => document.getElementById(id);
const put = (id, text) => {
  const element = at(id); // not every page has every number
  if (element) element.textContent = text;
};
const count = (value) => value.toLocaleString("en");
const rate = (value) => (value < 100 ? value.toFixed(1) : count(Math.round(value)));
const size = (bytes) => (bytes < 1024 ? `${bytes} B` : bytes < 1048576 ? `${(bytes / 1024).toFixed(1)} KB` : `${(bytes / 1048576).toFixed(1)} MB`);

const messages = new Chart(at("rate"), [{ key: "admitted", color: "--calm" }, { key: "refused", color: "--held-fill" }], { span: SPAN });
const places = new Chart(at("places"), [{ key: "connections", color: "--muted" }], { span: SPAN });

let offset = null; // the server's clock to the page's, seconds

put("flood-url", `${location.protocol === "https:" ? "wss" : "ws"}://${location.host}/chat`);

connect(document.body.dataset.feed, {
  onState(state) {
    at("link").dataset.state = state;
    put("link", state === "open" ? "live" : state === "refused" ? "refused: too many dashboards from here" : state);
    if (state !== "open") offset = null;
  },
  onMessage(fed) {
    if (fed.type === "history") {
      if (fed.limits) put("limits", fed.limits.join(", "));
      messages.points = [];
      places.points = [];
      for (const sample of fed.samples) point(sample);
    } else if (fed.type === "sample") {
      point(fed);
      show(fed);
    }
  },
});

function point(sample) {
  if (sample.type === "sample") {
    // The least delayed sample tells the time best; forget it slowly, for clocks drift.
    const told = performance.now() / 1000 - sample.at;
    offset = offset === null || told < offset ? told : offset + (told - offset) * 0.02;
  }
  const made = { at: sample.at, admitted: sample.admitted_rate, refused: sample.refused_rate, connections: sample.connections };
  messages.add(made);
  places.add(made);
}

function show(sample) {
  put("admitted", rate(sample.admitted_rate));
  put("refused", rate(sample.refused_rate));
  put("admitted-total", count(sample.admitted));
  put("refused-total", count(sample.refused));
  put("connections", count(sample.connections));
  put("turned-away", count(sample.turned_away));
  put("keys", count(sample.keys));
  put("bytes", size(sample.bytes));
  put("rate-words", `${rate(sample.admitted_rate)} admitted and ${rate(sample.refused_rate)} refused a second.`);
  put("places-words", `${count(sample.connections)} open.`);
  if (sample.limiters) rows("limiters", sample.limiters.map((one) => [one.name, count(one.admitted), count(one.refused), count(one.degraded), count(one.keys)]));
  if (sample.stores) rows("stores", sample.stores.map((one) => [one.name, one.down ?? "answers", one.mean === null ? "–" : `${(one.mean * 1000).toFixed(2)} ms`, count(one.outages)]));
  const from = sample.clients === 1 ? "from 1 client" : `from ${count(sample.clients)} clients`;
  put("places-limit", sample.missed ? `${from}, ${count(sample.missed)} messages missed by slow readers` : from);
  rank("hottest", sample.hottest, "Nobody yet.");
  rank("most-refused", sample.most_refused, "Nobody was refused.");
}

function rows(id, table) {
  const body = at(id);
  if (!body) return;
  body.replaceChildren(
    ...table.map((cells) => {
      const row = document.createElement("tr");
      cells.forEach((text, i) => {
        const cell = document.createElement(i === 0 ? "th" : "td");
        if (i === 0) cell.scope = "row";
        cell.textContent = text;
        row.append(cell);
      });
      return row;
    }),
  );
  body.closest("section").hidden = table.length === 0;
}

function rank(id, rows, none) {
  const list = at(id);
  if (rows.length === 0) {
    const said = document.createElement("li");
    said.className = "none";
    said.textContent = none;
    list.replaceChildren(said);
    return;
  }
  const most = rows[0].events || 1;
  rows.forEach((row, i) => {
    let item = list.children[i];
    if (!item || item.className === "none") {
      const fresh = document.createElement("li");
      const who = document.createElement("span");
      who.className = "who";
      const number = document.createElement("span");
      number.className = "number";
      const bar = document.createElement("span");
      bar.className = "bar";
      bar.append(document.createElement("i"));
      fresh.append(who, number, bar);
      if (item) item.replaceWith(fresh);
      else list.append(fresh);
      item = fresh;
    }
    const [who, number, bar] = item.children;
    const key = row.cut ? `${row.key}…` : row.key;
    who.textContent = row.limiter ? `${key} · ${row.limiter}` : key;
    who.title = who.textContent;
    number.textContent = count(row.events);
    bar.firstElementChild.style.width = `${(100 * row.events) / most}%`;
  });
  while (list.children.length > rows.length) list.lastElementChild.remove();
}

function draw() {
  requestAnimationFrame(draw);
  if (offset === null || document.hidden) return;
  const now = performance.now() / 1000 - offset - LAG;
  messages.draw(now);
  places.draw(now);
}
requestAnimationFrame(draw);
