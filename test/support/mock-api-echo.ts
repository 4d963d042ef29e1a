// What playbooks expect of public sites: an echo (httpbin), a list of posts, the weather.
import type { MockRequest, Reply } from "./mock-api-http.ts";
import { Refusal } from "./mock-api-http.ts";
import type { Routes } from "./mock-api.ts";

const POSTS = 100;

export function echoRoutes(): Routes {
  const routes: Routes = {
    "GET /get": echo,
    "GET /posts": request => {
      const userId = request.url.searchParams.get("userId");
      const all = Array.from({ length: POSTS }, (_, at) => post(at + 1));
      return { body: all.filter(one => userId === null || String(one.userId) === userId) };
    },
    "GET /posts/{id}": request => {
      const id = Number(request.path["id"]);
      if (!(Number.isInteger(id) && id >= 1 && id <= POSTS)) throw new Refusal(404, {});
      return { body: post(id) };
    },
    "GET /v1/forecast": ({ url }) => {
      const temperature = Math.round(Number(url.searchParams.get("latitude")));
      return { body: { current_weather: { temperature, windspeed: 7 } } };
    },
  };
  for (const method of ["GET", "POST", "PUT", "PATCH", "DELETE"]) {
    routes[`${method} /anything`] = echo;
    routes[`${method} /anything/{*}`] = echo;
  }
  return routes;
}

function post(id: number) {
  return {
    userId: Math.ceil(id / 10),
    id,
    title: `Title of post ${id}`,
    body: `Body of post ${id}\nwith a second line`,
  };
}

function echo({ method, url, headers, text }: MockRequest): Reply {
  const args: Record<string, string | string[]> = {};
  for (const name of new Set(url.searchParams.keys())) {
    const values = url.searchParams.getAll(name);
    args[name] = values.length > 1 ? values : values[0]!;
  }
  return {
    body: { args, data: text, headers: titled(headers), json: parsed(text), method, url: url.href },
  };
}

function parsed(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

/** `content-type` → `Content-Type`, as httpbin shows them. */
function titled(headers: MockRequest["headers"]): Record<string, string> {
  const names = Object.entries(headers).map(([name, value]) => [
    name.replace(/(^|-)[a-z]/g, letter => letter.toUpperCase()),
    String(value),
  ]);
  return Object.fromEntries(names) as Record<string, string>;
}
