// Real processes under a nemesis: faults from a seed, and an offline checker that can fail.
// NEMESIS_SECONDS=1800 makes it longer, TEST_SEED=… repeats the faults of a seed.
import { strict as assert } from "node:assert";
import { ask, until } from "../support/actors.ts";
import { chance } from "../support/chance.ts";
import { needsNats } from "../support/cluster.ts";
import { findViolations } from "../support/nemesis/checker.ts";
import type { Evidence } from "../support/nemesis/evidence.ts";
import { FAULT_KINDS, kindsNamed } from "../support/nemesis/faults.ts";
import { FORGERIES } from "../support/nemesis/forgeries.ts";
import { STEP_KINDS } from "../support/nemesis/step-kinds.ts";
import { readMatrix } from "../support/nemesis/matrix.ts";
import { runNemesis, type Verdict } from "../support/nemesis/nemesis.ts";
import type { Scene } from "../support/nemesis/scene.ts";
import { summaryOf } from "../support/nemesis/summary.ts";
import { endAll, type Env } from "../support/process.ts";

/** With a rule switched off some executions never end. */
const END_MAX_MS = 15_000;
/** Outcomes of loops before the first server of such a one is killed. */
const COUNTED = 10;
const SECONDS = Number(process.env["NEMESIS_SECONDS"] ?? 45);

describe("a cluster under a nemesis", function () {
  this.timeout((SECONDS + 240) * 1_000);
  let verdict: Verdict;
  let whole: Evidence;

  before(needsNats);
  before(async () => {
    const { seed } = chance("nemesis");
    verdict = await runNemesis({ seed, faults: Infinity, seconds: SECONDS });
    process.stdout.write(`${summaryOf(verdict).replace(/^/gm, "      ")}\n`);
    whole = completedOf(verdict.evidence);
  });
  afterEach(endAll);

  it("keeps every invariant, whatever strikes", () => {
    assert.deepEqual(verdict.violations, [], verdict.seen);
    assert.ok(verdict.records.length > 5, "hardly anything struck");
    assert.ok(verdict.evidence.runs.length > 3, "hardly anything ran");
  });

  it("ran every kind of step", () => {
    const kinds = new Set(
      verdict.evidence.runs.flatMap(run => run.plan.steps).map(one => one.kind),
    );
    assert.deepEqual(kinds, new Set(STEP_KINDS.map(({ kind }) => kind)));
  });

  describe("whose checker", () => {
    it("finds nothing wrong with an execution that completed", () => {
      assert.deepEqual(findViolations(structuredClone(whole)), []);
    });
    for (const [what, forge, said] of FORGERIES) {
      it(`says so when ${what}`, () => {
        const evidence = structuredClone(whole);
        forge(evidence);
        const found = findViolations(evidence);
        assert.ok(
          found.some(violation => said.test(violation)),
          `it says ${JSON.stringify(found)}`,
        );
      });
    }
  });

  it("is described in README.md, each kind of fault", async () => {
    const matrix = await readMatrix();
    const rows = matrix.split("\n").filter(line => /^\| [^-]/.test(line));
    const named = rows.slice(1).flatMap(line => line.split("|")[1]!.trim().split(", "));
    assert.deepEqual(new Set(named), new Set(FAULT_KINDS.map(({ name }) => name)));
    assert.ok(rows.length <= 21, `${rows.length} rows`);
  });
});

describe("a rule that is switched off under a nemesis", function () {
  this.timeout(300_000);
  before(needsNats);
  afterEach(endAll);

  /** What is violated, in few executions and by few faults that are made for it. */
  async function struck(options: Partial<Parameters<typeof runNemesis>[0]>): Promise<string> {
    const { seed } = chance("switched off");
    const { violations } = await runNemesis({
      ...{ seed, faults: 2, seconds: 40, isInTurn: true, recoveryMaxMs: END_MAX_MS },
      ...options,
    });
    return violations.join("\n");
  }

  // Two owners of one stream, and outcomes of the dead, are rare here: the simulation switches off
  // versions and fences, and finds them missing in its first schedules.
  it("in our processes: counts that are folded, secrets that stay away", async () => {
    const violations = await struck({
      scene: sceneWith({ NEMESIS_SWITCH: "counts in memory,secrets in results" }),
      kinds: kindsNamed(["server killed"]),
      faults: 3,
      prepare: inTheMiddle,
    });
    assert.match(violations, /^log: stream \d+: its end says \d+ success, not/m);
    assert.match(violations, /^secret: \d+ rows of noetl\.event/m);
  });

  it("in the databases: wake-ups, and rows that are written", async () => {
    const violations = await struck({
      scene: sceneWith({}),
      kinds: kindsNamed(["worker killed"]),
      prepare: switchedOffInSql,
    });
    assert.match(violations, /^end: execution \d+: it has not ended: RUNNING/m);
    assert.match(violations, /^effects: .* is accepted, and its effect is not there/m);
  });
});

const sceneWith = (env: Env) => ({ endMaxMs: END_MAX_MS, cancelPercent: 0, workers: 2, env });

/** One completed execution with its children, from all that is left. */
function completedOf(all: Evidence): Evidence {
  const run = all.runs.find(one => one.status === "COMPLETED" && isPlain(all, one.id));
  assert.ok(run, "no execution completed without a loss");
  const { id } = run;
  const rows = all.log.rows.filter(
    row => row.execution_id === id || row.parent_execution_id === id,
  );
  const ids = new Set(rows.map(row => row.execution_id));
  const isOurs = ({ execution_id }: { execution_id: string }) => ids.has(execution_id);
  return {
    runs: [run],
    log: { rows, heads: all.log.heads.filter(isOurs), events: all.log.events.filter(isOurs) },
    proven: [],
    rows: all.rows.filter(isOurs),
    told: all.told.filter(isOurs),
    calls: all.calls.filter(call => call.execution === id),
    leaks: [],
  };
}

/** Nothing of it was done twice: then one repetition is one too many. */
function isPlain({ log, calls }: Evidence, id: string): boolean {
  const lost = new Set(["command.expired", "command.released"]);
  const children = new Set(
    log.rows.filter(row => row.parent_execution_id === id).map(row => row.execution_id),
  );
  const own = log.events.filter(
    event => event.execution_id === id || children.has(event.execution_id),
  );
  return !own.some(event => lost.has(event.event_type)) && calls.length > 0;
}

/** Loops have counted something that a server can forget. */
async function inTheMiddle({ cluster }: Scene): Promise<void> {
  const text = `select count(*)::integer as n from noetl.event
                where event_type in ('command.completed', 'frame.committed') and meta ? 'loop_id'`;
  await until(async () => {
    const [row] = await ask<{ n: number }>(cluster.store.direct, text);
    return (row?.n ?? 0) >= COUNTED;
  }, 60_000);
}

/** No wake-ups, and the row of one item of each loop is lost. */
async function switchedOffInSql({ cluster }: Scene): Promise<void> {
  await ask(
    cluster.store.direct,
    `create function noetl.asleep() returns trigger language plpgsql as $$
     begin
       if new.wake_at is not null then new.wake_at = 'infinity'; end if;
       return new;
     end $$;
     create trigger asleep before insert or update on noetl.stream
       for each row execute function noetl.asleep()`,
  );
  await ask(
    cluster.target.direct,
    `create function lose() returns trigger language plpgsql as $$
     begin
       if new.item = '1' then return null; end if;
       return new;
     end $$;
     create trigger losing before insert on effect for each row execute function lose()`,
  );
}
