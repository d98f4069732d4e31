// Fastify with pg and @fastify/jwt: schemas for bodies and answers, one statement an operation.
import jwt from "@fastify/jwt";
import Fastify from "fastify";
import pg from "pg";

// Instants as PostgreSQL writes them, which is RFC 3339 but for two characters: a Date would lose the microseconds.
pg.types.setTypeParser(pg.types.builtins.TIMESTAMPTZ, (text) => text.replace(" ", "T").replace(/\+00$/, "Z"));

const pool = new pg.Pool({ connectionString: process.env.DATABASE_URL, max: 10, options: "-c TimeZone=UTC" });
const app = Fastify({ logger: false });
app.register(jwt, {
  secret: process.env.BETTER_AUTH_SECRET,
  verify: { algorithms: ["HS256"], requiredClaims: ["exp", "iat", "sub"] },
});
app.addHook("onRequest", (request) => request.jwtVerify());

const nullable = { type: ["string", "null"] };
const fields = {
  title: { type: "string", minLength: 1, maxLength: 200 },
  description: { ...nullable, maxLength: 1000 },
  completed: { type: "boolean" },
  priority: { ...nullable, enum: ["low", "medium", "high", null] },
  due_date: { ...nullable, format: "date-time" },
};
const task = {
  type: "object",
  properties: {
    id: { type: "string" },
    version: { type: "integer" },
    user_id: { type: "string" },
    title: { type: "string" },
    description: nullable,
    completed: { type: "boolean" },
    priority: nullable,
    due_date: nullable,
    created_at: { type: "string" },
    updated_at: { type: "string" },
  },
};
const params = { type: "object", properties: { id: { type: "string", format: "uuid" } } };
const body = { type: "object", additionalProperties: false, properties: fields };
const querystring = {
  type: "object",
  properties: {
    status: { type: "string", enum: ["all", "pending", "completed"], default: "all" },
    limit: { type: "integer", minimum: 1, maximum: 1000, default: 1000 },
  },
};

const COLUMNS =
  "id, version, user_id, title, description, completed, priority, due_date, created_at, updated_at";
const STATUSES = { all: "", pending: "AND NOT completed", completed: "AND completed" };

function columns(given) {
  const values = { ...given };
  for (const name of ["title", "description"]) {
    if (name in values) values[`${name}_folded`] = values[name]?.toLowerCase() ?? null;
  }
  return values;
}

async function one(reply, statement, values) {
  const { rows } = await pool.query(statement, values);
  if (rows.length) return rows[0];
  return reply.code(404).send({ detail: "no such task" });
}

app.get("/api/tasks", { schema: { querystring, response: { 200: { type: "array", items: task } } } }, async (request) => {
  const statement =
    `SELECT ${COLUMNS} FROM tasks WHERE user_id = $1 ${STATUSES[request.query.status]}` +
    " ORDER BY created_at DESC, id DESC LIMIT $2";
  return (await pool.query(statement, [request.user.sub, request.query.limit])).rows;
});

app.post(
  "/api/tasks",
  { schema: { body: { ...body, required: ["title"] }, response: { 201: task } } },
  async (request, reply) => {
    const { sub, email, name } = request.user;
    const values = columns(request.body);
    const names = Object.keys(values);
    const statement =
      "WITH new_user AS (INSERT INTO users (id, email, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING)" +
      ` INSERT INTO tasks (user_id, ${names.join(", ")})` +
      ` VALUES ($1, ${names.map((_, index) => `$${index + 4}`).join(", ")}) RETURNING ${COLUMNS}`;
    const { rows } = await pool.query(statement, [sub, email, name, ...Object.values(values)]);
    return reply.code(201).send(rows[0]);
  },
);

app.get("/api/tasks/:id", { schema: { params, response: { 200: task } } }, (request, reply) =>
  one(reply, `SELECT ${COLUMNS} FROM tasks WHERE user_id = $1 AND id = $2`, [request.user.sub, request.params.id]),
);

app.put("/api/tasks/:id", { schema: { params, body, response: { 200: task } } }, (request, reply) => {
  const values = columns(request.body);
  const changes = Object.keys(values).map((name, index) => `, ${name} = $${index + 3}`);
  return one(
    reply,
    `UPDATE tasks SET updated_at = now(), version = version + 1${changes.join("")}` +
      ` WHERE user_id = $1 AND id = $2 RETURNING ${COLUMNS}`,
    [request.user.sub, request.params.id, ...Object.values(values)],
  );
});

app.patch("/api/tasks/:id/complete", { schema: { params, response: { 200: task } } }, (request, reply) =>
  one(
    reply,
    "UPDATE tasks SET updated_at = now(), version = version + 1, completed = NOT completed" +
      ` WHERE user_id = $1 AND id = $2 RETURNING ${COLUMNS}`,
    [request.user.sub, request.params.id],
  ),
);

app.delete("/api/tasks/:id", { schema: { params } }, async (request, reply) => {
  const { rowCount } = await pool.query("DELETE FROM tasks WHERE user_id = $1 AND id = $2", [
    request.user.sub,
    request.params.id,
  ]);
  return rowCount ? reply.code(204).send() : reply.code(404).send({ detail: "no such task" });
});

await app.listen({ host: "127.0.0.1", port: Number(process.env.PORT) });
