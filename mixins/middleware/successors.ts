// A process that comes back under its name within Moleculer's patience: nobody notices that the one
// before is dead, and whoever has asked that one would wait for an answer until time is over.
import type { Middleware, ServiceBroker } from "moleculer";

type Receive = (cmd: string, packet: { payload?: unknown }) => Promise<unknown>;

/** What Moleculer knows of a node, and does when one disconnects; neither has a declared type. */
interface Inside {
  registry: { nodes: { get(nodeID: string): { instanceID: string | null } | undefined } };
  transit?: { removePendingRequestByNodeID(nodeID: string): void };
}

/** Rejects what is asked of a node (REQUEST_REJECTED) when another instance introduces itself. */
export function successorWatch(): Middleware {
  let broker: ServiceBroker & Inside;

  function receive(next: Receive): Receive {
    return (cmd, packet) => {
      if (cmd !== "INFO") return next(cmd, packet);
      const { sender, instanceID } = packet.payload as { sender: string; instanceID: string };
      const known = broker.registry.nodes.get(sender)?.instanceID ?? instanceID;
      if (known !== instanceID && sender !== broker.nodeID) {
        broker.transit?.removePendingRequestByNodeID(sender);
      }
      return next(cmd, packet);
    };
  }

  return {
    name: "successors",
    created(made) {
      broker = made;
    },
    // Its declared type is that of the result.
    transitMessageHandler: receive as never,
  };
}
