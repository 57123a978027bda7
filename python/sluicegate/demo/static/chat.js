// The chat page: a tank that empties as you send and fills by itself, and a room.
// What others wrote goes into the page as text, never as markup.
import { Allowance, seconds } from "/static/allowance.js";
import { connect } from "/static/socket.js";

const LINES_KEPT = 200;
const PRESS_RATE = 50;
const PRESS_SECONDS = 3;
const REASONS = {
  rate_limit_exceeded: "That was faster than the tank fills.",
  bandwidth_exceeded: "That was more data than this minute holds.",
  message_too_large: "That message is too long.",
};

const at = (id) => document.getElementById(id);
const clock = () => performance.now() / 1000;
const calm = matchMedia("(prefers-reduced-motion: reduce)");

let allowance = null;
let shown = 1; // the water's height as drawn, 0 to 1; follows the level smoothly
let held = null; // {until, span, reason}: the gate is closed
let press = null; // {sent, through, back}: a flood from this page, while it runs
let waiting = []; // texts sent and not yet answered, oldest first
let state = "connecting";
let heldLine = null; // the last "held back" line, to count on in it

const line = connect("/chat", { onMessage, onState });

function onState(next, pause) {
  state = next;
  const link = at("link");
  link.dataset.state = next;
  if (next === "open") {
    line.send({ type: "hello" });
    link.textContent = "connected";
  } else {
    waiting = [];
    if (press) endPress();
    link.textContent = next === "connecting" ? "connecting" : next;
    if (next === "refused") {
      words(`Too many connections from here. Trying again in ${seconds(pause / 1000)}.`, true);
    } else if (next === "closed") {
      words(`The connection is gone. Trying again in ${seconds(pause / 1000)}.`, true);
    }
  }
  at("press").disabled = next !== "open";
}

function onMessage(reply) {
  if (reply.allowance) tell(reply.allowance);
  if (reply.type === "welcome") {
    at("link").textContent = `you are ${reply.you}`;
    for (const earlier of reply.recent) addMessage(earlier);
    words("Ready when you are.");
  } else if (reply.type === "message") {
    if (reply.own) settle(true, reply);
    else addMessage(reply);
  } else if (reply.type === "limited") {
    settle(false, reply);
  } else if (reply.type === "error") {
    waiting.shift();
    words(reply.reason === "missing_text" ? "There is nothing in that message." : "The server did not understand that.", true);
  }
}

// A reply to what this page sent. Replies come in the order of the messages.
function settle(admitted, reply) {
  const sent = waiting.shift();
  if (sent?.pressed && press) {
    press[admitted ? "through" : "back"] += 1;
    showPress();
    if (press.sent === press.wanted && press.through + press.back === press.sent) endPress();
  }
  if (admitted) {
    addMessage(reply);
    if (held && allowance.level(clock()) >= 1) release();
    return;
  }
  const now = clock();
  const again = reply.retry_after; // seconds; null: never
  held = { until: again === null ? now + 4 : now + again, span: again ?? 4, never: again === null, reason: reply.reason };
  const tank = at("tank");
  if (!tank.classList.contains("held")) speak(`Limited. Try again in ${seconds(held.span)}.`);
  tank.classList.add("held");
  if (sent && !sent.pressed) {
    addHeld(sent.text);
    const input = at("text");
    if (!input.value) {
      // What was held back is not lost: Enter sends it again, typing replaces it.
      input.value = sent.text;
      input.select();
    }
  } else {
    countHeld();
  }
}

function release() {
  held = null;
  emptied = false;
  at("tank").classList.remove("held");
  at("ring").classList.add("hidden");
  words("Go on, there is room again.");
  speak("You may send again.");
}

function tell(told) {
  allowance = new Allowance(told, clock());
  at("quota").textContent = told.label;
  const marks = at("marks");
  if (Number(marks.dataset.capacity) !== told.capacity) {
    marks.dataset.capacity = told.capacity;
    marks.replaceChildren();
    for (let i = 1; told.capacity <= 40 && i < told.capacity; i += 1) {
      const mark = document.createElement("i");
      mark.style.bottom = `${(100 * i) / told.capacity}%`;
      marks.append(mark);
    }
    at("tank").setAttribute("aria-valuemax", told.capacity);
    for (const of of document.querySelectorAll(".of")) of.textContent = `of ${told.capacity} left`;
  }
  figures(clock());
}

function draw() {
  requestAnimationFrame(draw);
  if (!allowance) return;
  const now = clock();
  const share = allowance.level(now) / allowance.capacity;
  shown = calm.matches ? share : shown + (share - shown) * 0.22;
  const surface = (1 - shown) * 100;
  at("water").style.transform = `translateY(${surface}%)`;
  at("wet").style.setProperty("--surface", `${surface}%`);
  figures(now);
}
requestAnimationFrame(draw);

// The numbers. Also called when the server tells something: a hidden tab draws no frames.
let lastWhole = null;
let emptied = false; // whether the notice says so
function figures(now) {
  const level = allowance.level(now);
  const whole = Math.floor(level + 1e-6);
  if (whole !== lastWhole) {
    lastWhole = whole;
    for (const left of document.querySelectorAll(".left")) left.textContent = whole;
    at("tank").setAttribute("aria-valuenow", whole);
    at("tank").setAttribute("aria-valuetext", `${whole} of ${allowance.capacity}`);
  }
  const rest = allowance.full(now);
  put("next", rest === 0 ? "all here" : `in ${seconds(allowance.next(now))}`);
  put("full", rest === 0 ? "now" : `in ${seconds(rest)}`);
  for (const soon of document.querySelectorAll(".soon")) {
    const text = whole === 0 ? `next in ${seconds(allowance.next(now))}` : "";
    if (soon.textContent !== text) soon.textContent = text;
  }
  if (held) {
    const left = held.until - now;
    if (left <= 0 && (held.never || whole >= 1)) {
      release();
    } else if (left > 0) {
      const why = REASONS[held.reason] ?? "The gate is closed.";
      words(held.never ? why : `${why} Open again in ${seconds(left)}.`, true);
      at("ring").classList.toggle("hidden", held.never);
      at("sweep").style.strokeDashoffset = 100 * (1 - left / held.span);
    }
  } else if (state === "open" && whole === 0) {
    words(`That was the last one. The next comes back in ${seconds(allowance.next(now))}.`);
    emptied = true;
  } else if (emptied) {
    emptied = false;
    words("Go on, there is room again.");
  }
}

function put(id, text) {
  const element = at(id);
  if (element.textContent !== text) element.textContent = text;
}

function words(text, bad = false) {
  put("words", text);
  at("notice").classList.toggle("held", bad);
}

function speak(text) {
  at("spoken").textContent = text;
}

// ---- the room

function element(tag, className, text) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
}

function add(row) {
  at("empty")?.remove();
  const log = at("log");
  const atEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 80;
  log.append(row);
  while (log.children.length > LINES_KEPT) log.firstElementChild.remove();
  if (atEnd) log.scrollTop = log.scrollHeight;
  return row;
}

function addMessage(message) {
  heldLine = null;
  const row = element("div", message.own ? "line own" : "line");
  row.dataset.id = message.id;
  const dot = element("span", "dot", message.from.slice(0, 1));
  dot.style.backgroundColor = `hsl(${message.hue} 48% 40%)`;
  dot.setAttribute("aria-hidden", "true");
  const bubble = element("div", "bubble");
  if (!message.own) bubble.append(element("b", "", message.from));
  bubble.append(element("p", "", message.text));
  row.append(dot, bubble);
  add(row);
}

function addHeld(text) {
  heldLine = null;
  const row = element("div", "line held");
  const bubble = element("div", "bubble");
  bubble.append(element("b", "", "not sent"), element("p", "", text));
  row.append(bubble);
  add(row);
}

function countHeld() {
  if (!heldLine?.isConnected) {
    heldLine = add(element("p", "line note"));
    heldLine.dataset.count = 0;
  }
  heldLine.dataset.count = Number(heldLine.dataset.count) + 1;
  heldLine.textContent = `${heldLine.dataset.count} held back`;
}

at("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const input = at("text");
  const text = input.value.trim();
  if (!text || !line.send({ text })) return;
  waiting.push({ text, pressed: false });
  input.value = "";
});

// ---- press hard: send at a steady rate, whatever comes back

at("press").addEventListener("click", () => {
  if (press) return;
  const wanted = PRESS_RATE * PRESS_SECONDS;
  press = { sent: 0, through: 0, back: 0, wanted };
  at("press").disabled = true;
  const start = clock();
  press.timer = setInterval(() => {
    const due = Math.min(wanted, Math.floor((clock() - start) * PRESS_RATE) + 1);
    while (press && press.sent < due) {
      const text = `press ${press.sent + 1}`;
      if (!line.send({ text })) return endPress();
      waiting.push({ text, pressed: true });
      press.sent += 1;
    }
    if (press.sent === wanted) clearInterval(press.timer);
    showPress();
    return undefined;
  }, 1000 / PRESS_RATE);
});

function showPress() {
  const { sent, through, back } = press;
  put("pressed", `${sent} pressed: ${through} came through, ${back} held back.`);
  at("through").style.flexBasis = `${(100 * through) / press.wanted}%`;
  at("back").style.flexBasis = `${(100 * back) / press.wanted}%`;
}

function endPress() {
  clearInterval(press.timer);
  press = null;
  at("press").disabled = state !== "open";
}
