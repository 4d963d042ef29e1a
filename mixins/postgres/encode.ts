// JSON as Postgres takes it.

/** SQLSTATE of what is nested too deeply for Postgres: this process cannot even write it. */
const STATEMENT_TOO_COMPLEX = "54001";

/**
 * JSON for Postgres. jsonb holds neither NUL nor lone surrogates; a tool's result may have them,
 * and must not park its stream for it, so they become U+FFFD. Throws what `isRefused` knows for a
 * value that is nested too deeply: then its stream is told alone, as with any bad row.
 */
export function encode(value: unknown): string {
  const text = stringify(value);
  if (!text.includes("\\u0000") && !/\\ud[89a-f]/i.test(text)) return text;
  return text.replace(/\\(?:\\|u0000|ud[89a-f][0-9a-f]{2})/gi, escape =>
    escape === "\\\\" ? escape : "\ufffd",
  );
}

function stringify(value: unknown): string {
  try {
    return JSON.stringify(value);
  } catch (error) {
    throw Object.assign(error as Error, { code: STATEMENT_TOO_COMPLEX });
  }
}
