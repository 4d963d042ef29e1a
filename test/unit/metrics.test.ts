// The registry of metrics, and the strictness of the reader that the tests trust.
import { strict as assert } from "node:assert";
import { countQuarantined } from "../../services/executions/count.ts";
import { CountsBy, createMetrics, Histogram } from "../../mixins/metrics.ts";
import type { StoredEvent } from "../../schemas/events.ts";
import { parseExposition } from "../support/exposition.ts";

const family = (name: string) => ({ name, help: "words" });

describe("metrics", () => {
  it("are read when they are asked for, from every source of a family", async () => {
    const metrics = createMetrics();
    let value = 1;
    metrics.counter(family("noetl_things_total"), () => [{ labels: { kind: "a" }, value }]);
    metrics.counter(family("noetl_things_total"), () => [{ labels: { kind: "b" }, value: 7 }]);
    value = 5;
    const { samples, types } = parseExposition(await metrics.render());
    assert.equal(types.get("noetl_things_total"), "counter");
    assert.equal(samples.get('noetl_things_total{kind="a"}'), 5);
    assert.equal(samples.get('noetl_things_total{kind="b"}'), 7);
  });

  it("escape what labels and words may hold", async () => {
    const metrics = createMetrics();
    const help = "back\\slash and\nline";
    metrics.gauge({ name: "noetl_odd", help }, () => [
      { labels: { path: 'a"b\\c\nd' }, value: Infinity },
    ]);
    const { samples } = parseExposition(await metrics.render());
    assert.deepEqual([...samples], [['noetl_odd{path="a\\"b\\\\c\\nd"}', Infinity]]);
  });

  it("leave out a source that fails, and one that takes too long", async () => {
    const metrics = createMetrics();
    metrics.gauge(family("noetl_broken"), () => Promise.reject(new Error("away")));
    metrics.gauge(family("noetl_slow"), () => new Promise(() => undefined));
    metrics.gauge(family("noetl_good"), () => 3);
    const { samples } = parseExposition(await metrics.render());
    assert.deepEqual([...samples], [["noetl_good", 3]]);
  });

  it("count durations by upper bounds, the bound included", async () => {
    const metrics = createMetrics();
    const histogram = new Histogram([0.1, 1]);
    for (const seconds of [0.05, 0.1, 0.2, 5]) histogram.observe(seconds);
    metrics.histogram(family("noetl_wait_seconds"), () => histogram);
    const { samples } = parseExposition(await metrics.render());
    assert.equal(samples.get('noetl_wait_seconds_bucket{le="0.1"}'), 2);
    assert.equal(samples.get('noetl_wait_seconds_bucket{le="1"}'), 3);
    assert.equal(samples.get('noetl_wait_seconds_bucket{le="+Inf"}'), 4);
    assert.equal(samples.get("noetl_wait_seconds_sum"), 5.35);
  });

  it("show every label of a closed set from the start, and keep the set closed", () => {
    const counts = new CountsBy("status", ["ok", "bad"]);
    const shown = () => counts.samples().map(({ labels, value }) => [labels?.["status"], value]);
    assert.deepEqual(shown(), [
      ["ok", 0],
      ["bad", 0],
    ]);
    for (const word of ["ok", "ok", "x1", "x2"]) counts.add(word);
    assert.deepEqual(shown(), [
      ["ok", 2],
      ["bad", 0],
      ["other", 2],
    ]);
  });

  it("have at most a thousand series a family", async () => {
    const metrics = createMetrics();
    const many = Array.from({ length: 5_000 }, (_, n) => ({ labels: { id: String(n) }, value: n }));
    metrics.gauge(family("noetl_many"), () => many);
    assert.equal(parseExposition(await metrics.render()).samples.size, 1_000);
  });

  it("refuse names that say something else than they are", () => {
    const metrics = createMetrics();
    assert.throws(() => metrics.counter(family("noetl_things"), () => 1), /no name of a counter/);
    assert.throws(() => metrics.gauge(family("noetl_x_total"), () => 1), /no name of a gauge/);
    assert.throws(() => metrics.gauge(family("things"), () => 1), /no name/);
    metrics.gauge(family("noetl_x"), () => 1);
    assert.throws(
      () => metrics.histogram(family("noetl_x"), () => new Histogram([])),
      /is a gauge/,
    );
  });

  it("count what is quarantined, be it a command or a shard of a fan-out", async () => {
    const metrics = createMetrics();
    const tell = countQuarantined(metrics);
    for (const event_type of ["command.failed", "loop.shard.failed"]) {
      for (const code of ["WORKER_LOST", "HTTP_500"]) {
        tell([{ event_type, result: { error: { code } } } as StoredEvent]);
      }
    }
    const { samples } = parseExposition(await metrics.render());
    assert.equal(samples.get("noetl_commands_quarantined_total"), 2);
  });
});

describe("the reader of metrics in tests", () => {
  const good = "# HELP a words\n# TYPE a counter\na 1\n";
  it("takes what is right", () => {
    assert.equal(parseExposition(good).samples.get("a"), 1);
  });
  for (const [what, text] of Object.entries({
    "a line without an end": good.slice(0, -1),
    "a series twice": `${good}a 2\n`,
    "a family twice": `${good}# TYPE a counter\n`,
    "a sample before its type": "a 1\n",
    "a sample of another family": `${good}b 1\n`,
    "a type that is none": "# TYPE a number\n",
    "an open quote": '# TYPE a gauge\na{x="1} 1\n',
    "a word for a number": "# TYPE a gauge\na one\n",
    "a counter below zero": "# TYPE a counter\na -1\n",
    "a blank line": `${good}\n`,
    "a histogram whose buckets fall":
      '# TYPE a histogram\na_bucket{le="1"} 2\na_bucket{le="+Inf"} 1\na_sum 1\na_count 1\n',
    "a histogram without its end": '# TYPE a histogram\na_bucket{le="1"} 2\na_sum 1\na_count 2\n',
  })) {
    it(`refuses ${what}`, () => assert.throws(() => parseExposition(text)));
  }
});
