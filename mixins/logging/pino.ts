/**
 * Pino as Moleculer's logger: fields survive in any argument order, and nothing unsafe is written.
 */
import { pino } from "pino";
import type { DestinationStream, Logger, LoggerOptions as PinoOptions } from "pino";
import type { LogLevel } from "../../schemas/settings.ts";
import { isObject } from "../../schemas/json.ts";
import { sanitizeFields, sanitizeText } from "./sanitize.ts";
import type { SanitizeLimits } from "./sanitize.ts";
import { textDestination } from "./text.ts";

export interface LoggingSettings extends SanitizeLimits {
  level: LogLevel;
  format: "auto" | "json" | "text";
}

/** What this module needs of the process: where lines go, and whether a person reads them. */
export interface LogSink {
  write: (line: string) => unknown;
  isTTY?: boolean;
}

/** Broker option `logger`: Moleculer's own Pino adapter with our options. Lines go to stderr. */
export function brokerLogger(settings: LoggingSettings, sink: LogSink = process.stderr) {
  return {
    type: "Pino",
    options: {
      level: settings.level,
      pino: { options: pinoOptions(settings), destination: destination(settings, sink) },
    },
  };
}

/** A logger outside of any broker, for what runs before one exists. */
export function createLog(settings: LoggingSettings, sink: LogSink = process.stderr): Logger {
  return pino(pinoOptions(settings), destination(settings, sink));
}

function destination(settings: LoggingSettings, sink: LogSink): DestinationStream {
  const asText = settings.format === "text" || (settings.format === "auto" && sink.isTTY === true);
  return asText ? textDestination(sink) : { write: line => void sink.write(line) };
}

function pinoOptions(settings: LoggingSettings): PinoOptions {
  return {
    level: settings.level,
    base: null,
    timestamp: pino.stdTimeFunctions.isoTime,
    formatters: {
      level: label => ({ level: label }),
      log: fields => sanitizeFields(fields, settings),
    },
    // The standard serializer would rebuild errors that are already described.
    serializers: { err: (error: unknown) => error },
    hooks: {
      logMethod(args, method) {
        const { fields, message } = arranged(args);
        // One text and no more arguments: pino then interpolates nothing, whatever it contains.
        const safe = sanitizeText(message, settings.valueMaxChars);
        if (message === "") method.call(this, fields as never);
        else method.call(this, fields as never, safe);
      },
    },
  };
}

/**
 * Moleculer writes `logger.error("text", error)` and `logger.info("a", "b", { c })`, where pino
 * keeps only what comes first. Here texts are joined, objects merged, and errors kept under `err`.
 */
export function arranged(args: readonly unknown[]): {
  fields: Record<string, unknown>;
  message: string;
} {
  const fields: Record<string, unknown> = {};
  const words: string[] = [];
  for (const argument of args) {
    if (argument instanceof Error) addError(fields, argument);
    else if (isObject(argument)) Object.assign(fields, argument);
    else if (Array.isArray(argument)) fields["items"] = argument;
    else if (argument !== undefined) words.push(String(argument).trim());
  }
  const message = words.filter(word => word !== "").join(" ");
  const error = fields["err"];
  if (message === "" && error instanceof Error) return { fields, message: error.message };
  return { fields, message };
}

function addError(fields: Record<string, unknown>, error: Error): void {
  if (fields["err"] === undefined) fields["err"] = error;
  else fields["err_2"] = error;
}
