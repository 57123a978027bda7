// A WebSocket that comes back: JSON in, JSON out, and a word on how it stands.
const FIRST_WAIT_MS = 500;
const LONGEST_WAIT_MS = 15000;
const REFUSED = 1008;

export function connect(path, { onMessage, onState }) {
  let socket = null;
  let wait = FIRST_WAIT_MS;

  function open() {
    onState("connecting", 0);
    const url = new URL(path, location.href);
    url.protocol = location.protocol === "https:" ? "wss:" : "ws:";
    socket = new WebSocket(url);
    socket.addEventListener("open", () => onState("open", 0));
    socket.addEventListener("message", (event) => {
      wait = FIRST_WAIT_MS;
      onMessage(JSON.parse(event.data));
    });
    socket.addEventListener("close", (event) => {
      // Refused as one too many: knocking again at once would only be refused again.
      const refused = event.code === REFUSED;
      const pause = refused ? Math.max(wait, 5000) : wait;
      wait = Math.min(wait * 2, LONGEST_WAIT_MS);
      onState(refused ? "refused" : "closed", pause);
      setTimeout(open, pause);
    });
  }

  open();
  return {
    get open() {
      return socket.readyState === WebSocket.OPEN;
    },
    send(value) {
      if (socket.readyState !== WebSocket.OPEN) return false;
      socket.send(JSON.stringify(value));
      return true;
    },
  };
}
