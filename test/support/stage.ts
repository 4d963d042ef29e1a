// What faults happen on: the mock API, a store of the runtime, a database of the user, and settings
// for processes that name them.
import { startMockApi, type MockApi } from "./mock-api.ts";
import { testDatabase, type TestDatabase, type TestServer } from "./postgres.ts";
import { newFolder, type Env } from "./process.ts";
import { credentialsFor } from "./public-playbooks.ts";

export interface Stage {
  readonly api: MockApi;
  /** Of the runtime. */
  readonly store: TestDatabase;
  /** Of the user: what playbooks know as `pg_k8s` and its like. */
  readonly target: TestDatabase;
  /** Of a process over `store`. */
  readonly env: Env;
  /** The same without a store: a process starts the embedded one in its data folder. */
  readonly embedded: Env;
  /** For `afterEach`, when the processes have ended. */
  close(): Promise<void>;
}

/** A fresh stage; store and target lie on servers of their own where a test crashes those. */
export async function setStage(postgres?: TestServer, users?: TestServer): Promise<Stage> {
  const [api, store, target, folder] = await Promise.all([
    startMockApi(),
    postgres ? postgres.database({ migrated: true }) : testDatabase({ migrated: true }),
    users ? users.database() : testDatabase(),
    newFolder(),
  ]);
  const embedded = { NOETL_DATA_DIR: folder, ...credentialsFor(target.url) };
  return {
    api,
    store,
    target,
    embedded,
    env: { ...embedded, DATABASE_URL: store.url },
    async close() {
      await api.close();
      await store.drop();
      await target.drop();
    },
  };
}
