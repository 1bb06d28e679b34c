// Numbers, ages and moments as a person reads them. The rules are those of telemetry/units.py.

import { isChinese, word } from "./words.js";

const PREFIXES = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei", "Zi"];
const PREFIXED = new Set(["B", "B/s"]);
const BARE = new Set(["", "1"]);

const grouped = new Map();

function digitsUpTo(most) {
  if (!grouped.has(most)) grouped.set(most, new Intl.NumberFormat("en", { maximumFractionDigits: most }));
  return grouped.get(most);
}

/** A number with its unit: `1.5 GiB`, `37.5 %`, `12`. At most `digits` stand behind its point. */
export function formatNumber(value, unit, digits = 9) {
  if (typeof value !== "number") return "–";
  if (PREFIXED.has(unit)) return prefixed(value, unit);
  if (unit === "") return String(value); // a number by name, such as a sector's
  const text = digitsUpTo(digits).format(value);
  return BARE.has(unit) ? text : `${text} ${unit}`;
}

function prefixed(value, unit) {
  let power = 0;
  while (Math.abs(value) >= 1024 && power < PREFIXES.length - 1) {
    value /= 1024;
    power += 1;
  }
  return `${value.toFixed(power && Math.abs(value) < 100 ? 1 : 0)} ${PREFIXES[power]}${unit}`;
}

const AGE_UNITS = { en: ["s", "min", "h", "d"], zh: ["秒", "分钟", "小时", "天"] };

/** How long, in the two largest units: `4 s`, `3 min`, `2 h 05 min`, `6 d 1 h`. */
export function formatAge(ms) {
  const [s, min, h, d] = AGE_UNITS[isChinese() ? "zh" : "en"];
  const whole = Math.max(0, Math.floor(ms / 1000));
  if (whole < 120) return `${whole} ${s}`;
  const [minutes, hours, days] = [Math.floor(whole / 60), Math.floor(whole / 3600), Math.floor(whole / 86400)];
  if (minutes < 60) return `${minutes} ${min}`;
  if (hours < 48) return `${hours} ${h} ${String(minutes % 60).padStart(2, "0")} ${min}`;
  return `${days} ${d} ${hours % 24} ${h}`;
}

const two = (number) => String(number).padStart(2, "0");

/** A moment (Unix ms) in local time, to the second. */
export function formatMoment(ms) {
  const at = new Date(ms);
  if (Number.isNaN(at.getTime())) return `${ms} ms`;
  return `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${formatClock(ms)}`;
}

/** The time of day of a moment (Unix ms) in local time, to the second. */
export function formatClock(ms) {
  const at = new Date(ms);
  return `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
}

/** A value of a field or of a member, by its declaration; composites in one line. */
export function formatValue(declared, value) {
  if (value === undefined || value === null) return "–";
  if (typeof value === "boolean") return word(value ? "yes" : "no");
  if (typeof value === "number") return declared?.unit === "ms" ? formatMoment(value) : formatNumber(value, declared?.unit ?? "");
  if (typeof value === "object") return JSON.stringify(value);
  return value === "" ? '""' : String(value);
}
