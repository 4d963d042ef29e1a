// A reader of Server-Sent Events, after the grammar of the HTML standard: what a browser would see.
import { request, type IncomingHttpHeaders, type IncomingMessage } from "node:http";

export interface Message {
  event: string;
  id: string | undefined;
  data: Record<string, unknown>;
}

export interface EventStream {
  status: number;
  headers: IncomingHttpHeaders;
  /** The next message; undefined when the server has ended the stream. */
  next(): Promise<Message | undefined>;
  /** Every message from here to the end. */
  rest(): Promise<Message[]>;
  /** Comment lines so far. */
  comments(): number;
  /** What came when it is no stream: the body as text. */
  body(): Promise<string>;
  /** Takes nothing more from the socket, until `resume`. */
  pause(): void;
  resume(): void;
  /** Leaves, without a word. */
  close(): void;
}

/** Connects; resolves with the head of the answer. */
export async function openEventStream(
  url: string,
  headers: Record<string, string> = {},
): Promise<EventStream> {
  const { promise, resolve, reject } = Promise.withResolvers<IncomingMessage>();
  const asking = request(url, { headers: { accept: "text/event-stream", ...headers } }, resolve);
  asking.once("error", reject).end();
  const response = await promise;
  response.setEncoding("utf8");
  // Reading fails when the test leaves or the server cuts off: both show as the end.
  response.on("error", () => undefined);
  const chunks = response[Symbol.asyncIterator]() as AsyncIterator<string>;
  let text = "";
  let comments = 0;

  async function block(): Promise<string | undefined> {
    for (;;) {
      const end = text.indexOf("\n\n");
      if (end >= 0) {
        const found = text.slice(0, end);
        text = text.slice(end + 2);
        return found;
      }
      const chunk = await chunks.next().catch(() => ({ done: true, value: "" }) as const);
      if (chunk.done) return undefined;
      text += chunk.value;
    }
  }

  async function next(): Promise<Message | undefined> {
    for (;;) {
      const found = await block();
      if (found === undefined) return undefined;
      const message = parse(found);
      if (message) return message;
      comments += 1;
    }
  }

  async function rest(): Promise<Message[]> {
    const messages: Message[] = [];
    for (let one = await next(); one; one = await next()) messages.push(one);
    return messages;
  }

  async function body(): Promise<string> {
    for (;;) {
      const chunk = await chunks.next();
      if (chunk.done) return text;
      text += chunk.value;
    }
  }

  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    next,
    rest,
    body,
    comments: () => comments,
    pause: () => void response.socket.pause(),
    resume: () => void response.socket.resume(),
    close: () => void response.destroy(),
  };
}

/** undefined for a block of comments only. A line that the standard does not know is an error. */
function parse(block: string): Message | undefined {
  const fields: Record<string, string> = {};
  for (const line of block.split("\n")) {
    if (line.startsWith(":")) continue;
    const [, name = "", value = ""] = /^(event|id|data): (.*)$/.exec(line) ?? [];
    if (name === "" || name in fields) throw new Error(`not a line of an event stream: ${line}`);
    fields[name] = value;
  }
  const { event, id, data } = fields;
  if (event === undefined || data === undefined) {
    if (Object.keys(fields).length > 0) throw new Error(`not a whole message: ${block}`);
    return undefined;
  }
  return { event, id, data: JSON.parse(data) as Record<string, unknown> };
}
