/** From the fields of a python task to the program it runs. */
import { decodeBase64, readScript, SCRIPT_MAX_BYTES } from "../../mixins/script-file.ts";
import { configFailure } from "../../mixins/tool.ts";
import { isObject } from "../../schemas/json.ts";
import type { ToolCommand } from "../../schemas/tool.ts";

export interface Program {
  code: string;
  /** What tracebacks call it. */
  filename: string;
}

/**
 * The program of a task: `script`, else `code_b64`, else `code` (playbook-dsl §3.4). A script file
 * is read from below `scriptRoot`. Throws config failures that name the field.
 */
export async function readProgram(
  config: Record<string, unknown>,
  command: Pick<ToolCommand, "step" | "task">,
  scriptRoot: string,
): Promise<Program> {
  const { script, code_b64, code } = config;
  const program = { code: "", filename: nameOf(command) };
  if (isGiven(script)) {
    program.code = await readScript(script, scriptRoot);
    const isFile = isObject(script) && typeof script["uri"] === "string";
    if (isFile && !isInline(script)) program.filename = String(script["uri"]);
  } else if (isGiven(code_b64)) {
    if (typeof code_b64 !== "string") throw configFailure("code_b64: expected base64 text");
    program.code = decodeBase64(code_b64, "code_b64");
  } else {
    if (typeof code !== "string") throw configFailure("code: expected the text of a program");
    program.code = code;
  }
  if (program.code.trim() === "") throw configFailure("code: it is empty", "write a program");
  if (program.code.length > SCRIPT_MAX_BYTES) {
    throw configFailure(`code: longer than ${SCRIPT_MAX_BYTES} characters`);
  }
  return program;
}

function isGiven(value: unknown): boolean {
  return value !== undefined && value !== null && value !== "";
}

function isInline({ source }: Record<string, unknown>): boolean {
  return isObject(source) && source["type"] === "inline";
}

/** A single tool is called like its step, a task of a pipeline like both. */
function nameOf({ step, task }: Pick<ToolCommand, "step" | "task">): string {
  return task === `${step}_task` ? `<${step}>` : `<${step}/${task}>`;
}

/** Variables of the environment that the task adds for itself. */
export function readEnvironment(value: unknown): Record<string, string> {
  if (!isGiven(value)) return {};
  if (!isObject(value)) throw configFailure("env: expected a map");
  const variables = Object.entries(value).map(([name, text]) => {
    const isScalar = ["string", "number", "boolean"].includes(typeof text) || text === null;
    if (!/^[^=\0]+$/.test(name) || !isScalar) {
      throw configFailure(`env: '${name}' is no variable`, "names with text, numbers or booleans");
    }
    return [name, text === null ? "" : String(text).replaceAll("\0", "")] as const;
  });
  return Object.fromEntries(variables);
}
