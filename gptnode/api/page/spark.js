// The last minute of a number as a small curve.

const POINTS = 60;
const HEIGHT = 32;
const WIDTH = 120;

export class Spark {
  #values = Array(POINTS).fill(0);
  #line;
  #area;

  constructor(picture) {
    this.#line = picture.querySelector(".spark-line");
    this.#area = picture.querySelector(".spark-area");
  }

  /** One more second. */
  add(value) {
    this.#values.push(value);
    this.#values.shift();
    const most = Math.max(1, ...this.#values);
    const points = this.#values.map((each, index) => {
      const x = (index * WIDTH) / (POINTS - 1);
      return `${x.toFixed(1)} ${(HEIGHT - 2 - (each / most) * (HEIGHT - 8)).toFixed(1)}`;
    });
    const path = this.#values.some(Boolean) ? `M ${points.join(" L ")}` : "";
    this.#line.setAttribute("d", path);
    this.#area.setAttribute("d", path ? `${path} V ${HEIGHT} H 0 Z` : "");
  }
}
