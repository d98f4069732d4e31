// The guide's client for the browser, where users come and go while requests are under way.
import assert from "node:assert/strict";
import test, { afterEach, beforeEach, mock } from "node:test";
import { createTask } from "@/lib/create-task";
import { SignedOut, forgetToken, tasks } from "@/lib/tasks-browser";

const MINUTE = 60 * 1000;
const base64url = (value) => Buffer.from(JSON.stringify(value)).toString("base64url");

let user; // who the session's cookie belongs to
let serial = 0;
let refused; // tokens that the service does not accept
let sent; // the user of each request that reached the service
let tokenRequests;
let tokenRoute; // what the route answers with
let service;

const userOf = (token) => JSON.parse(Buffer.from(token.split(".")[1], "base64url")).sub;
const issue = () => `${base64url({ alg: "HS256" })}.${base64url({ sub: user, serial: (serial += 1) })}.signature`;
const json = (status, body) => new Response(JSON.stringify(body), { status, headers: { "Content-Type": "application/json" } });
const answerWithToken = async () => (user ? json(200, { token: issue() }) : json(401, null));

/** A response that comes when it is let go, unless the request is aborted first. */
function held() {
  let release;
  const promise = new Promise((resolve) => {
    release = resolve;
  });
  return { answer: () => promise, release };
}

/** As fetch: rejects with the reason of the signal. */
function abortable(answer, signal) {
  return new Promise((resolve, reject) => {
    if (signal?.aborted) reject(signal.reason);
    signal?.addEventListener("abort", () => reject(signal.reason));
    answer.then(resolve, reject);
  });
}

beforeEach(() => {
  mock.timers.enable({ apis: ["Date"], now: Date.UTC(2026, 0, 1) });
  [user, sent, tokenRequests, refused] = ["alice", [], 0, new Set()];
  tokenRoute = answerWithToken;
  service = async (token) => json(200, [{ user_id: token && userOf(token) }]);
  mock.method(globalThis, "fetch", (input, options) => {
    if (input === "/api/tasks-token") {
      tokenRequests += 1;
      return abortable(tokenRoute(), options.signal);
    }
    const token = input.headers.get("Authorization")?.replace("Bearer ", "") ?? null;
    sent.push(token && userOf(token));
    const answer = refused.has(token) ? Promise.resolve(json(401, { code: "invalid_token" })) : service(token);
    return abortable(answer, AbortSignal.any([input.signal, options?.signal ?? input.signal]));
  });
  forgetToken();
});
afterEach(() => mock.reset());

const list = async () => (await tasks.GET("/api/tasks")).data[0].user_id;

/** Wait until something is so. */
async function until(condition) {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 1));
}

test("a token serves many requests, and one request for it many at once", async () => {
  assert.deepEqual(await Promise.all([list(), list(), list()]), ["alice", "alice", "alice"]);
  assert.equal(await list(), "alice");
  assert.equal(tokenRequests, 1);
});

test("a token that arrives after the user has signed out is not kept", async () => {
  const late = held();
  const own = answerWithToken();
  tokenRoute = late.answer;
  const request = list();
  await until(() => tokenRequests === 1);
  [user, tokenRoute] = ["bob", answerWithToken];
  forgetToken();
  await assert.rejects(request, SignedOut); // without a wait for the answer
  late.release(await own);
  assert.equal(await list(), "bob");
  assert.equal(await list(), "bob");
  assert.deepEqual(sent, ["bob", "bob"]);
});

test("a token whose body arrives after the user has signed out is not kept", async () => {
  const body = held();
  const token = issue();
  tokenRoute = async () => ({ ok: true, status: 200, json: body.answer });
  const request = list();
  await until(() => tokenRequests === 1);
  [user, tokenRoute] = ["bob", answerWithToken];
  forgetToken();
  body.release({ token });
  await assert.rejects(request, SignedOut);
  assert.equal(await list(), "bob");
  assert.deepEqual(sent, ["bob"]);
});

test("an answer for the user who has signed out is not handed on", async () => {
  const late = held();
  service = late.answer;
  const request = list();
  await until(() => sent.length === 1);
  forgetToken();
  late.release(json(200, [{ user_id: "alice" }]));
  await assert.rejects(request, SignedOut);
});

test("a refused token is renewed, once for all requests that it was refused to", async () => {
  await list();
  refused.add(await currentToken());
  assert.deepEqual(await Promise.all([list(), list()]), ["alice", "alice"]);
  assert.equal(tokenRequests, 2);
});

test("a request whose token is refused twice is not sent again", async () => {
  service = async () => json(401, { code: "invalid_token" });
  const { response } = await tasks.GET("/api/tasks");
  assert.equal(response.status, 401);
  assert.deepEqual([sent.length, tokenRequests], [2, 2]);
});

test("a request with a body is sent again whole", async () => {
  const bodies = [];
  await list();
  const token = await currentToken();
  refused.add(token);
  service = async () => json(201, {});
  const fetched = globalThis.fetch;
  mock.method(globalThis, "fetch", async (input, options) => {
    if (input instanceof Request) bodies.push(await input.clone().text());
    return fetched(input, options);
  });
  await tasks.POST("/api/tasks", { body: { title: "Buy milk" } });
  assert.deepEqual(bodies, ['{"title":"Buy milk"}', '{"title":"Buy milk"}']);
});

test("a refused request is not sent again with the token of another user", async () => {
  await list();
  refused.add(await currentToken());
  user = "bob"; // signed in in another tab
  await assert.rejects(list(), SignedOut);
  assert.deepEqual(sent, ["alice", "alice", "alice"]);
  assert.equal(await list(), "bob");
});

test("a token that is renewed for another user ends the session of the first", async () => {
  await list();
  mock.timers.tick(5 * MINUTE);
  user = "bob";
  await assert.rejects(list(), SignedOut);
  assert.deepEqual(sent, ["alice"]);
});

for (const [name, failure] of Object.entries({
  "the network is away": async () => Promise.reject(new TypeError("fetch failed")),
  "the route fails": async () => json(500, null),
  "the answer is not JSON": async () => new Response("<html>"),
  "the token is not one": async () => json(200, { token: "opaque" }),
})) {
  test(`after a renewal that failed no expired token is sent: ${name}`, async () => {
    await list();
    mock.timers.tick(5 * MINUTE);
    tokenRoute = failure;
    await assert.rejects(list());
    await assert.rejects(list());
    assert.deepEqual(sent, ["alice"]);
    tokenRoute = answerWithToken;
    assert.equal(await list(), "alice");
    assert.equal(sent.length, 2);
  });
}

test("without a signed-in user a request has no token, and the next one asks again", async () => {
  user = null;
  await tasks.GET("/api/tasks");
  assert.deepEqual(sent, [null]);
  user = "bob";
  assert.equal(await list(), "bob");
});

test("an attempt to create a task is not repeated as the next user", async () => {
  const usual = service;
  let answers = 0;
  service = async () => {
    answers += 1;
    return json(503, { code: "busy" });
  };
  const creation = createTask(tasks, { title: "Buy milk" }, "key");
  await until(() => answers === 1);
  await new Promise(setImmediate); // the second attempt waits
  [user, service] = ["bob", usual];
  forgetToken();
  assert.equal(await list(), "bob");
  await assert.rejects(creation, SignedOut);
  assert.deepEqual(sent, ["alice", "bob"]);
});

test("an attempt whose answer got lost is not repeated as the next user", async () => {
  service = async () => Promise.reject(new TypeError("fetch failed"));
  const creation = createTask(tasks, { title: "Buy milk" }, "key");
  await until(() => sent.length === 1);
  user = "bob";
  forgetToken();
  await assert.rejects(creation, SignedOut);
  assert.deepEqual(sent, ["alice"]);
});

/** Return the token that the next request is sent with. */
async function currentToken() {
  let token;
  const usual = service;
  service = async (one) => {
    token = one;
    return json(200, []);
  };
  await tasks.GET("/api/tasks");
  [service] = [usual];
  return token;
}
