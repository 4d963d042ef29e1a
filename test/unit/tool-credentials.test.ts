// Sealing credentials and reading the ones an operator gives.
import { strict as assert } from "node:assert";
import { randomBytes } from "node:crypto";
import { readAliasVariables } from "../../services/credentials/aliases.ts";
import { readKey, seal, unseal } from "../../services/credentials/seal.ts";

const text = randomBytes(32).toString("base64");

describe("credential sealing", () => {
  const key = readKey(text);
  const stored = (name: string, data: Buffer) => ({ name, data, key_id: key.key_id });

  it("opens what it sealed, and never seals the same bytes twice", () => {
    const data = { password: "hush é" };
    const sealed = seal(key, "pg", data);
    assert.deepEqual(unseal(key, stored("pg", sealed)), data);
    assert.equal(sealed.includes("hush"), false);
    assert.notDeepEqual(seal(key, "pg", data), sealed);
  });

  it("refuses bytes that were changed anywhere, cut, or moved to another name", () => {
    const sealed = seal(key, "pg", { a: 1 });
    for (let at = 0; at < sealed.length; at++) {
      const changed = Buffer.from(sealed);
      changed[at] = (changed[at] ?? 0) ^ 1;
      assert.throws(() => unseal(key, stored("pg", changed)), { type: "REJECTED" }, `byte ${at}`);
    }
    assert.throws(() => unseal(key, stored("other", sealed)), /stored bytes were changed/);
    assert.throws(() => unseal(key, stored("pg", sealed.subarray(0, 20))), /were changed/);
    assert.throws(() => unseal(key, stored("pg", Buffer.alloc(0))), /were changed/);
  });

  it("names both keys when another one sealed it", () => {
    const other = readKey(randomBytes(32).toString("hex"));
    const row = stored("pg", seal(key, "pg", {}));
    const expected = new RegExp(`sealed with key ${key.key_id}, .* is ${other.key_id}`);
    assert.throws(() => unseal(other, row), expected);
  });

  it("takes 32 bytes as base64 or hex and nothing weaker", () => {
    assert.deepEqual(readKey(Buffer.from(text, "base64").toString("hex")), key);
    const weak = ["", "short", "0".repeat(64), Buffer.alloc(32).toString("base64"), "k".repeat(32)];
    for (const bad of weak) {
      assert.throws(
        () => readKey(bad),
        (error: Error) => {
          return (
            /NOETL_ENCRYPTION_KEY/.test(error.message) && !(bad && error.message.includes(bad))
          );
        },
      );
    }
  });
});

describe("credential variables", () => {
  it("are JSON {type, data}, and errors do not repeat them", () => {
    const variables = { pg_local: '{"type": "postgres", "data": {"db_host": "h"}}' };
    assert.equal(readAliasVariables(variables).get("pg_local")?.type, "postgres");
    assert.throws(
      () => readAliasVariables({ x: '{"data": "hush"}' }),
      (error: Error) => {
        return /NOETL_CREDENTIAL_X: expected/.test(error.message) && !/hush/.test(error.message);
      },
    );
  });
});
