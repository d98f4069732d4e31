// Imports a contract as Postman does by default, follows the tutorial's steps and sends every request:
// node run.mjs CONTRACT VARIABLES STEPS, the last two in JSON. Prints the name and the status of each answer.
import { readFileSync } from "node:fs";
import { promisify } from "node:util";
import newman from "newman";
import { convertV2 } from "openapi-to-postmanv2";

const [contract, variables, steps] = process.argv.slice(2);
const imported = await promisify(convertV2)({ type: "string", data: readFileSync(contract, "utf8") }, {});
if (!imported.result) throw new Error(imported.reason);
const collection = imported.output[0].data;

/** Return the requests of all folders. */
const requests = (items) => items.flatMap((one) => (one.item ? requests(one.item) : [one]));
const all = requests(collection.item);

/** Do with a request what a step says. */
function follow([name, unticked, body]) {
  const found = all.find((one) => one.name === name);
  const { url, header, body: old } = found.request;
  for (const one of unticked === "every query parameter" ? url.query : []) one.disabled = true;
  for (const one of header) one.disabled = unticked.includes(`\`${one.key}\``);
  if (body) old.raw = body;
  for (const one of url.variable ?? []) one.value = "{{id}}"; // the reader pastes it
  return found;
}

const first = JSON.parse(steps).map(follow);
const script = { exec: ["if (pm.response.code === 201) pm.collectionVariables.set('id', pm.response.json().id);"] };
const options = {
  collection: {
    ...collection,
    item: [...first, ...all.filter((one) => !first.includes(one))],
    variable: Object.entries(JSON.parse(variables)).map(([key, value]) => ({ key, value })),
    event: [{ listen: "test", script }],
  },
};
const { run } = await promisify(newman.run.bind(newman))(options);
console.log(JSON.stringify(run.executions.map(({ item, response }) => [item.name, response?.code ?? null])));
