// As told.py, and how packages are found that are not installed beside these scripts.
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { dirname, join } from "node:path";
import { pathToFileURL } from "node:url";

const { MODULES, TOKENS } = process.env;
const require = createRequire(MODULES);
export const { BASE_URL, API_KEY, MODEL, CALLER, SENTENCES, QUESTION } = process.env;
export const tokens = Number(TOKENS);
export const callTokens = 160;
export const PERSON = {
  type: "object",
  properties: { name: { type: "string", enum: ["Ann", "Bob"] } },
  required: ["name"],
  additionalProperties: false,
};
export const load = (name) => import(pathToFileURL(require.resolve(name)).href);
export const version = (name) =>
  JSON.parse(readFileSync(join(dirname(MODULES), "node_modules", name, "package.json"))).version;
export const tell = (found) => console.log(JSON.stringify(found));
