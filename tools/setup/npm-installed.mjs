// Exits with 0 when node_modules holds exactly what package-lock.json says. Compares npm's own record of what it
// installed (node_modules/.package-lock.json) with the lock file, so an interrupted or older install is seen.
import { existsSync, readFileSync } from "node:fs";

const recordFile = "node_modules/.package-lock.json";

/** Paths that differ; a package for another platform may be absent. */
function differences(locked, installed) {
  const wrong = [];
  for (const [path, entry] of Object.entries(locked)) {
    if (path === "") continue;
    const found = installed[path];
    if (found === undefined || !existsSync(path)) {
      if (!entry.optional) wrong.push(path);
    } else if (found.version !== entry.version || found.integrity !== entry.integrity) {
      wrong.push(path);
    }
  }
  return wrong.concat(Object.keys(installed).filter((path) => locked[path] === undefined));
}

if (!existsSync(recordFile)) {
  console.log("node_modules is not installed");
  process.exit(1);
}
const read = (file) => JSON.parse(readFileSync(file, "utf8")).packages;
const wrong = differences(read("package-lock.json"), read(recordFile));
for (const path of wrong) console.log(`differs from the lock file: ${path}`);
process.exit(wrong.length === 0 ? 0 : 1);
