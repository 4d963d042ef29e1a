// A small shop API to try playbooks on: pages of orders, and details that sometimes fail at first.
//
// What it shows: `GET /api/orders?page=1` lists 25 orders and says whether there are more;
// `GET /api/orders/12` tells one in full. Every 7th order answers 503 the first time it is asked
// for, as busy systems do, so a playbook without a retry policy does not get through.
// `node examples/sample-api.ts` serves it at http://127.0.0.1:8090; it stores nothing.
import { createServer } from "node:http";
import type { AddressInfo } from "node:net";

const ORDERS = 120;
const PAGE_SIZE = 25;
const PRODUCTS = ["tea", "kettle", "cup", "saucer", "spoon", "honey", "biscuits"];
const CITIES = ["Lisbon", "Oslo", "Kyoto", "Quito", "Nairobi"];

/** How an order looks in a list. */
interface Order {
  id: number;
  customer: string;
  total_cents: number;
}

interface OrderDetail extends Order {
  city: string;
  ordered_at: string;
  lines: { product: string; quantity: number; unit_cents: number }[];
}

interface Reply {
  status: number;
  body: unknown;
}

/** Everything follows from the number, so each run and each machine sees the same orders. */
function orderDetail(id: number): OrderDetail {
  const lines = Array.from({ length: 1 + (id % 3) }, (_, at) => ({
    product: PRODUCTS[(id + at * 2) % PRODUCTS.length]!,
    quantity: 1 + ((id + at) % 4),
    unit_cents: 150 + ((id * 37 + at * 90) % 900),
  }));
  return {
    id,
    customer: `Customer ${1 + (id % 17)}`,
    total_cents: lines.reduce((sum, line) => sum + line.quantity * line.unit_cents, 0),
    city: CITIES[id % CITIES.length]!,
    ordered_at: new Date(Date.UTC(2026, 0, 1, id)).toISOString(),
    lines,
  };
}

function listOrders(page: number): Reply {
  const first = (page - 1) * PAGE_SIZE + 1;
  const last = Math.min(first + PAGE_SIZE - 1, ORDERS);
  const orders: Order[] = [];
  for (let id = first; id <= last; id++) {
    const { customer, total_cents } = orderDetail(id);
    orders.push({ id, customer, total_cents });
  }
  return { status: 200, body: { orders, page, total: ORDERS, has_more: last < ORDERS } };
}

function tellOrder(id: number, asked: Set<number>): Reply {
  if (!(Number.isInteger(id) && id >= 1 && id <= ORDERS)) {
    return { status: 404, body: { error: `there is no order ${id}` } };
  }
  const isFirstTime = !asked.has(id);
  asked.add(id);
  if (id % 7 === 0 && isFirstTime) return { status: 503, body: { error: "busy, ask again" } };
  return { status: 200, body: orderDetail(id) };
}

/** Starts the API on 127.0.0.1; port 0 takes a free one. Each server forgets what was asked. */
export async function startSampleApi(
  port = 0,
): Promise<{ url: string; close: () => Promise<void> }> {
  const asked = new Set<number>();
  const server = createServer((request, response) => {
    const { pathname, searchParams } = new URL(request.url ?? "/", "http://localhost");
    const id = /^\/api\/orders\/(\w+)$/.exec(pathname)?.[1];
    let reply: Reply = { status: 404, body: { error: "try /api/orders or /api/orders/1" } };
    if (id) reply = tellOrder(Number(id), asked);
    if (pathname === "/api/orders") reply = listOrders(Number(searchParams.get("page")) || 1);
    response.writeHead(reply.status, { "content-type": "application/json" });
    response.end(JSON.stringify(reply.body));
  });
  await new Promise<void>((resolve, reject) => {
    server.once("error", reject).listen(port, "127.0.0.1", resolve);
  });
  const { port: taken } = server.address() as AddressInfo;
  return {
    url: `http://127.0.0.1:${taken}`,
    async close() {
      const closed = new Promise(resolve => server.close(resolve));
      server.closeAllConnections();
      await closed;
    },
  };
}

if (import.meta.main) {
  const { url } = await startSampleApi(8090);
  process.stdout.write(`sample API at ${url}/api/orders\n`);
}
