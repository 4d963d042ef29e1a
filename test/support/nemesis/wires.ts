// What lies between the processes and the servers they talk to: connections that are cut at the
// worst moment, messages that come twice or late, and an ear for secrets.
import { startProxy, type Filter, type TcpProxy } from "../tcp-proxy.ts";

/** Connections to cut when a statement goes through them. */
export interface Cut {
  left: number;
  /** Right after the statement was sent, or when its answer comes back, which is lost then. */
  when: "sent" | "answered";
}

export interface Wires {
  store: TcpProxy;
  target: TcpProxy;
  nats: TcpProxy;
  /** Cuts connections of the next `left` appends, or of the user's next statements. */
  cut: Record<"store" | "target", Cut>;
  /** While set every message that a process sends comes twice. */
  isDoubled: boolean;
  /** Messages that went over NATS with one of the secrets in them. */
  overheard: string[];
  close(): Promise<void>;
}

/** Proxies, made one after the other when what they stand for is there. */
export function layWires(secrets: string[]) {
  const laid: Partial<Pick<Wires, "store" | "target" | "nats">> = {};
  const wires = {
    cut: { store: { left: 0, when: "sent" }, target: { left: 0, when: "sent" } },
    isDoubled: false,
    overheard: [],
    async close() {
      await Promise.all(Object.values(laid).map(proxy => proxy.close()));
    },
  } as unknown as Wires;
  const makers = {
    store: (reset: () => void) => cutting(wires.cut.store, "append_events", reset),
    target: (reset: () => void) => cutting(wires.cut.target, "effect", reset),
    nats: () => doubling(wires, secrets),
  };
  async function between(what: "store" | "target" | "nats", url: string): Promise<string> {
    const proxy = await startProxy(Number(new URL(url).port), makers[what]);
    laid[what] = wires[what] = proxy;
    return proxy.through(url);
  }
  return { wires, between };
}

const NOTHING = Buffer.alloc(0);

/** The connection ends at a chunk that has this text, or at the answer to it. */
function cutting(cut: Cut, text: string, reset: () => void): Filter {
  let isDoomed = false;
  return {
    sent(chunk) {
      if (cut.left > 0 && chunk.includes(text)) {
        cut.left -= 1;
        if (cut.when === "answered") isDoomed = true;
        else setImmediate(reset);
      }
      return chunk;
    },
    got(chunk) {
      if (!isDoomed) return chunk;
      reset();
      return NOTHING;
    },
  };
}

/** Of NATS' own requests for messages: twice, they would be another request. */
const PULL = "$JS.API.CONSUMER.MSG.NEXT";

/** Follows NATS' protocol: lines, and after PUB and HPUB a payload of so many bytes. */
function doubling(wires: Wires, secrets: string[]): Filter {
  let rest: Buffer = NOTHING;
  return {
    sent(chunk) {
      rest = rest.length > 0 ? Buffer.concat([rest, chunk]) : chunk;
      const out: Buffer[] = [];
      for (let size = frameSize(rest); size > 0; size = frameSize(rest)) {
        const frame = rest.subarray(0, size);
        rest = rest.subarray(size);
        const isMessage = /^H?PUB /i.test(frame.toString("latin1", 0, 5));
        out.push(frame);
        if (isMessage && wires.isDoubled && !frame.includes(PULL)) out.push(frame);
        if (isMessage) listen(wires, secrets, frame);
      }
      return Buffer.concat(out);
    },
  };
}

/** Bytes of the first whole frame; 0 when it is not whole. */
function frameSize(bytes: Buffer): number {
  const end = bytes.indexOf("\r\n");
  if (end < 0) return 0;
  const line = bytes.toString("latin1", 0, end);
  const payload = /^H?PUB /i.test(line) ? Number(line.split(" ").at(-1)) + 2 : 0;
  const size = end + 2 + payload;
  return bytes.length < size ? 0 : size;
}

function listen(wires: Wires, secrets: string[], frame: Buffer): void {
  if (!secrets.some(secret => frame.includes(secret))) return;
  wires.overheard.push(frame.toString("latin1", 0, frame.indexOf("\r\n")));
}
