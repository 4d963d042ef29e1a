// A forger's tools: SQL that changes single rows of an execution's log.

export interface Found {
  rule: string;
  subject: string;
  ok: boolean;
  detail: string;
}

/** A forger's hands: statements inside one transaction, `$1` is the execution. */
export type Forge = (
  sql: (text: string, values?: unknown[]) => Promise<Found[]>,
) => Promise<unknown>;

/** Rows of one loop by its step, or of the execution itself. */
export const of = (step: string) =>
  `execution_id = $1 and stream_id <> $1 and node_name = '${step}'`;
export const OWN = "execution_id = $1 and stream_id = $1";
export const one = (where: string, order = "version") =>
  `(execution_id, stream_id, version) in (select execution_id, stream_id, version
     from noetl.event where ${where} order by ${order} limit 1)`;
export const set = (where: string, key: string, value: unknown) =>
  `update noetl.event set meta = meta || '${JSON.stringify({ [key]: value })}' where ${one(where)}`;
export const DONE = `${of("each")} and event_type = 'command.completed'`;
export const FRAME = `${of("framed")} and event_type = 'frame.committed'`;

/** One more fact, a copy of another with changes: after the last one of its stream. */
export const copy = (where: string, more: string, version = "h.version") =>
  `with e as (select * from noetl.event where ${one(where)}), h as (
     update noetl.stream s set version = s.version + 1 from e where s.stream_id = e.stream_id
     returning s.stream_id, s.version
   )
   insert into noetl.event
     (execution_id, stream_id, version, event_id, event_type, node_name, meta, context, result)
   select e.execution_id, e.stream_id, ${version}, 1, ${more}, e.context, e.result from e, h`;

/** Makes room for one more fact after the first that is meant. */
export const gapAfter = (
  where: string,
) => `with place as (select * from noetl.event where ${one(where)})
  update noetl.event e set version = e.version + 1000000 from place
  where e.stream_id = place.stream_id and e.version > place.version`;
export const closeGap = "update noetl.event set version = version - 999999 where version > 999999";
