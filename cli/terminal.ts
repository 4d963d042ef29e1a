/**
 * Words on a terminal: stderr for people, stdout for the one answer, colour only where it is seen.
 */
import { terminalWishes } from "../schemas/env.ts";

export interface Screen {
  /** Whether a line can be redrawn in place. */
  live: boolean;
  colored: boolean;
  columns: number;
  write(text: string): void;
}

/** What a person reads while it goes on. */
export function openScreen(stream: NodeJS.WriteStream = process.stderr): Screen {
  const wishes = terminalWishes();
  const tty = stream.isTTY === true;
  return {
    live: tty && !wishes.ci,
    colored: tty && !wishes.noColor,
    get columns() {
      // Some terminals say 0 when they do not know.
      return stream.columns || 80;
    },
    write: text => void stream.write(text),
  };
}

export type Paint = (text: string, color: keyof typeof CODES) => string;

const CODES = { bold: 1, dim: 2, red: 31, green: 32, yellow: 33, cyan: 36 } as const;

export function painter(colored: boolean): Paint {
  return (text, color) => (colored ? `\u001b[${CODES[color]}m${text}\u001b[0m` : text);
}

export function say(text: string): void {
  process.stderr.write(`${text}\n`);
}

/** The answer of the command. */
export function print(text: string): void {
  process.stdout.write(`${text}\n`);
}

export function printJson(value: unknown): void {
  print(JSON.stringify(value, null, 2));
}

/** Columns side by side, as wide as their content; the last one is never padded. */
export function table(rows: readonly (readonly string[])[]): string {
  const widths: number[] = [];
  for (const row of rows) {
    row.forEach((cell, index) => (widths[index] = Math.max(widths[index] ?? 0, cell.length)));
  }
  return rows
    .map(row =>
      row
        .map((cell, index) => (index === row.length - 1 ? cell : cell.padEnd(widths[index] ?? 0)))
        .join("  ")
        .trimEnd(),
    )
    .join("\n");
}

/** `950 ms`, `3.2 s`, `4 m 05 s`, `2 h 03 m`. */
export function formatDuration(ms: number): string {
  if (ms < 1_000) return `${Math.round(ms)} ms`;
  if (ms < 60_000) return `${(ms / 1_000).toFixed(1)} s`;
  const seconds = Math.round(ms / 1_000);
  const two = (value: number) => String(value).padStart(2, "0");
  if (seconds < 3_600) return `${Math.floor(seconds / 60)} m ${two(seconds % 60)} s`;
  return `${Math.floor(seconds / 3_600)} h ${two(Math.floor((seconds % 3_600) / 60))} m`;
}

/** `1 step`, `3 steps`, with thousands separated. */
export function counted(count: number, word: string): string {
  return `${count.toLocaleString("en-US")} ${word}${count === 1 ? "" : "s"}`;
}
