/** Names of fields that hold secrets, however their words are joined. */

export const SECRET_WORDS = [
  ...["pass(?:word|wd|phrase)", "secret", "authorization", "cookie", "connection[-_]?string"],
  ...["api[-_]?key", "access[-_]?key", "private[-_]?key", "encryption[-_]?key"],
].join("|");

const SECRET_NAME = new RegExp(`${SECRET_WORDS}|token$|dsn$|^auth$|^pwd$`, "i");

/** true for `password`, `api_key`, `accessToken` and the like. */
export function isSecretName(name: string): boolean {
  return SECRET_NAME.test(name);
}
