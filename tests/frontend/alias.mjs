// Resolves `@/` as Next.js does, to what was compiled: node --import ./alias.mjs
import { register } from "node:module";

const hooks = `
export function resolve(specifier, context, next) {
  const own = specifier.startsWith("@/");
  return next(own ? new URL("build/" + specifier.slice(2) + ".js", "${new URL(".", import.meta.url)}").href : specifier, context);
}`;
register(`data:text/javascript,${encodeURIComponent(hooks)}`);
