/**
 * Calls every operation of the contract with the types that are generated from it, and checks the answers.
 *
 * The environment names the service, API_URL, and the token of a user who has nothing stored yet, API_TOKEN.
 */
import assert from "node:assert/strict";
import { randomUUID } from "node:crypto";
import createClient from "openapi-fetch";
import type { components, operations, paths } from "./schema.js";

type Task = components["schemas"]["Task"];
type TaskCreate = components["schemas"]["TaskCreate"];
type TaskUpdate = components["schemas"]["TaskUpdate"];
type TaskPatch = components["schemas"]["TaskPatch"];
type Problem = components["schemas"]["Problem"];
type ListQuery = NonNullable<operations["list_tasks"]["parameters"]["query"]>;

/** What openapi-fetch returns, whatever the operation. */
type Answer<Data> = { data?: Data; error?: Problem; response: Response };

const { API_URL: baseUrl = "", API_TOKEN: token = "" } = process.env;
assert.ok(baseUrl && token, "Set API_URL and API_TOKEN.");

const client = createClient<paths>({ baseUrl, headers: { Authorization: `Bearer ${token}` } });
const called = new Set<string>();
client.use({
  onResponse({ request, schemaPath }) {
    called.add(`${request.method} ${schemaPath}`);
  },
});

/** Return what a successful answer carries. */
function dataOf<Data>({ data, error, response }: Answer<Data>): NonNullable<Data> {
  assert.ok(data, `${response.status} from ${response.url}: ${error && explain(error)}`);
  return data;
}

/** Return the error of an answer that has to be one. */
function errorOf({ error, response }: Answer<unknown>): Problem {
  assert.ok(error, `${response.status} from ${response.url} is no error.`);
  assert.equal(error.status, response.status);
  assert.equal(error.request_id, response.headers.get("X-Request-Id"));
  return error;
}

/** Say in words for the user what went wrong. A code that is missing here does not compile. */
function explain(problem: Problem): string {
  switch (problem.code) {
    case "bad_request":
      return (problem.errors ?? []).map((error) => `${error.in} ${error.pointer} ${error.detail}`).join(", ");
    case "missing_token":
    case "invalid_token":
      return "Sign in again.";
    case "not_your_task":
    case "task_not_found":
      return "You have no such task.";
    case "precondition_failed":
      return "The task was changed in the meantime.";
    case "idempotency_key_in_use":
    case "rate_limited":
    case "request_timeout":
    case "busy":
    case "search_too_slow":
    case "unavailable":
      return "Try again shortly.";
    case "content_too_large":
    case "target_too_long":
    case "headers_too_large":
      return "That is too long.";
    case "too_many_tasks":
      return "There is no room for more tasks.";
    case "too_many_idempotency_keys":
    case "idempotency_key_reused":
    case "path_not_found":
    case "method_not_allowed":
    case "unsupported_media_type":
    case "internal_error":
      return `Something is broken. Quote ${problem.request_id} to support.`;
    default: {
      const added: never = problem.code;
      return `${problem.detail} (${added})`; // a newer server may have more codes
    }
  }
}

/** Yield the pages of a list. The link to the next one is followed as it is. */
async function* pages(query: ListQuery): AsyncGenerator<Task[]> {
  let answer = await client.GET("/api/tasks", { params: { query } });
  for (;;) {
    yield dataOf(answer);
    const next = answer.response.headers.get("Link")?.match(/<([^>]*)>; rel="next"/)?.[1];
    if (next === undefined) return;
    const { search } = new URL(next, baseUrl);
    answer = await client.GET("/api/tasks", { querySerializer: () => search });
  }
}

async function createOnce(): Promise<Task> {
  const header = { "Idempotency-Key": randomUUID() };
  const body: TaskCreate = { title: "Water the plants", priority: "high", due_date: "2099-12-01T10:00:00+01:00" };
  const first = await client.POST("/api/tasks", { params: { header }, body });
  const task = dataOf(first);
  assert.equal(first.response.status, 201);
  assert.equal(first.response.headers.get("Location"), `/api/tasks/${task.id}`);
  assert.equal(first.response.headers.get("Idempotency-Replayed"), null);
  assert.deepEqual([task.completed, task.due_date], [false, "2099-12-01T09:00:00Z"]);

  const again = await client.POST("/api/tasks", { params: { header }, body });
  assert.equal(dataOf(again).id, task.id);
  assert.equal(again.response.headers.get("Idempotency-Replayed"), "true");

  const other = await client.POST("/api/tasks", { params: { header }, body: { title: "Water the garden" } });
  assert.equal(errorOf(other).code, "idempotency_key_reused");
  return task;
}

async function readAndWrite({ id, title, version }: Task): Promise<void> {
  const path = { id };
  const read = await client.GET("/api/tasks/{id}", { params: { path } });
  const tag = read.response.headers.get("ETag");
  assert.equal(dataOf(read).title, title);
  assert.equal(tag, `"${version}"`);

  const unchanged = await client.GET("/api/tasks/{id}", { params: { path, header: { "If-None-Match": tag } } });
  assert.equal(unchanged.response.status, 304);

  const params = { path, header: { "If-Match": tag } };
  const changes: TaskUpdate = { title: "Water all the plants" };
  const written = await client.PUT("/api/tasks/{id}", { params, body: changes });
  assert.deepEqual([dataOf(written).title, dataOf(written).priority], ["Water all the plants", "high"]);

  const stale = await client.PUT("/api/tasks/{id}", { params, body: { title: "Water no plants" } });
  assert.equal(errorOf(stale).code, "precondition_failed");
  assert.equal(stale.response.headers.get("ETag"), written.response.headers.get("ETag"));

  const patch: TaskPatch = { description: "Also the ones on the balcony", priority: null };
  const patched = await client.PATCH("/api/tasks/{id}", {
    params: { path },
    headers: { "Content-Type": "application/merge-patch+json" },
    body: patch,
  });
  assert.deepEqual(dataOf(patched), { ...dataOf(written), ...patch, version: 3, updated_at: patched.data?.updated_at });

  const refused = await client.PATCH("/api/tasks/{id}", { params: { path }, body: { title: " " } });
  assert.deepEqual(errorOf(refused).errors?.map((error) => error.pointer), ["/title"]);
}

async function complete({ id }: Task): Promise<void> {
  const params = { path: { id } };
  const toggled = await client.PATCH("/api/tasks/{id}/complete", { params });
  assert.equal(dataOf(toggled).completed, true);
  for (const completed of [true, false, true]) {
    const set = await client.PATCH("/api/tasks/{id}/complete", { params, body: { completed } });
    assert.equal(dataOf(set).completed, completed);
  }
}

async function list(): Promise<void> {
  const due_date = "2024-02-29T10:00:00+01:00";
  for (const title of ["One", "Two", "Three", "Four", "Five"]) {
    dataOf(await client.POST("/api/tasks", { body: { title, priority: "low", due_date } }));
  }
  const query: ListQuery = {
    status: "pending",
    priority: ["low", "medium"],
    due_from: due_date,
    due_to: new Date().toISOString(),
    overdue: true,
    q: "O",
    sort: "title",
    order: "desc",
    limit: 2,
  };
  const titles: string[][] = [];
  for await (const page of pages(query)) titles.push(page.map((task) => task.title));
  assert.deepEqual(titles, [["Two", "One"], ["Four"]]);

  const refused = await client.GET("/api/tasks", { params: { query: { cursor: "forged" } } });
  assert.deepEqual(errorOf(refused).errors?.map((error) => [error.in, error.pointer]), [["query", "/cursor"]]);
}

async function remove({ id }: Task): Promise<void> {
  const params = { path: { id } };
  const removed = await client.DELETE("/api/tasks/{id}", { params });
  assert.equal(removed.response.status, 204);
  assert.equal(errorOf(await client.DELETE("/api/tasks/{id}", { params })).code, "task_not_found");
}

async function exportAndErase(): Promise<void> {
  assert.deepEqual(dataOf(await client.GET("/api/me")).tasks, { pending: 5, completed: 0 });
  const { user, tasks, idempotency_keys } = dataOf(await client.GET("/api/me/export"));
  assert.ok(user);
  assert.deepEqual([tasks.length, idempotency_keys.length], [5, 1]);

  const erased = await client.DELETE("/api/me");
  assert.equal(erased.response.status, 204);
  assert.deepEqual(dataOf(await client.GET("/api/me")).tasks, { pending: 0, completed: 0 });
}

async function withoutToken(): Promise<void> {
  assert.equal(dataOf(await client.GET("/health")).status, "ok");
  assert.equal(dataOf(await client.GET("/ready")).status, "ok");
  assert.equal(errorOf(await createClient<paths>({ baseUrl }).GET("/api/me")).code, "missing_token");
}

/** Never called. Each of these has a mistake; if one of them compiles, the types have become too loose. */
export async function mistakes(task: Task): Promise<void> {
  const params = { path: { id: task.id } };
  // @ts-expect-error The field is due_date.
  console.log(task.dueDate);
  // @ts-expect-error The field is due_date.
  await client.POST("/api/tasks", { body: { title: "Water the plants", dueDate: null } satisfies TaskCreate });
  // @ts-expect-error There is no title.
  await client.POST("/api/tasks", { body: { description: "Also the ones on the balcony" } });
  // @ts-expect-error There is no such priority.
  await client.PUT("/api/tasks/{id}", { params, body: { priority: "urgent" } });
  // @ts-expect-error The parameter is q.
  await client.GET("/api/tasks", { params: { query: { search: "plants" } } });
  // @ts-expect-error The path has an id.
  await client.DELETE("/api/tasks/{id}");
  // @ts-expect-error There is no such path.
  await client.GET("/api/task");
}

const task = await createOnce();
await readAndWrite(task);
await complete(task);
await list();
await remove(task);
await exportAndErase();
await withoutToken();
console.log(`${called.size} operations called`);
