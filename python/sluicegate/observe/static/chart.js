// A small moving chart: areas stacked over time, on a canvas, scrolling with the clock.
const GUTTER = 40;
const FOOT = 20;

function niceCeiling(value) {
  const power = 10 ** Math.floor(Math.log10(Math.max(value, 1)));
  for (const step of [1, 1.2, 1.6, 2, 2.4, 3.2, 4, 6, 8, 10]) if (value <= step * power) return step * power;
  return 10 * power;
}

export class Chart {
  // series: [{key, color}] with color a custom property's name; stacked from below.
  constructor(canvas, series, { span, least = 4 }) {
    this.canvas = canvas;
    this.context = canvas.getContext("2d");
    this.series = series;
    this.span = span; // seconds shown
    this.least = least; // the axis never ends below this
    this.points = []; // {at, ...values}, at in seconds of the page's clock
    this.top = least;
  }

  add(point) {
    this.points.push(point);
    const oldest = point.at - this.span - 4;
    while (this.points.length > 1 && this.points[1].at < oldest) this.points.shift();
  }

  // `now` in seconds; it lags a little behind the last sample, so that the line ends at the edge.
  draw(now) {
    const { canvas, context: c } = this;
    const scale = window.devicePixelRatio || 1;
    const width = canvas.clientWidth;
    const height = canvas.clientHeight;
    if (canvas.width !== Math.round(width * scale) || canvas.height !== Math.round(height * scale)) {
      canvas.width = Math.round(width * scale);
      canvas.height = Math.round(height * scale);
    }
    const style = getComputedStyle(canvas);
    const color = (name) => style.getPropertyValue(name).trim();
    c.setTransform(scale, 0, 0, scale, 0, 0);
    c.clearRect(0, 0, width, height);
    c.font = `11px ${style.fontFamily}`;
    c.textBaseline = "middle";

    let peak = this.least;
    for (const point of this.points) {
      let sum = 0;
      for (const { key } of this.series) sum += point[key];
      if (sum > peak) peak = sum;
    }
    const goal = niceCeiling(peak * 1.05);
    this.top += (goal - this.top) * 0.15;
    const bottom = height - FOOT;
    const x = (at) => GUTTER + (width - GUTTER) * (1 - (now - at) / this.span);
    const y = (value) => bottom - ((bottom - 8) * value) / this.top;

    c.lineWidth = 1;
    c.textAlign = "right";
    const rows = height > 150 ? 4 : 2;
    for (let i = 0; i <= rows; i += 1) {
      const value = (goal * i) / rows;
      const level = Math.round(y(value)) + 0.5;
      if (level < 0) continue;
      c.strokeStyle = color("--line");
      c.beginPath();
      c.moveTo(GUTTER, level);
      c.lineTo(width, level);
      c.stroke();
      c.fillStyle = color("--muted");
      if (Number.isInteger(value)) c.fillText(value.toLocaleString("en"), GUTTER - 8, level);
    }
    c.textAlign = "center";
    const every = this.span / 4;
    for (let back = every; back < this.span; back += every) c.fillText(`${back} s ago`, x(now - back), height - 8);
    c.textAlign = "right";
    c.fillText("now", width, height - 8);

    if (this.points.length < 2) return;
    c.save();
    c.beginPath();
    c.rect(GUTTER, 0, width - GUTTER, bottom + 1);
    c.clip();
    let below = this.points.map(() => 0);
    for (const { key, color: name } of this.series) {
      const above = this.points.map((point, i) => below[i] + point[key]);
      c.beginPath();
      this.points.forEach((point, i) => c.lineTo(x(point.at), y(above[i])));
      c.strokeStyle = color(name);
      c.lineWidth = 2;
      c.lineJoin = "round";
      const edge = new Path2D();
      this.points.forEach((point, i) => edge.lineTo(x(point.at), y(above[i])));
      for (let i = this.points.length - 1; i >= 0; i -= 1) c.lineTo(x(this.points[i].at), y(below[i]));
      c.closePath();
      c.globalAlpha = 0.3;
      c.fillStyle = color(name);
      c.fill();
      c.globalAlpha = 1;
      c.stroke(edge);
      below = above;
    }
    c.restore();
  }
}
