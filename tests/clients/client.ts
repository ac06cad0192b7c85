// Uses a client typed by openapi-typescript, against a server that runs: node client.js URL TOKEN.
import createClient from "openapi-fetch";
import type { components, paths } from "./rescind.js";

declare const process: { argv: string[] };
const [url = "", token = ""] = process.argv.slice(2);
const client = createClient<paths>({ baseUrl: url, headers: { authorization: `Bearer ${token}` } });
const anonymous = createClient<paths>({ baseUrl: url });

function assert(holds: unknown, what: string): asserts holds {
  if (!holds) throw new Error(what);
}

/** Asserts that this is an error with a code, which is one of the described ones. */
function isError(
  answer: { error?: components["schemas"]["ErrorBody"]; response: Response },
  status: number,
  code: components["schemas"]["ErrorCode"],
): Record<string, unknown> {
  assert(answer.error && answer.response.status === status && answer.error.code === code, JSON.stringify(answer.error));
  assert(answer.response.headers.get("x-stack-known-error") === code, code);
  return answer.error.details;
}

const keys = "/api/v1/user-api-keys";
const body = (description: string) => ({ user_id: "u-ts", description, expires_at_millis: null });

// Create, and the same once more.
const made: { id: string; value: string }[] = [];
for (const description of ["a", "b", "c"]) {
  const { data } = await client.POST(keys, { body: body(description) });
  assert(data && typeof data.value === "string", "the whole value");
  made.push({ id: data.id, value: data.value });
}
for (const replayed of [false, true]) {
  const header = { "Idempotency-Key": "once, by TypeScript" };
  const { data, response } = await client.POST(keys, { params: { header }, body: body("once") });
  assert(data && (typeof data.value === "string") === !replayed, "the value is shown once");
  assert((response.headers.get("idempotency-replayed") === "true") === replayed, "replayed");
}

// List, in pages.
const seen = new Set<string>();
let cursor: string | null = null;
do {
  const query: { user_id: string; limit: number; cursor?: string } = { user_id: "u-ts", limit: 3 };
  if (cursor !== null) query.cursor = cursor;
  const { data } = await client.GET(keys, { params: { query } });
  assert(data?.is_paginated, "a page");
  for (const item of data.items) seen.add(item.id);
  cursor = data.pagination.next_cursor;
} while (cursor !== null);
assert(seen.size === 4 && made.every((one) => seen.has(one.id)), "all keys are listed");

// Check, rotate, revoke.
const first = made[0];
assert(first, "a key");
const checked = await client.POST(`${keys}/check`, { body: { api_key: first.value } });
assert(checked.data?.value.last_four === first.value.slice(-4), "the check");
const path = { id: first.id };
const rotated = await client.POST(`${keys}/{id}/rotate`, { params: { path }, body: { overlap_seconds: 60 } });
assert(typeof rotated.data?.value === "string", "the successor");
const revoked = await client.PATCH(`${keys}/{id}`, { params: { path }, body: { revoked: true } });
assert(revoked.data?.manually_revoked_at_millis, "the time");
isError(await client.POST(`${keys}/check`, { body: { api_key: first.value } }), 401, "API_KEY_REVOKED");

// A leak, and its incident.
const report = { api_key: rotated.data.value, url: "https://paste.example/ts" };
const told = await anonymous.POST("/api/v1/integrations/credential-scanning/revoke", { body: report });
assert(told.data?.success, "the report");
const incidents = await client.GET("/api/v1/incidents", { params: { query: { q: "u-ts" } } });
const id = incidents.data?.items[0]?.id;
assert(id, "an incident");
const incident = await client.GET("/api/v1/incidents/{id}", { params: { path: { id } } });
assert(incident.data?.occurrences[0]?.url === report.url, "the place");

// Errors, with their details.
const query = { user_id: "u-ts", limit: 201 };
const details = isError(await client.GET(keys, { params: { query } }), 400, "SCHEMA_ERROR");
assert(details.field === "limit", "the field");
isError(await anonymous.GET("/api/v1/formats"), 401, "ACCESS_TOKEN_REQUIRED");
console.log("done");
