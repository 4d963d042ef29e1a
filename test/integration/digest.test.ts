// The digest of a loop: what a process hashes is what Postgres can hash again from its table.
import { strict as assert } from "node:assert";
import { hash } from "node:crypto";
import { encode } from "../../mixins/postgres/encode.ts";
import { jsonbText } from "../../schemas/jsonb-text.ts";
import { digestOf, digestText } from "../../schemas/loop-digest.ts";
import { ask, seeded } from "../support/actors.ts";
import { testDatabase, type TestDatabase } from "../support/postgres.ts";

const SEED = Number(process.env["TEST_SEED"] ?? Date.now() % 100_000);
const VALUES = 3_000;

/** Pieces that have a way of their own through JSON, UTF-8 and decimals. */
const TEXTS = [
  ...[
    "",
    "a",
    "b",
    "aa",
    "Ä",
    "é",
    "€",
    "𝄞",
    "\u2028",
    "\u007f",
    "\u0001\u001f",
    '"\\/',
    "\n\r\t\b\f",
  ],
  ...[
    "a\0b",
    "\ud800",
    "x\udc00y",
    "10",
    "9",
    "-1",
    "__proto__",
    "toJSON",
    "\ufffd",
    "\uffff",
    "𐀀",
  ],
];
const NUMBERS = [
  ...[0, -0, 1, -1, 0.1, 1.5e-7, 1e-7, -2.5e-10, 5e-324, 1e21, -1.25e22, 1.7976931348623157e308],
  ...[Number.MAX_SAFE_INTEGER, 2 ** 53, 2 ** 63, 2 ** 70, NaN, Infinity],
];

function randomValue(random: () => number, depth: number): unknown {
  const pick = <T>(list: readonly T[]): T => list[Math.floor(random() * list.length)] as T;
  const kind = random();
  if (kind < 0.25) return pick(TEXTS) + pick(TEXTS);
  if (kind < 0.45)
    return random() < 0.6 ? pick(NUMBERS) : (random() - 0.5) * 10 ** pick([0, 9, 20, -9]);
  if (kind < 0.55 || depth === 0) return pick([null, true, false, undefined, new Date(0)]);
  const members = Array.from({ length: Math.floor(random() * 6) }, () =>
    randomValue(random, depth - 1),
  );
  if (kind < 0.7) return members;
  return Object.fromEntries(members.map(value => [pick(TEXTS) + pick(TEXTS), value]));
}

describe("the digest of a loop", function () {
  this.timeout(60_000);
  let database: TestDatabase;
  before(async () => {
    database = await testDatabase({ migrated: true });
  });
  after(() => database.drop());

  it(`prints a value as Postgres prints the jsonb that it becomes (seed ${SEED})`, async () => {
    const random = seeded(SEED);
    const values = Array.from({ length: VALUES }, () => randomValue(random, 4));
    const rows = await ask<{ text: string }>(
      database.url,
      `select value::text as text
       from unnest($1::jsonb[]) with ordinality as v(value, at) order by at`,
      [values.map(value => encode(value ?? null))],
    );
    for (const [index, value] of values.entries()) {
      assert.equal(jsonbText(value), rows[index]?.text, `value ${index}: ${JSON.stringify(value)}`);
    }
  });

  it("is the documented sum, and does not depend on the order of acceptance", () => {
    const result = { status: "ok" as const, context: { b: 1, a: [true] } };
    const stored = hash("sha256", '{"status": "ok", "context": {"a": [true], "b": 1}}');
    const first = (text: string) => BigInt(`0x${hash("sha256", text).slice(0, 32)}`);
    const sum = first(`7:2:ok:${stored}`) + first(`9:2:failed:${stored}`);
    const digest = digestOf({ attempt: 2, result, ok: [7], failed: [9] });
    assert.equal(digest, sum % (1n << 128n));
    const parts = [[9], [7]].map(one =>
      one[0] === 7
        ? digestOf({ attempt: 2, result, ok: one, failed: [] })
        : digestOf({ attempt: 2, result, ok: [], failed: one }),
    );
    assert.equal(parts.reduce((one, other) => one + other) % (1n << 128n), digest);
  });

  it("carries over from word to word in SQL as it does here", async () => {
    const words = [3n, 2n ** 40n + 5n, 2n ** 33n - 1n, 2n ** 62n + 7n];
    const whole = words.reduce((sum, word) => (sum << 32n) + word, 0n) % (1n << 128n);
    const [row] = await ask<{ text: string }>(
      database.url,
      "select noetl.digest_text($1, $2, $3, $4) as text",
      words.map(String),
    );
    assert.equal(row?.text, digestText(whole));
  });
});
