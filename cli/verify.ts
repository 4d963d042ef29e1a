/** `noetl verify`: whether an execution's log proves what it says; exit code 1 when it does not. */
import type { GlobalOptions } from "./context.ts";
import { withBackend } from "./context.ts";
import { EXIT } from "./exit.ts";
import type { ExitCode } from "./exit.ts";
import { counted, formatDuration, openScreen, painter, print, printJson } from "./terminal.ts";

export interface Verification {
  execution_id: string;
  path: string | null;
  status: string | null;
  ok: boolean;
  checks: {
    rule: string;
    ok: boolean;
    detail?: string;
    faults: { subject: string; detail: string }[];
  }[];
  duration_ms: number;
}

/** The server gives up a little before. */
const TIMEOUT_MS = 130_000;

export async function verify(executionId: string, options: GlobalOptions): Promise<ExitCode> {
  return withBackend(options, ["client"], async backend => {
    const params = { execution_id: executionId };
    const timeout = { timeoutMs: TIMEOUT_MS };
    const answer = await backend.call<Verification>("executions.verify", params, timeout);
    if (options.json) printJson(answer);
    else print(reportLines(answer, openScreen(process.stdout).colored).join("\n"));
    return answer.ok ? EXIT.completed : EXIT.failed;
  });
}

/** A line a rule, with what breaks it below; then the verdict. */
export function reportLines(answer: Verification, colored: boolean): string[] {
  const paint = painter(colored);
  const { execution_id, path, status, checks, duration_ms } = answer;
  const head = [paint(path ?? "?", "bold"), status ?? "", paint(execution_id, "dim")];
  const width = Math.max(...checks.map(check => check.rule.length));
  const lines = checks.flatMap(({ rule, ok, detail = "", faults }) => {
    const name = rule.padEnd(width);
    if (ok) return [`  ${paint("✔", "green")} ${name}  ${withThousands(detail)}`];
    return faults.map(({ subject, detail: fault }, index) => {
      const start = index === 0 ? `${paint("✘", "red")} ${name}` : " ".repeat(width + 2);
      return `  ${start}  ${subject}: ${fault}`;
    });
  });
  const took = paint(`(${formatDuration(duration_ms)})`, "dim");
  return [head.join("  "), ...lines, `${verdict(answer, paint)} ${took}`];
}

/** Counts as people write them; ids and digests are longer or no numbers, and stay. */
function withThousands(detail: string): string {
  return detail.replace(/(?<![\w-])\d{4,12}(?![\w-])/g, digits =>
    Number(digits).toLocaleString("en-US"),
  );
}

function verdict({ ok, status, checks }: Verification, paint: ReturnType<typeof painter>): string {
  const broken = checks.filter(check => !check.ok).length;
  if (!ok) return paint(`✘ ${counted(broken, "rule")} broken: the log does not prove it`, "red");
  const isOver = status === "COMPLETED" || status === "FAILED" || status === "CANCELLED";
  return paint(isOver ? "✔ proved by its log" : "✔ sound so far; it has not ended", "green");
}
