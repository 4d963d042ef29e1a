// Python processes: many tasks, few processes, and a failure of one is a failure of that one.
import { strict as assert } from "node:assert";
import { until } from "../support/actors.ts";
import { pythonBench, type PythonBench } from "../support/python-tool.ts";
import { needsPython } from "../support/python.ts";

/** Whether a process is there. */
function lives(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
}

describe("the processes of tool.python", function () {
  this.timeout(60_000);
  const benches: PythonBench[] = [];

  before(async function () {
    await needsPython(this);
  });
  afterEach(async () => {
    for (const bench of benches.splice(0)) await bench.stop();
  });

  async function open(options: Parameters<typeof pythonBench>[0] = {}): Promise<PythonBench> {
    const bench = await pythonBench(options);
    benches.push(bench);
    return bench;
  }

  const PID = "result = os.getpid()";

  it("are used again, each task with a namespace of its own", async () => {
    const bench = await open();
    const first = await bench.run(
      "left = 1\nimport sys\nsys.argv.append('x')\nos.chdir('/')\nresult = os.getpid()",
    );
    const second = await bench.run(
      "result = [os.getpid(), 'left' in globals(), os.getcwd() == '/']",
    );
    assert.deepEqual(second.data, [first.data, false, false]);
    assert.deepEqual(await bench.stats(), { idle: 1, busy: 0, started: 1 });
  });

  it("200 tasks at once share them, and every result is the right one", async () => {
    const bench = await open({ processes: 3 });
    const code = "print(n)\nresult = [n, os.getpid()]";
    const runs = Array.from({ length: 200 }, (_, n) => bench.run(code, { input: { n } }));
    const found = (await Promise.all(runs)).map(({ data }) => data as [number, number]);
    assert.deepEqual(
      found.map(([n]) => n),
      runs.map((_, n) => n),
    );
    assert.ok(new Set(found.map(([, pid]) => pid)).size <= 3);
    assert.equal((await bench.stats()).started, 3);
  });

  it("beyond their queue a task is told to wait", async () => {
    const bench = await open({ processes: 1, queueMax: 1 });
    const code = "import time\ntime.sleep(0.2)\nresult = 1";
    const runs = await Promise.allSettled([1, 2, 3].map(() => bench.run(code)));
    assert.deepEqual(
      runs.map(run => run.status),
      ["fulfilled", "fulfilled", "rejected"],
    );
    assert.equal((runs[2] as PromiseRejectedResult).reason.type, "BUSY");
  });

  it("whatever a task prints, and by whatever way, its result arrives", async () => {
    const bench = await open();
    const code = `
import subprocess, sys
print("\\x00\\x00\\x00\\x02{}" * 1000)
os.write(1, b"raw")
subprocess.run(["echo", "child"], check=True)
print("err", file=sys.stderr)
sys.stdout = None
result = "arrived"`;
    const { data } = await bench.run(code);
    assert.equal(data, "arrived");
    const { data: next } = await bench.run("print('mine')");
    assert.deepEqual(next, { stdout: "mine\n", stderr: "" });
    assert.equal((await bench.stats()).started, 1);
  });

  it("what a task prints without end is kept within a bound", async () => {
    const bench = await open({ outputMaxBytes: 1_000 });
    const { data } = await bench.run("for n in range(200_000): print('line', n)");
    const { stdout } = data as { stdout: string };
    assert.match(stdout, /^line 0\n[^]*bytes left out[^]*line 199999\n$/);
    assert.ok(stdout.length < 1_100, `${stdout.length} characters`);
  });

  it("a task that writes where results are sent fails, and only it", async () => {
    const bench = await open();
    const { error } = await bench.run("os.write(3, b'\\xff' * 64)\nresult = 1");
    assert.deepEqual([error?.code, error?.kind], ["PYTHON_CRASHED", "unknown"]);
    assert.match(error?.message ?? "", /descriptor by which results are sent/);
    assert.equal((await bench.run("result = 2")).data, 2);
  });

  it("a timeout ends the task, its process and what that has begun", async () => {
    const bench = await open();
    const code = `
import subprocess, sys, time
print("at work", file=sys.stderr)
child = subprocess.Popen(["sleep", "60"])
print(child.pid)
time.sleep(60)`;
    const { error, py } = await bench.run({ code, timeout: 0.7 });
    assert.deepEqual([error?.kind, error?.code, error?.retryable], ["timeout", "TIMEOUT", true]);
    assert.equal(error?.message, "not done after 0.7 s (timeout)");
    assert.equal(py?.stderr, "at work");
    await until(() => !lives(Number(py?.stdout)));
    assert.equal((await bench.run("result = 1")).data, 1);
  });

  it("a timeout ends code that never gives way", async () => {
    const bench = await open({ timeoutMs: 500 });
    const { error } = await bench.run("while True: pass");
    assert.equal(error?.kind, "timeout");
  });

  it("an abort ends the task, and its process", async () => {
    const bench = await open();
    const pid = Number((await bench.run(PID)).data);
    const controller = new AbortController();
    const running = bench.run("import time\ntime.sleep(60)", {}, controller.signal);
    await until(async () => (await bench.stats()).busy === 1);
    controller.abort();
    assert.equal((await running).error?.kind, "cancelled");
    assert.ok(!lives(pid));
  });

  for (const [what, code, says] of [
    ["os._exit", "print('bye', flush=True)\nos._exit(7)", /it ended with exit code 7/],
    ["a segmentation fault", "import ctypes\nctypes.string_at(0)", /SIGSEGV; .*Segmentation fault/],
    [
      "a signal",
      "import signal\nos.kill(os.getpid(), signal.SIGKILL)",
      /SIGKILL, perhaps for want/,
    ],
  ] as const) {
    it(`${what} is the failure of that task, while others go on`, async () => {
      const bench = await open({ processes: 3 });
      const slow = "import time\ntime.sleep(0.3)\nresult = 'went on'";
      const [crashed, ...others] = await Promise.all([code, slow, slow].map(one => bench.run(one)));
      assert.deepEqual(
        others.map(({ data }) => data),
        ["went on", "went on"],
      );
      const { error } = crashed!;
      assert.deepEqual([error?.code, error?.retryable], ["PYTHON_CRASHED", false]);
      assert.match(error?.message ?? "", says);
      assert.equal((await bench.run("result = 'again'")).data, "again");
    });
  }

  it("memory beyond the limit is the failure of that task", async function () {
    if (process.platform !== "linux") this.skip();
    const bench = await open({ memoryMaxBytes: 200_000_000 });
    const { error, py } = await bench.run("a = 1\nb = bytearray(1_000_000_000)");
    assert.deepEqual([error?.code, py?.exception], ["PYTHON_MEMORY", "MemoryError"]);
    assert.match(
      error?.message ?? "",
      /200000000 bytes \(NOETL_PYTHON_MEMORY_MAX_BYTES\) \(line 2/,
    );
    const grown = await bench.run(
      "rows = []\nwhile True: rows.append('x' * 1000 + str(len(rows)))",
    );
    assert.equal(grown.status, "error");
    assert.equal((await bench.run("result = len(bytearray(1_000_000))")).data, 1_000_000);
  });

  it("make room for new ones after so many tasks", async () => {
    const bench = await open({ processes: 1, tasksMax: 3 });
    const pids: unknown[] = [];
    for (let at = 0; at < 7; at += 1) pids.push((await bench.run(PID)).data);
    assert.equal(new Set(pids).size, 3);
    assert.deepEqual(pids.slice(0, 3), [pids[0], pids[0], pids[0]]);
  });

  for (const [what, code] of [
    ["a thread", "import threading, time\nthreading.Thread(target=time.sleep, args=(60,)).start()"],
    ["a child", "import subprocess\nsubprocess.Popen(['sleep', '60'])"],
  ] as const) {
    it(`with ${what} left behind, too`, async () => {
      const bench = await open();
      const { data } = await bench.run(`${code}\nresult = os.getpid()`);
      const { data: next } = await bench.run(PID);
      assert.notEqual(next, data);
      assert.ok(!lives(data as number));
    });
  }

  it("a forked child that comes to the end of the code says nothing", async () => {
    const bench = await open();
    assert.equal((await bench.run("os.fork()\nresult = 1")).data, 1);
    assert.equal((await bench.run("result = 2")).data, 2);
  });

  it("that have nothing to do end", async () => {
    const bench = await open({ idleMs: 50 });
    const pid = Number((await bench.run(PID)).data);
    await until(() => !lives(pid));
    assert.equal((await bench.stats()).idle, 0);
    assert.equal((await bench.run("result = 1")).data, 1);
  });

  it("end with their service, in the middle of a task too", async () => {
    const bench = await open();
    const pid = Number((await bench.run(PID)).data);
    const running = bench.run("import time\ntime.sleep(60)").catch(() => undefined);
    await until(async () => (await bench.stats()).busy === 1);
    benches.length = 0;
    await Promise.all([bench.stop(), running]);
    assert.ok(!lives(pid));
  });

  it("see nothing of our environment but what any program needs", async () => {
    const secrets = ["NOETL_ENCRYPTION_KEY", "DATABASE_URL", "NATS_URL", "NOETL_CREDENTIAL_PG"];
    for (const name of secrets) process.env[name] = "hush";
    try {
      const bench = await open();
      const { data } = await bench.run(`
with open("/proc/self/environ", "rb") as file: raw = file.read().decode()
result = {"names": sorted(os.environ), "raw": raw}`);
      const { names, raw } = data as { names: string[]; raw: string };
      assert.ok(names.includes("PATH"));
      const known = ["HOME", "LANG", "LC_ALL", "LC_CTYPE", "PATH", "TMPDIR", "TZ"];
      assert.deepEqual(
        names.filter(name => !known.includes(name)),
        [],
      );
      assert.ok(!raw.includes("hush"));
    } finally {
      for (const name of secrets) delete process.env[name];
    }
  });

  it("without an interpreter a task says what to do, and finds one that comes later", async () => {
    const bench = await open({ command: "/nowhere/python3" });
    const { error } = await bench.run("result = 1");
    assert.deepEqual([error?.kind, error?.code], ["config", "CONFIG"]);
    assert.match(
      error?.message ?? "",
      /NOETL_PYTHON '\/nowhere\/python3' cannot be run \(ENOENT\) \(install Python 3.8 or newer/,
    );
  });
});
