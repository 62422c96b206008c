// The page: what happens now, and answers to what is asked.

import { address, ask, download, follow, Refusal, token } from "./api.js";
import { draw, redraw } from "./charts.js";
import { between, byId, clock, inputTime, make, number, percent, seconds, setTable, setText } from "./show.js";

const ACCOUNTING_SECONDS = 2;
const RETRY_SECONDS = [1, 2, 5, 10];
const page = { zone: "UTC", about: null, live: null, finals: new Map(), corrected: new Set(), asked: 0 };

const zoneOf = () => ({ name: page.zone, full: clock(page.zone) });

function say(problem) {
  const place = byId("problem");
  place.hidden = !problem;
  if (place.textContent !== problem) place.textContent = problem;
}

/** Runs a question; what is refused is said on the page. */
async function attempt(question) {
  try {
    const found = await question();
    say("");
    return found;
  } catch (error) {
    if (!(error instanceof Refusal) && !(error instanceof TypeError)) throw error;
    if (error.status === 401) byId("token-form").hidden = false;
    say(error instanceof Refusal ? error.message : "The service can't be reached.");
    return null;
  }
}

function connection(state, text) {
  byId("connection").dataset.state = state;
  setText("connection-text", text);
}

// ---- what happens now

function showLive(live) {
  page.live = live;
  const minutes = live.minutes;
  const last = minutes.at(-1);
  setText("together", number(live.together?.unique_users));
  setText("together-error", between(live.together));
  setText("newest", number(last?.unique_users));
  setText("newest-error", last ? `${between(last)}${last.complete ? "" : ", still open"}` : "");
  setText("live-events", number(live.together?.events));
  setText("now-final", live.final_until ? `final until ${clock(page.zone)(live.final_until)}` : "nothing is final yet");
  for (const minute of minutes) {
    const before = page.finals.get(minute.from);
    if (before !== undefined && before < minute.revision) page.corrected.add(minute.from);
    if (minute.complete) page.finals.set(minute.from, minute.revision);
  }
  const pick = (keep, name) => minutes.map((minute, index) => (keep(minute, index) ? minute[name] : null));
  const firstOpen = minutes.findIndex((minute) => !minute.complete);
  // The line of open minutes begins at the last final one.
  const open = (_, index) => firstOpen >= 0 && index >= firstOpen - 1;
  const data = [
    minutes.map((minute) => seconds(minute.from)),
    pick(() => true, "low"),
    pick(() => true, "high"),
    pick((minute) => minute.complete, "unique_users"),
    pick(open, "unique_users"),
    pick((minute) => page.corrected.has(minute.from), "unique_users"),
  ];
  const lines = [
    { label: "users", colour: "--series-1", band: true },
    { label: "still open", colour: "--series-1", dash: [5, 4] },
    { label: "corrected", colour: "--series-3", marks: true },
  ];
  if (minutes.length) draw("live-chart", lines, data, zoneOf());
  byId("live-chart").setAttribute(
    "aria-label",
    `Users of each of the last 30 minutes; the newest has ${number(last?.unique_users)}, all together ${number(live.together?.unique_users)}`,
  );
  const time = clock(page.zone, "time");
  const state = (minute) => (page.corrected.has(minute.from) ? "corrected" : minute.complete ? "final" : "open");
  const rows = minutes.map((minute) => [time(minute.from), number(minute.unique_users), between(minute), number(minute.events), state(minute)]);
  setTable("live-table", "The last 30 minutes", ["minute", "users", "95 % between", "events", "state"], rows.reverse());
}

async function keepLive() {
  for (let failures = 0; ; failures += 1) {
    try {
      await follow("v1/live", (live) => {
        if (failures || !page.live) connection("live", "live");
        failures = 0;
        showLive(live);
        if (!page.about?.first && live.minutes.length) start();
      });
    } catch (error) {
      if (error.status === 401) byId("token-form").hidden = false;
    }
    connection("away", "not connected, trying again");
    await new Promise((resolve) => setTimeout(resolve, 1000 * RETRY_SECONDS[Math.min(failures, RETRY_SECONDS.length - 1)]));
  }
}

// ---- any range

const range = () => ({ from: byId("from").value, to: byId("to").value, timezone: page.zone });

async function showRange() {
  const number_ = (page.asked += 1);
  const period = byId("period").value;
  const [united, series] = (await attempt(() => Promise.all([ask("v1/unique-users", range()), ask("v1/series", { ...range(), period })]))) ?? [];
  if (!united || number_ !== page.asked) return;
  setText("range-users", number(united.unique_users));
  setText("range-error", between(united));
  setText("range-events", number(united.events));
  setText("range-state", united.complete ? "complete: only corrections can change it" : "not all of it is final");
  const used = Object.entries(united.united_from).map(([name, count]) => `${number(count)} ${name}${count === 1 ? "" : "s"}`);
  setText("range-from", used.length ? `united from ${used.join(", ")}` : "no events");
  byId("series-csv").href = address("v1/series", { ...range(), period, format: "csv" });
  const points = series.points;
  const data = [points.map((point) => seconds(point.from)), points.map((point) => point.low), points.map((point) => point.high), points.map((point) => point.unique_users)];
  draw("series-chart", [{ label: "users", colour: "--series-1", band: true }], data, zoneOf());
  byId("series-chart").setAttribute("aria-label", `Users of each ${period}: ${points.length} points; all together ${number(united.unique_users)}`);
  const rows = points.map((point) => [point.name, number(point.unique_users), between(point), number(point.events), point.complete ? "final" : "open"]);
  setTable("series-table", `Users by ${period}`, [period, "users", "95 % between", "events", "state"], rows);
  remember();
  await showBreakdown();
}

function setRange(hours) {
  const last = Date.parse(page.about.last);
  const begin = hours ? last - 3_600_000 * hours : Date.parse(page.about.first);
  byId("from").value = inputTime(page.zone, begin);
  byId("to").value = inputTime(page.zone, last);
  const days = (last - begin) / 86_400_000;
  byId("period").value = hours === 1 ? "minute" : days <= 2 ? "hour" : days <= 120 ? "day" : days <= 800 ? "week" : "month";
}

// ---- rolling days, retention, groups

async function showRolling() {
  const last = Date.parse(page.about.last);
  const from = inputTime(page.zone, Math.max(Date.parse(page.about.first), last - 90 * 86_400_000)).slice(0, 10);
  const found = await attempt(() => ask("v1/rolling", { from, to: inputTime(page.zone, last), days: "1,7,28", timezone: page.zone }));
  if (!found) return;
  const points = found.points;
  const newest = points.at(-1);
  for (const [id, days] of [["dau", 1], ["wau", 7], ["mau", 28]]) setText(id, number(newest?.active[days].unique_users));
  const stickiness = newest?.stickiness;
  setText("stickiness", percent(stickiness?.value));
  setText("stickiness-error", stickiness ? `${percent(stickiness.low)} to ${percent(stickiness.high)}` : "");
  const column = (days) => points.map((point) => point.active[days].unique_users);
  const lines = [
    { label: "28 days", colour: "--series-1" },
    { label: "7 days", colour: "--series-2" },
    { label: "1 day", colour: "--series-3" },
  ];
  draw("rolling-chart", lines, [points.map((point) => seconds(point.from)), column(28), column(7), column(1)], zoneOf());
  const rows = points.map((point) => [point.day, ...[1, 7, 28].map((days) => number(point.active[days].unique_users)), percent(point.stickiness?.value)]);
  setTable("rolling-table", "Users of the last days, day by day", ["day", "DAU", "WAU", "MAU", "DAU / MAU"], rows.reverse());
}

async function showRetention() {
  const period = byId("retention-period").value;
  const found = await attempt(() => ask("v1/retention", { period, periods: 8, timezone: page.zone }));
  if (!found) return;
  const heads = [period, "users", ...found.cohorts.slice(1).map((_, index) => `${index + 1} later`)];
  const dark = document.documentElement.dataset.look === "dark";
  const rows = found.cohorts
    .filter((cohort) => cohort.unique_users)
    .map((cohort) => [
      cohort.name,
      number(cohort.unique_users),
      ...cohort.came_again.map((later) => {
        const cell = make("td", [percent(later.share), make("small", `${percent(later.low_share)}–${percent(later.high_share)}`)], { class: "heat" });
        const strength = Math.min(1, later.share ?? 0) * 0.85;
        cell.style.background = `rgba(var(--heat), ${strength})`;
        if (!dark && strength > 0.45) cell.style.color = "#fff";
        return cell;
      }),
    ]);
  setTable("retention-table", `Of the users of each ${period}, how many came again in later ones`, heads, rows);
  setText("retention-note", found.note);
}

async function showBreakdown() {
  const groups = page.about.breakdowns;
  byId("breakdown").hidden = !groups.length;
  if (!groups.length) return;
  const select = byId("breakdown-by");
  const names = groups.map((group) => group.join(","));
  if ([...select.options].map((option) => option.value).join() !== names.join()) select.replaceChildren(...names.map((name) => make("option", name)));
  const found = await attempt(() => ask("v1/breakdown", { ...range(), by: select.value }));
  if (!found) return;
  const most = Math.max(1, ...found.parts.filter((part) => !part.other).map((part) => part.unique_users));
  const name = (part) => (part.other ? "all others" : Object.values(part.group).map((value) => value ?? "none").join(", "));
  const bar = (part) => {
    const drawn = make("span", "", { class: "bar", "aria-hidden": "true" });
    drawn.style.width = `${9 * Math.min(1, part.unique_users / most)}rem`;
    return drawn;
  };
  const rows = found.parts.map((part) => [name(part), number(part.unique_users), between(part), number(part.events), bar(part)]);
  setTable("breakdown-table", `Users by ${select.value}`, [select.value, "users", "95 % between", "events", ""], rows);
  const twice = found.counted_more_than_once;
  setText(
    "breakdown-note",
    `The parts add up to ${number(found.sum_of_parts)}; together they are ${number(found.union.unique_users)} users. ` +
      `The difference, ${number(twice.unique_users)} (± ${number(twice.standard_error_at_most)}), was counted in more than one part.`,
  );
}

// ---- where every event went

const WORDS = { counted: "counted", rejected: "rejected", late: "late", in_open_windows: "in open windows", filtered: "filtered" };

async function showAccounting() {
  let found;
  try {
    found = await ask("v1/accounting");
  } catch {
    return; // the connection's state says it
  }
  const job = found.job;
  setText("accounting-state", job ? `${number(job.events.read)} events read in this run of the job` : found.problem);
  const parts = job ? Object.entries(WORDS).filter(([kind]) => job.events[kind] !== undefined) : [];
  const bar = byId("accounting-bar");
  bar.hidden = !job;
  for (const [kind] of parts) {
    let piece = bar.querySelector(`.${kind}`);
    if (!piece) bar.append((piece = make("span", "", { class: kind })));
    piece.style.flexGrow = job.events[kind];
  }
  if (job) bar.setAttribute("aria-label", parts.map(([kind, word]) => `${word} ${number(job.events[kind])}`).join(", "));
  const read = Math.max(1, job?.events.read ?? 0);
  const rows = [];
  for (const [kind, word] of parts) {
    rows.push([make("th", [make("span", "", { class: `swatch ${kind}` }), word], { scope: "row" }), number(job.events[kind]), percent(job.events[kind] / read), ""]);
    if (kind !== "rejected") continue;
    for (const [reason, count] of Object.entries(job.rejected_by_reason ?? {})) {
      if (!count) continue;
      const link = found.rejects_topic ? make("button", "examples", { class: "link", "data-reason": reason, "aria-label": `examples of ${reason}` }) : "";
      rows.push([make("th", `\u2003${reason}`, { scope: "row" }), number(count), percent(count / read), link]);
    }
  }
  rows.push(["in the tables, all runs", number(found.events_in_tables), "", ""]);
  setTable("accounting-table", "Events by what became of them", ["what", "events", "share", ""], rows);
  const figures = [];
  if (job) {
    figures.push(["unread records", number(job.lag_records)]);
    if (job.progress) figures.push(["read up to", clock(page.zone)(job.progress * 1000)]);
    if (job.input_events_per_second !== undefined) figures.push(["events a second", number(Math.round(job.input_events_per_second))]);
    if (job.corrections !== undefined) figures.push(["corrections", number(job.corrections)]);
  }
  const text = JSON.stringify(figures);
  const place = byId("job");
  if (place.dataset.drawn !== text) {
    place.dataset.drawn = text;
    place.replaceChildren(...figures.map(([term, value]) => make("div", [make("dt", term), make("dd", make("span", value, { class: "big" }))])));
  }
}

async function showRejects(reason) {
  const found = await attempt(() => ask("v1/rejects", { reason, limit: 20 }));
  if (!found) return;
  setText("rejects-title", `Rejected: ${reason}`);
  const items = found.rejects.map((reject) =>
    make("article", [
      make("p", `${reject.topic ?? "?"}, partition ${reject.partition ?? "?"}, offset ${reject.offset ?? "?"}, arrived ${reject.arrival_time ?? "?"}`, { class: "quiet" }),
      make("pre", reject.value + (reject.shortened ? "…" : ""), { tabindex: "0" }),
    ]),
  );
  byId("rejects-list").replaceChildren(...(items.length ? items : [make("p", "None of them is among the newest ones of the topic.")]));
  byId("rejects").showModal();
}

// ---- the page itself

function setLook(look) {
  const dark = look ? look === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  document.documentElement.dataset.look = dark ? "dark" : "light";
  redraw();
}

/** Keeps zone and range in the address, so that it can be sent to others. */
function remember() {
  const kept = new URLSearchParams({ zone: page.zone, from: byId("from").value, to: byId("to").value, by: byId("period").value });
  history.replaceState(null, "", `#${kept}`);
}

function fillZones() {
  const own = Intl.DateTimeFormat().resolvedOptions().timeZone;
  const zones = [...new Set([page.zone, page.about.timezone, "UTC", own, ...page.about.timezones])].filter(Boolean);
  byId("zone").replaceChildren(...zones.map((name) => make("option", name)));
  byId("zone").value = page.zone;
}

async function start() {
  const about = await attempt(() => ask("v1/about"));
  if (!about) return;
  const first = !page.about?.first;
  page.about = about;
  const kept = new URLSearchParams(location.hash.slice(1));
  if (first) {
    page.zone = kept.get("zone") ?? about.timezone;
    fillZones();
  }
  setText("version", `unique-users ${about.version}`);
  if (!about.first) {
    say("There is no data yet.");
    return;
  }
  if (kept.get("from") && kept.get("to")) {
    byId("from").value = kept.get("from");
    byId("to").value = kept.get("to");
    byId("period").value = kept.get("by") ?? "day";
  } else {
    setRange(24);
  }
  await Promise.all([showRange(), showRolling(), showRetention()]);
}

byId("look").value = localStorage.getItem("look") ?? "";
setLook(byId("look").value);
byId("look").addEventListener("change", (event) => {
  localStorage.setItem("look", event.target.value);
  setLook(event.target.value);
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => setLook(byId("look").value));
byId("zone").addEventListener("change", async (event) => {
  const begin = byId("from").value;
  const old = page.zone;
  page.zone = event.target.value;
  if (page.live) showLive(page.live);
  if (begin && old !== page.zone) await Promise.all([showRange(), showRolling(), showRetention()]);
});
byId("range-form").addEventListener("submit", (event) => {
  event.preventDefault();
  showRange();
});
document.querySelector(".quick").addEventListener("click", async (event) => {
  const hours = event.target.dataset.hours;
  if (hours === undefined) return;
  page.about = (await attempt(() => ask("v1/about"))) ?? page.about;
  setRange(Number(hours));
  showRange();
});
byId("period").addEventListener("change", () => showRange());
byId("series-csv").addEventListener("click", async (event) => {
  if (!token.read()) return; // a plain link will do
  event.preventDefault();
  const url = URL.createObjectURL(await attempt(() => download(event.target.href)));
  Object.assign(document.createElement("a"), { href: url, download: "unique-users.csv" }).click();
  URL.revokeObjectURL(url);
});
byId("retention-period").addEventListener("change", () => showRetention());
byId("breakdown-by").addEventListener("change", () => showBreakdown());
byId("accounting-table").addEventListener("click", (event) => {
  if (event.target.dataset.reason) showRejects(event.target.dataset.reason);
});
byId("token-form").addEventListener("submit", (event) => {
  event.preventDefault();
  token.keep(byId("token").value);
  byId("token-form").hidden = true;
  start();
});

keepLive();
start();
showAccounting();
setInterval(showAccounting, 1000 * ACCOUNTING_SECONDS);
