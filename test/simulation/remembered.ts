// What schedule after schedule makes again from the same text. Frozen, as processes that would each
// have their own share it here.
import { loadSettings, type Settings } from "../../schemas/env.ts";
import type { Json } from "../../schemas/json.ts";
import { parsePlaybook } from "../../schemas/playbook/parse.ts";
import { randomOf } from "../support/random-flows.ts";
import { story, type StepKind, type Story } from "./stories.ts";

/** Playbooks that there are; a schedule takes some of them. */
export const STORIES = 3_000;

const stories = new Map<number, Story>();
const playbooks = new WeakMap<Story, Json>();
const settings = new Map<number, Settings>();

/** The story of a number below STORIES. */
function storyAt(number: number): Story {
  let known = stories.get(number);
  if (!known) {
    known = frozen(story(randomOf(number), `story-${number}`));
    stories.set(number, known);
  }
  return known;
}

/** The first one from this number on that has such a step; any when it is not said which. */
export function storyWith(kind: StepKind | undefined, from: number): Story {
  for (let number = from; ; number += 1) {
    const told = storyAt(number % STORIES);
    if (!kind || told.steps.some(step => step.kind === kind)) return told;
  }
}

/** Its playbook, read. */
export function playbookOf(told: Story): Json {
  let known = playbooks.get(told);
  if (known === undefined) {
    known = frozen(parsePlaybook(told.content)) as unknown as Json;
    playbooks.set(told, known);
  }
  return known;
}

/** The settings of every process of a world; its leases are short. */
export function settingsOf(maxAttempts: number): Settings {
  let known = settings.get(maxAttempts);
  if (!known) {
    known = frozen(
      loadSettings({
        NOETL_COMMAND_LEASE_SECONDS: "3",
        NOETL_RERING_SECONDS: "2",
        NOETL_WORKER_BEAT_SECONDS: "1",
        NOETL_MAX_ATTEMPTS: String(maxAttempts),
        NOETL_WORKER_CAPACITY_SECONDS: "1",
        NOETL_WORKER_MAX_INFLIGHT_COMMANDS: "8",
        NOETL_WORKER_MAX_INFLIGHT_DB_COMMANDS: "6",
        // What is given is not looked for on this machine.
        NOETL_WORKER_CAPABILITIES: "python",
      }),
    );
    settings.set(maxAttempts, known);
  }
  return known;
}

function frozen<T>(value: T): T {
  if (typeof value === "object" && value !== null && !Object.isFrozen(value)) {
    Object.freeze(value);
    for (const part of Object.values(value)) frozen(part);
  }
  return value;
}
