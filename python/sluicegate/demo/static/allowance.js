// How much is left, now. The server tells it with each reply; between replies the same
// arithmetic goes on here, so that the gauge fills without asking.
//
// {capacity, remaining, reset_after, interval}: `interval` is seconds for one unit to come
// back, or null where all come back together when the window ends.
export class Allowance {
  constructor(told, now) {
    this.capacity = told.capacity;
    this.remaining = told.remaining;
    this.resetAfter = told.reset_after;
    this.interval = told.interval;
    this.label = told.label;
    this.at = now; // seconds, as performance.now() / 1000
  }

  full(now) {
    return Math.max(0, this.resetAfter - (now - this.at));
  }

  level(now) {
    const rest = this.full(now);
    if (rest === 0) return this.capacity;
    if (this.interval === null) return this.remaining;
    return Math.max(0, this.capacity - rest / this.interval);
  }

  next(now) {
    const rest = this.full(now);
    if (rest === 0 || this.interval === null) return rest;
    const level = this.capacity - rest / this.interval;
    return (Math.floor(level + 1e-6) + 1 - level) * this.interval;
  }
}

export function seconds(value) {
  if (value >= 3600) return `${(value / 3600).toFixed(1)} h`;
  if (value >= 90) return `${Math.ceil(value / 60)} min`;
  if (value >= 10) return `${Math.ceil(value)} s`;
  if (value >= 1) return `${value.toFixed(1)} s`;
  return `${Math.ceil(value * 100) / 100} s`;
}
