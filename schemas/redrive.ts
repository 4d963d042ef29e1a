/**
 * A redrive: what failed is run again in a new generation of its execution (design §4.6). The
 * items that a loop has accepted stay accepted.
 */

/** The activation that an activation goes on with. */
export interface Redrive {
  /** Its calls share the idempotency keys of this activation: what was done is not done twice. */
  keyed: number;
  /** The loop whose items it inherits. */
  loop_id?: string;
  /** Of its failed items those that run again, as ranges; all of them when absent. */
  items?: string;
}
