// The guide's due dates in every time zone, on the days around every change of its clocks.
import assert from "node:assert/strict";
import test from "node:test";
import { dayInWords, dayOf, dueOn, endOfDay } from "@/lib/due-dates";

const HOUR = 60 * 60 * 1000;
const DAY = 24 * HOUR;
const FIRST = Date.UTC(1970, 0, 1);
const LAST = Date.UTC(2041, 0, 1);

const dayIn = (time) => new Date(time).toISOString().slice(0, 10);
const dayAt = (time) => dayOf(new Date(time).toISOString());

/** Return the days around every change of the clocks of the zone that is set. */
function daysOfChange() {
  const days = new Set();
  let before = new Date(FIRST).getTimezoneOffset();
  for (let time = FIRST; time < LAST; time += DAY) {
    const offset = new Date(time).getTimezoneOffset();
    if (offset !== before) for (let near = -3; near <= 2; near += 1) days.add(dayIn(time + near * DAY));
    before = offset;
  }
  return [...days];
}

/** Return what is wrong with a day; a day begins with its first moment, and ends where the next one begins. */
function faults(day) {
  const { due_from, due_to } = dueOn(day);
  const [from, to, end] = [due_from, due_to, endOfDay(day)].map((instant) => Date.parse(instant));
  const isSkipped = from === to; // Apia had no 30 December 2011
  const earlier = [1, HOUR / 2, HOUR, 2 * HOUR, 3 * HOUR, 6 * HOUR].map((distance) => dayAt(from - distance));
  return [
    end !== to - 1 && "the end of the day is not the end of the filter",
    !isSkipped && dayAt(from) !== day && "begins on another day",
    !isSkipped && dayAt(end) !== day && "ends on another day",
    dayAt(to) <= day && "ends too early",
    earlier.some((one) => one >= day) && "begins too late",
    dueOn(dayIn(Date.parse(`${day}T00:00Z`) + DAY)).due_from !== due_to && "the next day does not follow",
  ].filter(Boolean);
}

for (const zone of Intl.supportedValuesOf("timeZone")) {
  test(`a day is whole in ${zone}`, () => {
    process.env.TZ = zone;
    const days = ["1999-12-31", "2024-02-29", "2026-12-01", ...daysOfChange()];
    assert.deepEqual(days.map((day) => [day, ...faults(day)]).filter(([, ...found]) => found.length > 0), []);
    for (const day of ["0001-01-02", "9999-12-30"]) assert.equal(dayOf(endOfDay(day)), day);
    assert.equal(dayInWords(endOfDay("2026-12-01"), "en-US"), "Dec 1, 2026");
  });
}

test("the clocks of the zones change as they do in the world", () => {
  process.env.TZ = "Africa/Cairo"; // at the end of 26 October 2023 they went back from 24:00 to 23:00
  assert.equal(endOfDay("2023-10-26"), "2023-10-26T21:59:59.999Z");
  assert.deepEqual(dueOn("2023-04-28"), { due_from: "2023-04-27T22:00:00.000Z", due_to: "2023-04-28T21:00:00.000Z" });
});
