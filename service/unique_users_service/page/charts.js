// Lines with a band for the error, drawn by uPlot. New numbers go into the same chart.

import { byId, number } from "./show.js";

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
const HEIGHT = 230;
const charts = new Map();

/** The labels of times: by local clocks, 24 hours, with the day where it begins. */
function labels(zone) {
  const format = (options) => new Intl.DateTimeFormat("en-GB", { timeZone: zone.name, ...options });
  const time = format({ hour: "2-digit", minute: "2-digit" });
  const day = format({ day: "numeric", month: "short" });
  const month = format({ month: "short", year: "numeric" });
  return (_, ticks, __, ___, step) => {
    let before = "";
    return ticks.map((tick) => {
      const at = new Date(tick * 1000);
      if (step >= 28 * 86_400) return month.format(at);
      const date = day.format(at);
      const shown = step >= 86_400 ? date : before === date ? time.format(at) : `${time.format(at)}\n${date}`;
      before = date;
      return shown;
    });
  };
}

function options(place, lines, zone, single) {
  const axis = { stroke: colour("--quiet"), grid: { stroke: colour("--line"), width: 1 }, ticks: { stroke: colour("--line") }, font: "12px system-ui" };
  const series = [{ value: (_, time) => (time === null ? "–" : zone.full(time * 1000)) }];
  const bands = [];
  for (const line of lines) {
    const value = (_, users) => number(users);
    if (line.band) {
      bands.push({ series: [series.length + 1, series.length], fill: colour("--band") });
      series.push({ label: "at least", value, width: 0, points: { show: false } }, { label: "at most", value, width: 0, points: { show: false } });
    }
    series.push({
      label: line.label,
      value,
      stroke: colour(line.colour),
      width: line.marks ? 0 : 2,
      dash: line.dash,
      spanGaps: false,
      points: { show: line.marks || single || undefined, size: line.marks ? 10 : 5, stroke: colour(line.colour), fill: line.marks ? colour("--panel") : colour(line.colour), width: 2 },
    });
  }
  return {
    width: Math.max(place.clientWidth, 260),
    height: HEIGHT,
    tzDate: (time) => uPlot.tzDate(new Date(time * 1000), zone.name),
    scales: { x: { range: (_, first, last) => (first < last ? [first, last] : [first - 1800, first + 1800]) }, y: { range: (_, low, high) => [0, Math.max(1, high * 1.08)] } },
    axes: [{ ...axis, values: labels(zone) }, { ...axis, size: 64, values: (_, ticks) => ticks.map((tick) => (Number.isInteger(tick) ? number(tick) : "")) }],
    series,
    bands,
    legend: { live: true },
    cursor: { y: false, drag: { x: false, y: false } },
    hooks: { setCursor: [showNewest] },
  };
}

/** Draws lines of `{label, colour, band, dash, marks}` with columns of numbers: times, then those of each line. */
export function draw(id, lines, data, zone) {
  const place = byId(id);
  const single = data[0].length < 3;
  const shape = JSON.stringify([lines, single, zone.name, document.documentElement.dataset.look]);
  const known = charts.get(id);
  if (known && known.shape === shape) {
    known.chart.setData(data);
    showNewest(known.chart);
    return;
  }
  known?.chart.destroy();
  const chart = new uPlot(options(place, lines, zone, single), data, place);
  charts.set(id, { shape, lines, zone, chart });
  showNewest(chart);
}

/** Shows the newest numbers in the legend, while nobody points at others. */
function showNewest(chart) {
  if (chart.cursor.left < 0 || chart.cursor.left === undefined) chart.setLegend({ idx: chart.data[0].length - 1 });
}

/** Draws all charts anew, for another look of the page. */
export function redraw() {
  for (const [id, { lines, zone, chart }] of [...charts]) draw(id, lines, chart.data, zone);
}

new ResizeObserver(() => {
  for (const [id, { chart }] of charts) {
    const width = Math.max(byId(id).clientWidth, 260);
    if (Math.abs(width - chart.width) > 1) chart.setSize({ width, height: HEIGHT });
  }
}).observe(document.documentElement);
