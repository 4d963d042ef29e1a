// Who this worker is, and which workers of this machine are no more.
import { randomUUID } from "node:crypto";
import { readFileSync, readlinkSync } from "node:fs";
import { hostname } from "node:os";

export interface WorkerIdentity {
  worker_id: string;
  /** New with every start: a restarted worker holds nothing of the one before. */
  incarnation: string;
  machine: string;
  pid: number;
}

export function identify(nodeId: string): WorkerIdentity {
  return { worker_id: nodeId, incarnation: randomUUID(), machine: machineName(), pid: process.pid };
}

/**
 * Host, boot and pid namespace: two processes with the same value see each other's pids, so a pid
 * that is not there is a worker that is dead. Elsewhere than Linux the host must do.
 */
export function machineName(): string {
  const parts = [hostname()];
  for (const read of [
    () => readFileSync("/proc/sys/kernel/random/boot_id", "utf8").trim(),
    () => readlinkSync("/proc/self/ns/pid"),
  ]) {
    try {
      parts.push(read());
    } catch {
      // Not Linux, or /proc is not mounted.
    }
  }
  return parts.join("|");
}

/** false only when no process has this pid. A zombie has ended too. */
export function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
  } catch (error) {
    return (error as NodeJS.ErrnoException).code === "EPERM";
  }
  try {
    const status = readFileSync(`/proc/${pid}/stat`, "utf8");
    return !/^\d+ \(.*\) Z/s.test(status);
  } catch {
    return true;
  }
}
